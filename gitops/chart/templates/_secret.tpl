{{- /* What is in the Secret that the chart makes, as JSON. All of env is: which of it is secret, only its author knows. */ -}}
{{- define "app.secretData" -}}
{{- $data := dict "DATABASE_URL" (.Values.database).url "REDIS_URL" (.Values.redis).url }}
{{- range $name, $value := .Values.env }}
{{- $data = set $data $name (include "app.text" $value) }}
{{- end }}
{{- toJson $data }}
{{- end }}

{{- /* A variable’s value as text. Helm itself would write 1000000 as 1e+06. */ -}}
{{- define "app.text" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end }}
{{- end }}
