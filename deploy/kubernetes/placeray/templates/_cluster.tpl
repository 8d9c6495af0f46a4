{{/* The specification of a Ray cluster: dict "root" $ "component" index|finetune|serve */}}
{{- define "placeray.cluster" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
rayVersion: {{ $values.rayVersion | quote }}
authOptions:
  mode: token
  secretName: {{ $values.secrets.ray }}
enableInTreeAutoscaling: true
autoscalerOptions:
  version: v2
  upscalingMode: Default
  idleTimeoutSeconds: 120
  imagePullPolicy: {{ $values.imagePullPolicy }}
  securityContext: {{- include "placeray.containerSecurity" . | nindent 4 }}
  resources:
    requests: {cpu: 500m, memory: 512Mi}
    limits: {cpu: "1", memory: 1Gi}
  volumeMounts:
    - {name: scratch, mountPath: /tmp}
{{- with $values.serve.redis }}
{{- if and .address (eq $.component "serve") }}
gcsFaultToleranceOptions:
  redisAddress: {{ .address | quote }}
{{- if .secret }}
  redisPassword:
    valueFrom:
      secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- end }}
headGroupSpec:
  rayStartParams:
    num-cpus: "0"
    dashboard-host: 0.0.0.0
  template: {{- include "placeray.head" . | nindent 4 }}
workerGroupSpecs:
{{- range $name, $group := $values.workers }}
{{- $service := and (eq $.component "serve") (eq $name "cpu") }}
{{- $min := $service | ternary (max (int $group.min) (int $values.serve.minWorkers)) (int $group.min) }}
{{- if gt $min (int $group.max) }}
{{- fail (printf "set workers.%s.max to at least %d: so many workers are always there (workers.%s.min%s)" $name $min $name ($service | ternary ", serve.minWorkers" "")) }}
{{- end }}
{{- if gt (int $group.max) 0 }}
  - groupName: {{ $name }}
    replicas: {{ $min }}
    minReplicas: {{ $min }}
    maxReplicas: {{ $group.max }}
    idleTimeoutSeconds: {{ $group.idleSeconds }}
    rayStartParams: {}
    template: {{- include "placeray.worker" (dict "root" $root "component" $.component "name" $name "group" $group) | nindent 6 }}
{{- end }}
{{- end }}
{{- end }}

{{- define "placeray.head" -}}
{{- $values := .root.Values -}}
{{- $pod := dict "root" .root "component" .component "role" "head" -}}
metadata:
  labels: {{- include "placeray.podLabels" $pod | nindent 4 }}
    {{- include "placeray.identityLabels" .root | nindent 4 }}
spec:
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  securityContext: {{- include "placeray.podSecurity" . | nindent 4 }}
  {{- include "placeray.placement" (dict "root" .root "spot" false "gpu" false "selector" dict) | nindent 2 }}
  containers:
    - name: ray-head
      image: {{ $values.image | quote }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      securityContext: {{- include "placeray.containerSecurity" . | nindent 8 }}
      ports:
        - {name: gcs, containerPort: 6379}
        - {name: dashboard, containerPort: 8265}
        - {name: ray-metrics, containerPort: 8080}
      {{- include "placeray.environment" $pod | nindent 6 }}
      resources:
        requests: {cpu: {{ $values.head.cpu | quote }}, memory: {{ $values.head.memory }}}
        limits: {cpu: {{ $values.head.cpu | quote }}, memory: {{ $values.head.memory }}}
      {{- include "placeray.mounts" .root | nindent 6 }}
      {{- include "placeray.probes" $pod | nindent 6 }}
  {{- include "placeray.volumes" (dict "root" .root "scratch" $values.head.scratch) | nindent 2 }}
{{- end }}

{{- define "placeray.amount" -}}
cpu: {{ .cpu | quote }}
memory: {{ .memory }}
{{- if hasKey . "gpus" }}
nvidia.com/gpu: {{ .gpus | quote }}
{{- end }}
{{- end }}

{{- define "placeray.worker" -}}
{{- $values := .root.Values -}}
{{- $group := .group -}}
{{- $pod := dict "root" .root "component" .component "role" "worker" -}}
metadata:
  labels: {{- include "placeray.podLabels" $pod | nindent 4 }}
    {{- include "placeray.identityLabels" .root | nindent 4 }}
spec:
  {{- with $values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  automountServiceAccountToken: false
  {{- with $values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: 60
  securityContext: {{- include "placeray.podSecurity" . | nindent 4 }}
  {{- include "placeray.placement" (dict "root" .root "spot" true "gpu" (hasKey $group "gpus") "selector" $group.nodeSelector) | nindent 2 }}
  containers:
    - name: ray-worker
      image: {{ $values.image | quote }}
      imagePullPolicy: {{ $values.imagePullPolicy }}
      securityContext: {{- include "placeray.containerSecurity" . | nindent 8 }}
      ports:
        - {name: ray-metrics, containerPort: 8080}
        {{- if eq .component "serve" }}
        - {name: serve, containerPort: 8000}
        {{- end }}
      {{- include "placeray.environment" $pod | nindent 6 }}
      {{- if eq .component "serve" }}
      lifecycle:
        preStop:
          exec: {command: [sleep, "15"]}
      {{- end }}
      resources:
        requests: {{- include "placeray.amount" $group | nindent 10 }}
        limits: {{- include "placeray.amount" $group | nindent 10 }}
      {{- include "placeray.mounts" .root | nindent 6 }}
      {{- include "placeray.probes" $pod | nindent 6 }}
  {{- include "placeray.volumes" (dict "root" .root "scratch" $group.scratch) | nindent 2 }}
{{- end }}
