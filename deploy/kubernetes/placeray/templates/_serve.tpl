{{/* How many replicas: dict "name" of a stage, "stage" its min and max. */}}
{{- define "placeray.replicas" -}}
{{- $min := int .stage.min -}}
{{- $max := int .stage.max -}}
{{- if gt $min $max -}}
{{- fail (printf "set serve.%s.max to at least %d, its min" .name $min) -}}
{{- end -}}
{{- if eq $min $max }}
num_replicas: {{ $min }}
{{- else }}
autoscaling_config: {min_replicas: {{ $min }}, max_replicas: {{ $max }}, target_ongoing_requests: 8}
{{- end }}
{{- end }}

{{/* The configuration of Ray Serve, as deploy/serve.yaml explains it. */}}
{{- define "placeray.serveConfig" -}}
{{- $serve := .Values.serve -}}
{{- $settings := merge (dict "store" .Values.store "topology" "split" "log_file" "-") $serve.settings -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
  request_timeout_s: 45
  keep_alive_timeout_s: 30
logging_config:
  log_level: WARNING
  enable_access_log: false
applications:
  - name: placeray
    route_prefix: /
    import_path: serving.app:build
    args: {{- toYaml $settings | nindent 6 }}
    deployments:
      - name: Ingress
        {{- include "placeray.replicas" (dict "name" "ingress" "stage" $serve.ingress) | nindent 8 }}
        ray_actor_options: {num_cpus: {{ $serve.ingress.cpus }}}
      - name: Extractor
        {{- include "placeray.replicas" (dict "name" "extractor" "stage" $serve.extractor) | nindent 8 }}
        ray_actor_options: {num_cpus: {{ $serve.extractor.cpus }}, num_gpus: {{ $serve.extractor.gpus }}}
      {{- range $number := until (int $settings.shards) }}
      - name: Searcher-{{ $number }}
        {{- include "placeray.replicas" (dict "name" "searcher" "stage" $serve.searcher) | nindent 8 }}
        ray_actor_options: {num_cpus: {{ $serve.searcher.cpus }}}
      {{- end }}
      - name: Reranker
        {{- include "placeray.replicas" (dict "name" "reranker" "stage" $serve.reranker) | nindent 8 }}
        ray_actor_options: {num_cpus: {{ $serve.reranker.cpus }}, num_gpus: 0}
{{- end }}
