{{- /* What the pods of the Deployment and of the migration have in common, and how everything is labelled. */ -}}

{{- define "app.labels" -}}
{{ include "app.identity" . }}
app.kubernetes.io/version: {{ regexReplaceAll "^[^A-Za-z0-9]+|[^A-Za-z0-9]+$" (trunc 63 .Values.image.tag) "" | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* Never changes: a Deployment’s selector cannot, and pods would be replaced. */ -}}
{{- define "app.identity" -}}
app.kubernetes.io/name: lunarfront-app
app.kubernetes.io/instance: {{ .Values.customer | quote }}
{{- end }}

{{- /* The migration’s pods have the same identity, and must not be sent requests. */ -}}
{{- define "app.serverLabels" -}}
{{ include "app.identity" . }}
app.kubernetes.io/component: server
{{- end }}

{{- /* A pod keeps the variables that it started with: another Secret has to be another pod. */ -}}
{{- define "app.podAnnotations" -}}
{{- $checksum := .Values.secretChecksum }}
{{- if not .Values.existingSecret }}
{{- $checksum = include "app.secretData" . | sha256sum }}
{{- end }}
{{- with $checksum -}}
annotations:
  checksum/secret: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "app.podSpec" -}}
# It needs nothing of Kubernetes’ API.
automountServiceAccountToken: false
# Variables such as APP_PORT, made of the Services’ names, would be mistaken for its settings.
enableServiceLinks: false
{{- with .Values.image.pullSecret }}
imagePullSecrets:
  - name: {{ . | quote }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
volumes:
  - name: tmp
    emptyDir:
      sizeLimit: 256Mi
{{- end }}

{{- define "app.container" -}}
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
envFrom:
  - secretRef:
      name: {{ .Values.existingSecret | default "app" | quote }}
env:
  - name: PORT
    value: {{ .Values.port | quote }}
{{- if .Values.existingSecret }}
{{- range $name, $value := .Values.env }}
  - name: {{ $name | quote }}
    {{- /* Kubernetes would put another variable in the place of $(NAME). */}}
    value: {{ include "app.text" $value | replace "$" "$$" | quote }}
{{- end }}
{{- end }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
volumeMounts:
  - name: tmp
    mountPath: /tmp
{{- end }}
