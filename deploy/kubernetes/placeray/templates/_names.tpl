{{/* Names, labels and checks that all objects share. */}}

{{- define "placeray.labels" -}}
app.kubernetes.io/name: placeray
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels of a pod: dict "root" $ "component" index|finetune|serve "role" head|worker|submitter */}}
{{- define "placeray.podLabels" -}}
app.kubernetes.io/name: placeray
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
placeray/role: {{ .role }}
{{- end }}

{{- define "placeray.required" -}}
{{- $_ := required "set image: an image built by deploy/image/build.sh, in a registry of yours" .Values.image -}}
{{- $_ := required "set cloud: gke, eks, karpenter, aks or any" .Values.cloud -}}
{{- $_ := required "set store: s3://bucket/prefix, gs://... or az://..." .Values.store -}}
{{- end }}

{{/* One word of a shell command. values.schema.json refuses single quotes and control characters. */}}
{{- define "placeray.word" -}}
{{ printf "'%s'" . }}
{{- end }}
