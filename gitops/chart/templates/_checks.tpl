{{- /* What values.schema.json cannot say, or not in words. Argo CD shows these sentences, so no secret is in them. */ -}}

{{- define "app.checks" -}}
{{- $problems := list }}
{{- $values := .Values }}

{{- if ne .Release.Namespace (printf "customer-%s" .Values.customer) }}
{{- $problems = append $problems (printf "the values are those of customer %s, but the namespace is %s: expected the namespace customer-%s, whose folder has the same name" .Values.customer .Release.Namespace .Values.customer) }}
{{- end }}
{{- if regexMatch "^customer(-|$)" .Values.customer }}
{{- $problems = append $problems (printf "customer %s must not start with customer: that word is put before it" .Values.customer) }}
{{- end }}
{{- range $key := list "customer" "subdomain" }}
{{- if has (get $values $key) (include "app.reserved" . | splitList " ") }}
{{- $problems = append $problems (printf "%s %s is reserved for the platform" $key (get $values $key)) }}
{{- end }}
{{- end }}

{{- if not .Values.image.tag }}
{{- $problems = append $problems "image.tag is empty: expected the tag of an image, which CI writes into gitops/chart/values.yaml once it has built one" }}
{{- end }}

{{- $inline := list }}
{{- $missing := list }}
{{- range $key, $there := dict "database.url" .Values.database "redis.url" .Values.redis "env.JWT_SECRET" .Values.env.JWT_SECRET }}
{{- if $there }}{{ $inline = append $inline $key }}{{ else }}{{ $missing = append $missing $key }}{{ end }}
{{- end }}
{{- if and .Values.existingSecret $inline }}
{{- $problems = append $problems (printf "existingSecret is %s, and %s inline too: expected the one or the other" .Values.existingSecret (join ", " $inline)) }}
{{- else if and (not .Values.existingSecret) (not $inline) }}
{{- $problems = append $problems "there are no secrets: expected existingSecret, or database.url, redis.url and env.JWT_SECRET inline" }}
{{- else if and (not .Values.existingSecret) $missing }}
{{- $problems = append $problems (printf "of the inline secrets %s is missing: expected database.url, redis.url and env.JWT_SECRET, or existingSecret in their place" (join ", " $missing)) }}
{{- end }}
{{- if and .Values.secretChecksum (not .Values.existingSecret) }}
{{- $problems = append $problems "secretChecksum is given without existingSecret: expected it only there; the chart knows its own Secret’s" }}
{{- end }}

{{- range $name, $instead := dict "DATABASE_URL" "database.url" "REDIS_URL" "redis.url" "PORT" "port" }}
{{- if hasKey $values.env $name }}
{{- $problems = append $problems (printf "env has %s: expected %s in its place" $name $instead) }}
{{- end }}
{{- end }}

{{- if gt (include "app.mebibytes" .Values.resources.requests.memory | int64) (include "app.mebibytes" .Values.resources.limits.memory | int64) }}
{{- $problems = append $problems (printf "resources.requests.memory is %s, above resources.limits.memory, %s: expected at most as much" .Values.resources.requests.memory .Values.resources.limits.memory) }}
{{- end }}

{{- if $problems }}
{{- fail (join "; " $problems) }}
{{- end }}
{{- end }}

{{- /* Names under app.DOMAIN that are the platform’s: lib/customers.ts has the same. */ -}}
{{- define "app.reserved" -}}
admin api app argocd auth dev feature git gitea grafana lb login mail ns platform preview registry staging status test www
{{- end }}

{{- define "app.mebibytes" -}}
{{- mul (regexFind "^[0-9]+" .) (hasSuffix "Gi" . | ternary 1024 1) }}
{{- end }}
