{{/*
What follows from the values, worked out once, as YAML:
  proxy       whether Envoy stands beside the picker
  source      where the endpoints come from: pools, labels or addresses
  pools       [{name, port}] to serve; `port` is the one on which a gateway asks about it
  create      whether the release has an InferencePool of its own
  elects      whether replicas elect a leader, by holding `lease`
  tls         self-signed, secret, cert-manager or off
  secret      where the certificate is, if anywhere
  workers, grpcPorts, metricsPorts, healthPort
  config      file name and text of the configuration, if there is one
*/}}
{{- define "picker.plan" -}}
{{- $epp := .Values.router.epp -}}
{{- $own := .Values.picker -}}
{{- $pool := .Values.router.inferencePool -}}
{{- $proxy := .Values.router.proxy.enabled -}}
{{- $source := "pools" -}}
{{- $create := false -}}
{{- $pools := list -}}
{{- if $own.endpoints -}}
  {{- $source = "addresses" -}}
{{- else if $pool.existing -}}
  {{- range $pool.existing -}}
    {{- $pools = append $pools (dict "name" .name "port" (.port | default $epp.extProcPort | int)) -}}
  {{- end -}}
{{- else if kindIs "invalid" $pool.create | ternary (not $proxy) $pool.create -}}
  {{- $create = true -}}
  {{- $pools = list (dict "name" .Release.Name "port" (int $epp.extProcPort)) -}}
{{- else -}}
  {{- $source = "labels" -}}
{{- end -}}
{{- $names := list -}}
{{- $last := int $epp.extProcPort -}}
{{- range $pools -}}
  {{- $names = append $names .name -}}
  {{- $last = max $last .port -}}
{{- end -}}
{{- $lease := printf "epp-%s-%s.llm-d.ai" .Release.Namespace (first (append $names (include "picker.name" .))) -}}
{{- $several := gt (int $epp.replicas) 1 -}}
{{- $elects := kindIs "invalid" $own.leaderElection | ternary (and $several (ne $source "addresses")) $own.leaderElection -}}
{{- $tls := $proxy | ternary "off" $own.tls.mode -}}
{{- $secret := "" -}}
{{- if eq $tls "secret" -}}
  {{- $secret = $own.tls.secretName -}}
{{- else if eq $tls "cert-manager" -}}
  {{- $secret = $own.tls.secretName | default (printf "%s-tls" (include "picker.name" .)) -}}
{{- end -}}
{{- $workers := int $own.workers -}}
{{- $grpcPorts := list -}}
{{- $metricsPorts := list -}}
{{- range $worker := until $workers -}}
  {{- $grpcPorts = append $grpcPorts (add $epp.extProcPort $worker) -}}
  {{- $metricsPorts = append $metricsPorts (add $.Values.router.metricsPort $worker) -}}
{{- end -}}
{{- if gt $workers 1 -}}{{/* their collector's, after their admin ports */}}
  {{- $metricsPorts = append $metricsPorts (add $.Values.router.metricsPort (mul 2 $workers)) -}}
{{- end -}}
{{- $healthPort := $epp.grpcHealthPort | default (add $last $workers) -}}
{{- $files := include "picker.configFiles" . | fromYaml -}}
{{- dict "proxy" $proxy "source" $source "pools" $pools "create" $create "elects" $elects "lease" $lease "several" $several
      "tls" $tls "secret" $secret "workers" $workers "grpcPorts" $grpcPorts "metricsPorts" $metricsPorts
      "healthPort" $healthPort "files" $files | toYaml -}}
{{- end }}

{{/*
The configuration, by file name. ORIGINAL_DST, by which the Envoy of the release finds the engines, takes one address:
beside it `destinations` is 1, whatever the rest of the configuration says.
*/}}
{{- define "picker.configFiles" -}}
{{- $epp := .Values.router.epp -}}
{{- $name := $epp.pluginsConfigFile -}}
{{- $files := deepCopy $epp.pluginsCustomConfig -}}
{{- if $epp.pluginsConfig -}}
  {{- $_ := set $files $name (toYaml $epp.pluginsConfig) -}}
{{- end -}}
{{- if .Values.router.proxy.enabled -}}
  {{- $config := dict "apiVersion" "llm-d.ai/v1alpha1" "kind" "EndpointPickerConfig" -}}
  {{- if hasKey $files $name -}}
    {{- $config = get $files $name | fromYaml -}}
    {{- with $config.Error -}}
      {{- fail (printf "router.epp.pluginsCustomConfig: %s is no YAML: %s" $name .) -}}
    {{- end -}}
  {{- end -}}
  {{- $plugins := list -}}
  {{- $settings := dict "type" "picker-settings" -}}
  {{- range $config.plugins -}}
    {{- if eq (toString .type) "picker-settings" -}}
      {{- $settings = . -}}
    {{- else -}}
      {{- $plugins = append $plugins . -}}
    {{- end -}}
  {{- end -}}
  {{- $parameters := $settings.parameters | default dict -}}
  {{- if ne (int ($parameters.destinations | default 1)) 1 -}}
    {{- fail "router.epp: `destinations` of picker-settings must be 1 with router.proxy.enabled: its Envoy takes one address" -}}
  {{- end -}}
  {{- $parameters = merge (dict "destinations" 1 "responsePath" .Values.router.proxy.responsePath) $parameters -}}
  {{- $settings = merge (dict "parameters" $parameters) $settings -}}
  {{- $_ := set $config "plugins" (append $plugins $settings) -}}
  {{- $_ := set $files $name (toYaml $config) -}}
{{- end -}}
{{- toYaml $files -}}
{{- end }}
