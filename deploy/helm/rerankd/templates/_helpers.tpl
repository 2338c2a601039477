{{- define "rerankd.name" -}}
{{- printf "%s" .Release.Name | trunc 53 | trimSuffix "-" -}}
{{- end -}}

{{- define "rerankd.labels" -}}
app.kubernetes.io/name: rerankd
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/component: {{ .Values.mode }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "rerankd.selector" -}}
app.kubernetes.io/name: rerankd
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "rerankd.image" -}}
{{- $kind := ternary "router" (ternary "cuda" "cpu" (gt (int .Values.gpu) 0)) (eq .Values.mode "router") -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default (printf "%s-%s" .Chart.AppVersion $kind) }}
{{- end -}}

{{- define "rerankd.isScaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}yes{{ end -}}
{{- end -}}

{{- define "rerankd.mostReplicas" -}}
{{- if .Values.keda.enabled }}{{ .Values.keda.maxReplicas }}
{{- else if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas }}
{{- else }}{{ .Values.replicas }}{{ end -}}
{{- end -}}

{{- define "rerankd.check" -}}
{{- if and .Values.autoscaling.enabled .Values.keda.enabled -}}
{{- fail "autoscaling and keda both set the number of replicas: enable one of them." -}}
{{- end -}}
{{- if and .Values.accounts (not .Values.database.existingSecret) -}}
{{- fail "accounts need a database that outlives the pod: set database.existingSecret to a Secret with a postgresql:// URL." -}}
{{- end -}}
{{- if and .Values.accounts .Values.apiKey.existingSecret -}}
{{- fail "With accounts every caller has a key of its own: leave apiKey.existingSecret out." -}}
{{- end -}}
{{- if not (or .Values.accounts .Values.apiKey.existingSecret .Values.publicWithoutKey) -}}
{{- fail "Callers need a key: set apiKey.existingSecret, or accounts, or publicWithoutKey for everybody who can reach the Service." -}}
{{- end -}}
{{- if and (eq .Values.mode "router") (gt (int .Values.gpu) 0) -}}
{{- fail "A router computes nothing: gpu must be 0." -}}
{{- end -}}
{{- if .Values.ray.replicas -}}
{{- if eq .Values.mode "router" -}}
{{- fail "A router computes nothing: ray.replicas must be 0." -}}
{{- end -}}
{{- if not .Values.image.tag -}}
{{- fail "ray.replicas needs an image with Ray: build one (docs/deploy/ray.md) and set image.tag." -}}
{{- end -}}
{{- if and (gt (int .Values.gpu) 0) (ne (int .Values.gpu) (int .Values.ray.replicas)) -}}
{{- fail "Each replica has a GPU of its own: ray.replicas and gpu must be equal." -}}
{{- end -}}
{{- else if gt (int .Values.gpu) 1 -}}
{{- fail "One engine uses one GPU: set ray.replicas to the number of GPUs, or gpu to 1." -}}
{{- end -}}
{{- end -}}

{{- define "rerankd.container" -}}
image: {{ include "rerankd.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "rerankd.env" -}}
- {name: RERANKD_CONFIG, value: /etc/rerankd/rerankd.toml}
- {name: RERANKD_LOG_FORMAT, value: json}
- {name: RERANKD_DRAIN_S, value: {{ .Values.drainSeconds | quote }}}
{{- if .Values.ray.replicas }}
- {name: RERANKD_REPLICAS, value: {{ .Values.ray.replicas | quote }}}
{{- if .Values.ray.cpus }}
- {name: RERANKD_REPLICA_CPUS, value: {{ .Values.ray.cpus | quote }}}
{{- end }}
{{- if gt (int .Values.gpu) 0 }}
- {name: RERANKD_DEVICE, value: cuda}
{{- end }}
{{- end }}
{{- if .Values.accounts }}
- {name: RERANKD_ACCOUNTS, value: "true"}
{{- end }}
{{- if .Values.publicWithoutKey }}
- {name: RERANKD_NO_AUTH, value: "true"}
{{- end }}
{{- range $name := list "apiKey" "database" "redis" }}
{{- $secret := index $.Values $name }}
{{- if $secret.existingSecret }}
- {name: RERANKD_{{ $name | snakecase | upper }}_FILE, value: /run/secrets/rerankd/{{ $secret.key }}}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "rerankd.mounts" -}}
- {name: cache, mountPath: /var/cache/rerankd}
- {name: tmp, mountPath: /tmp}
- {name: data, mountPath: /var/lib/rerankd}
- {name: settings, mountPath: /etc/rerankd, readOnly: true}
{{- if .Values.ray.replicas }}
- {name: shm, mountPath: /dev/shm}
{{- end }}
{{- if or .Values.apiKey.existingSecret .Values.database.existingSecret .Values.redis.existingSecret }}
- {name: secrets, mountPath: /run/secrets/rerankd, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
