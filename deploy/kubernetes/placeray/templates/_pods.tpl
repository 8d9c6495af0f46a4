{{/* Parts of every pod. */}}

{{- define "placeray.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "placeray.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The label by which AKS gives a pod the token of its service account; other clouds need none. */}}
{{- define "placeray.identityLabels" -}}
{{- if and .Values.serviceAccountName (eq .Values.cloud "aks") }}
azure.workload.identity/use: "true"
{{- end }}
{{- end }}

{{/* Where a pod reads the credentials of its identity: addresses and ports, as networkPolicy.identity says. */}}
{{- define "placeray.identityServers" -}}
{{- $identity := .Values.networkPolicy.identity -}}
{{- $cloud := .Values.cloud -}}
{{- $servers := list -}}
{{- if eq $identity "node" -}}
{{- $servers = list (dict "address" "169.254.169.254" "port" 80) -}}
{{- else if and (eq $identity "workload") (eq $cloud "gke") -}}
{{- /* GKE's metadata server, which nodes without Dataplane V2 reach at the second address. */ -}}
{{- $servers = list (dict "address" "169.254.169.254" "port" 80) (dict "address" "169.254.169.252" "port" 988) -}}
{{- else if and (eq $identity "workload") (has $cloud (list "eks" "karpenter")) -}}
{{- /* The agent of EKS Pod Identity. Roles of service accounts (IRSA) are asked for by HTTPS. */ -}}
{{- $servers = list (dict "address" "169.254.170.23" "port" 80) -}}
{{- else if and (eq $identity "workload") (eq $cloud "any") -}}
{{- fail "networkPolicy.identity workload depends on the cloud: set cloud to gke, eks, karpenter or aks" -}}
{{- end -}}
{{- range $servers }}
- to:
    - ipBlock: {cidr: {{ .address }}/32}
  ports:
    - {protocol: TCP, port: {{ .port }}}
{{- end }}
{{- end }}

{{/* Where a pod may run: dict "root" $ "spot" true|false "gpu" true|false "selector" {} */}}
{{- define "placeray.placement" -}}
{{- $keys := dict "gke" "cloud.google.com/gke-spot" "eks" "eks.amazonaws.com/capacityType" "karpenter" "karpenter.sh/capacity-type" "aks" "kubernetes.azure.com/scalesetpriority" -}}
{{- $words := dict "gke" "true" "eks" "SPOT" "karpenter" "spot" "aks" "spot" -}}
{{- $cloud := .root.Values.cloud -}}
{{- $differs := ne $cloud "any" -}}
{{- if $differs }}
affinity:
  nodeAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      nodeSelectorTerms:
        - matchExpressions:
            - key: {{ get $keys $cloud }}
              operator: {{ .spot | ternary "In" "NotIn" }}
              values: [{{ get $words $cloud | quote }}]
{{- end }}
{{- if or (and .spot $differs) .gpu }}
tolerations:
{{- if and .spot $differs }}
  - {key: {{ get $keys $cloud }}, operator: Exists, effect: NoSchedule}
{{- end }}
{{- if .gpu }}
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
{{- end }}
{{- end }}
{{- with .selector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Environment of every Ray container: dict "root" $ "component" ... */}}
{{- define "placeray.environment" -}}
{{- $root := .root -}}
env:
  - name: RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH
    value: serving.http.front:middlewares
  - name: RAY_JOB_STOP_WAIT_TIME_S
    value: "30"
{{- if eq .component "serve" }}
  - name: PLACERAY_TOKENS
    valueFrom:
      secretKeyRef: {name: {{ $root.Values.secrets.tokens }}, key: tokens}
{{- end }}
{{- with $root.Values.secrets.bucket }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end }}

{{/* Volumes of a pod and their mounts: scratch space, and what the values add. */}}
{{- define "placeray.mounts" -}}
volumeMounts:
  - {name: scratch, mountPath: /tmp}
{{- with .Values.volumeMounts }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}

{{- define "placeray.volumes" -}}
volumes:
  - name: scratch
    emptyDir: {sizeLimit: {{ .scratch }}}
{{- with .root.Values.volumes }}
{{ toYaml . | indent 2 }}
{{- end }}
{{- end }}

{{/* Whether Ray's process on the node answers, and on a worker of the service its HTTP proxy too. */}}
{{- define "placeray.probes" -}}
{{- $health := eq .role "head" | ternary "{path: /api/gcs_healthz, port: 8265}" "{path: /api/local_raylet_healthz, port: 52365}" -}}
startupProbe:
  httpGet: {{ $health }}
  periodSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {{ $health }}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 12
readinessProbe:
{{- if and (eq .component "serve") (eq .role "worker") }}
  httpGet: {path: /-/healthz, port: 8000}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- else }}
  httpGet: {{ $health }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 10
{{- end }}
{{- end }}
