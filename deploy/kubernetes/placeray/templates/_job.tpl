{{/* A RayJob: dict "root" $ "component" index|finetune "job" values "words" the words of the command */}}
{{- define "placeray.job" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $job := .job -}}
apiVersion: ray.io/v1
kind: RayJob
metadata:
  name: {{ printf "%s-%s-%v" $root.Release.Name .component $job.run }}
  labels: {{- include "placeray.labels" $root | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
spec:
  submissionMode: K8sJobMode
  entrypoint: {{ .words | join " " | quote }}
  # Each retry is a new cluster; the same command continues after the last commit.
  backoffLimit: {{ $job.retries }}
  {{- if gt (int $job.deadlineSeconds) 0 }}
  activeDeadlineSeconds: {{ $job.deadlineSeconds }}
  {{- end }}
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: {{ $job.keepSeconds }}
  rayClusterSpec: {{- include "placeray.cluster" . | nindent 4 }}
  submitterPodTemplate:
    metadata:
      labels: {{- include "placeray.podLabels" (dict "root" $root "component" .component "role" "submitter") | nindent 8 }}
    spec:
      {{- with $values.imagePullSecrets }}
      imagePullSecrets: {{- toYaml . | nindent 8 }}
      {{- end }}
      automountServiceAccountToken: false
      restartPolicy: Never
      securityContext: {{- include "placeray.podSecurity" . | nindent 8 }}
      {{- include "placeray.placement" (dict "root" $root "spot" false "gpu" false "selector" dict) | nindent 6 }}
      containers:
        - name: ray-job-submitter
          image: {{ $values.image | quote }}
          imagePullPolicy: {{ $values.imagePullPolicy }}
          securityContext: {{- include "placeray.containerSecurity" . | nindent 12 }}
          resources:
            requests: {cpu: 200m, memory: 512Mi}
            limits: {cpu: "1", memory: 1Gi}
          volumeMounts:
            - {name: scratch, mountPath: /tmp}
      volumes:
        - name: scratch
          emptyDir: {sizeLimit: 1Gi}
{{- end }}
