{{/* The containers of the pod. Each takes (dict "root" $ "plan" $plan). */}}

{{- define "picker.arguments" -}}
{{- $values := .root.Values -}}
{{- $plan := .plan -}}
{{- if eq $plan.source "addresses" }}
- --endpoints={{ join "," $values.picker.endpoints }}
- --pool-name={{ .root.Release.Name }}
{{- else if eq $plan.source "labels" }}
{{- $labels := list }}
{{- range $key, $value := $values.router.modelServers.matchLabels }}
{{- $labels = append $labels (printf "%s=%s" $key $value) }}
{{- end }}
{{- $ports := list }}
{{- range $values.router.modelServers.targetPorts }}
{{- $ports = append $ports (int .number) }}
{{- end }}
- --pool-namespace={{ .root.Release.Namespace }}
- --endpoint-selector={{ join "," $labels }}
- --endpoint-target-ports={{ join "," $ports }}
{{- else }}
{{- $pools := list }}
{{- range $plan.pools }}
{{- $pools = append $pools (eq (len $plan.pools) 1 | ternary .name (printf "%s:%d" .name (int .port))) }}
{{- end }}
- --pool-name={{ join "," $pools }}
- --pool-namespace={{ .root.Release.Namespace }}
{{- end }}
- --grpc-port={{ $values.router.epp.extProcPort }}
- --grpc-health-port={{ $plan.healthPort }}
- --metrics-port={{ $values.router.metricsPort }}
{{- if gt $plan.workers 1.0 }}
- --workers={{ $plan.workers }}
{{- end }}
{{- if eq $plan.tls "off" }}
- --secure-serving=false
{{- else if $plan.secret }}
- --cert-path=/etc/picker/tls
- --enable-cert-reload=true
{{- end }}
{{- if hasKey $plan.files $values.router.epp.pluginsConfigFile }}
- --config-file=/etc/picker/config/{{ $values.router.epp.pluginsConfigFile }}
{{- end }}
{{- with $values.picker.policy }}
- --policy={{ . }}
{{- end }}
{{- with $values.picker.transport }}
- --transport={{ . }}
{{- end }}
{{- if $plan.elects }}
- --ha-enable-leader-election=true
{{- end }}
{{- with $values.picker.kvEvents.port }}
- --kv-events-port={{ . }}
{{- end }}
{{- with $values.picker.kvEvents.replayPort }}
- --kv-replay-port={{ . }}
{{- end }}
{{- if $values.picker.handoff.enabled }}
- --handoff-port={{ $values.picker.handoff.port }}
- --handoff-token-file=/etc/picker/handoff/token
{{- if $values.picker.handoff.certSecret }}
- --handoff-cert-dir=/etc/picker/handoff-tls
- --handoff-client-ca-file=/etc/picker/handoff-tls/ca.crt
- --handoff-peer-port={{ $values.picker.handoff.peerPort }}
{{- end }}
{{- end }}
- --drain-timeout={{ $values.picker.drain.timeoutSeconds }}s
- --drain-pause={{ $plan.proxy | ternary 0 $values.picker.drain.pauseSeconds }}s
- --state-dir=/var/lib/picker
{{- range $name, $value := $values.router.epp.flags }}
- {{ printf "--%s=%v" $name $value | quote }}
{{- end }}
{{- end }}

{{/* Machine code that the image holds, where it may be added to: numba does not read a cache that it cannot write. */}}
{{- define "picker.kernels" -}}
- name: kernels
  image: {{ include "picker.image" .root }}
  imagePullPolicy: {{ .root.Values.router.epp.image.pullPolicy }}
  command: [cp, -R, /var/cache/picker/., /tmp/kernels]  # of the pod: its root is read-only
  securityContext:
    {{- toYaml .root.Values.router.epp.securityContext | nindent 4 }}
  resources:
    {{- toYaml .root.Values.router.epp.resources | nindent 4 }}
  volumeMounts:
  - name: scratch
    mountPath: /tmp
{{- end }}

{{/* Envoy's configuration comes from the image that it stands beside, so the two cannot disagree. */}}
{{- define "picker.envoyConfig" -}}
{{- $values := .root.Values -}}
- name: envoy-config
  image: {{ include "picker.image" .root }}
  imagePullPolicy: {{ $values.router.epp.image.pullPolicy }}
  command: [picker, envoy-config]
  args:
  - --listener-port={{ $values.router.proxy.port }}
  - --grpc-port={{ $values.router.epp.extProcPort }}
  - --workers={{ .plan.workers }}
  - --response-path={{ $values.router.proxy.responsePath }}
  - --output=/etc/envoy/envoy.yaml
  env:
  - name: NUMBA_CACHE_DIR
    value: /tmp/kernels  # of the pod: its root is read-only
  securityContext:
    {{- toYaml $values.router.epp.securityContext | nindent 4 }}
  resources:
    {{- toYaml $values.router.epp.resources | nindent 4 }}
  volumeMounts:
  - name: scratch
    mountPath: /tmp
  - name: envoy-config
    mountPath: /etc/envoy
{{- end }}

{{- define "picker.envoy" -}}
{{- $proxy := .root.Values.router.proxy -}}
- name: envoy
  image: {{ $proxy.image }}
  imagePullPolicy: {{ $proxy.imagePullPolicy }}
  command: [envoy]
  args:
  - --config-path
  - /etc/envoy/envoy.yaml
  - --concurrency
  - {{ $proxy.concurrency | quote }}
  - --disable-hot-restart
  - --log-level
  - warn
  ports:
  - name: http
    containerPort: {{ $proxy.port }}
  startupProbe:
    tcpSocket:
      port: http
    periodSeconds: 1
    failureThreshold: 60
  readinessProbe:
    tcpSocket:
      port: http
    periodSeconds: 5
  livenessProbe:
    tcpSocket:
      port: http
    periodSeconds: 10
  lifecycle:
    preStop:
      sleep:
        seconds: {{ $proxy.drainSeconds }}
  securityContext:
    {{- toYaml .root.Values.router.epp.securityContext | nindent 4 }}
  resources:
    {{- toYaml $proxy.resources | nindent 4 }}
  volumeMounts:
  - name: envoy-config
    mountPath: /etc/envoy
    readOnly: true
{{- end }}

{{- define "picker.picker" -}}
{{- $values := .root.Values -}}
{{- $plan := .plan -}}
{{- $epp := $values.router.epp -}}
- name: epp
  image: {{ include "picker.image" .root }}
  imagePullPolicy: {{ $epp.image.pullPolicy }}
  args:
  {{- include "picker.arguments" . | trim | nindent 2 }}
  env:
  - name: NAMESPACE
    valueFrom:
      fieldRef:
        fieldPath: metadata.namespace
  - name: POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: NUMBA_CACHE_DIR
    value: /tmp/kernels  # of the pod: its root is read-only
  {{- with $epp.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  ports:
  {{- include "picker.grpcPorts" . | trim | nindent 2 }}
  - name: grpc-health
    containerPort: {{ $plan.healthPort }}
  {{- range $worker, $port := $plan.metricsPorts }}
  - name: metrics{{ with $worker }}-{{ . }}{{ end }}
    containerPort: {{ $port }}
  {{- end }}
  {{- if $values.picker.handoff.enabled }}
  - name: handoff
    containerPort: {{ $values.picker.handoff.port }}
  {{- end }}
  {{- with $epp.extraContainerPorts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  # Where the image was built for another processor, kernels are compiled at start.
  startupProbe:
    grpc:
      port: {{ $plan.healthPort }}
      service: liveness
    periodSeconds: 1
    failureThreshold: 180
  livenessProbe:
    grpc:
      port: {{ $plan.healthPort }}
      service: liveness
    periodSeconds: 10
    timeoutSeconds: 5
  readinessProbe:
    grpc:
      port: {{ $plan.healthPort }}
      service: readiness
    periodSeconds: 2
    timeoutSeconds: 2
  {{- if $plan.proxy }}
  # Envoy beside it asks until its own pause is over.
  lifecycle:
    preStop:
      sleep:
        seconds: {{ add $values.router.proxy.drainSeconds 1 }}
  {{- end }}
  securityContext:
    {{- toYaml $epp.securityContext | nindent 4 }}
  resources:
    {{- toYaml $epp.resources | nindent 4 }}
  volumeMounts:
  - name: scratch
    mountPath: /tmp
  - name: state
    mountPath: /var/lib/picker
  {{- if $plan.files }}
  - name: config
    mountPath: /etc/picker/config
    readOnly: true
  {{- end }}
  {{- if $plan.secret }}
  - name: tls
    mountPath: /etc/picker/tls
    readOnly: true
  {{- end }}
  {{- if $values.picker.handoff.enabled }}
  - name: handoff-token
    mountPath: /etc/picker/handoff
    readOnly: true
  {{- if $values.picker.handoff.certSecret }}
  - name: handoff-tls
    mountPath: /etc/picker/handoff-tls
    readOnly: true
  {{- end }}
  {{- end }}
  {{- if ne $plan.source "addresses" }}
  - name: api-access
    mountPath: /var/run/secrets/kubernetes.io/serviceaccount
    readOnly: true
  {{- end }}
  {{- with $epp.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* One port for each worker; where there are several pools, one for each pool of each worker. */}}
{{- define "picker.grpcPorts" -}}
{{- $plan := .plan -}}
{{- range $worker, $port := $plan.grpcPorts }}
- name: grpc{{ with $worker }}-{{ . }}{{ end }}
  containerPort: {{ $port }}
{{- end }}
{{- if gt (len $plan.pools) 1 }}
{{- range $index, $pool := $plan.pools }}
{{- range $worker := until (int $plan.workers) }}
- name: pool-{{ $index }}{{ with $worker }}-{{ . }}{{ end }}
  containerPort: {{ add $pool.port $worker }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
