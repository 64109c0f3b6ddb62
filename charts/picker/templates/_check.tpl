{{/* What the schema cannot see: values that do not go together. */}}
{{- define "picker.check" -}}
{{- $plan := include "picker.plan" . | fromYaml -}}
{{- $epp := .Values.router.epp -}}
{{- $own := .Values.picker -}}
{{- $pool := .Values.router.inferencePool -}}
{{- $provider := .Values.provider.name -}}
{{- $creates := eq (toString $pool.create) "true" -}}
{{- if and $own.endpoints (or $pool.existing $creates .Values.router.modelServers.matchLabels) -}}
  {{- fail "picker.endpoints is instead of pods: leave out router.modelServers.matchLabels, router.inferencePool.existing and router.inferencePool.create" -}}
{{- end -}}
{{- if and $own.endpoints (not $plan.proxy) (ne $provider "none") -}}
  {{- fail "picker.endpoints: a gateway serves pods of an InferencePool, not addresses" -}}
{{- end -}}
{{- if and $pool.existing (or $creates .Values.router.modelServers.matchLabels) -}}
  {{- fail "router.inferencePool.existing is instead of a pool of the release: leave out router.inferencePool.create and router.modelServers.matchLabels" -}}
{{- end -}}
{{- if and (or $plan.create (eq $plan.source "labels")) (not .Values.router.modelServers.matchLabels) -}}
  {{- fail "router.modelServers.matchLabels: say which pods serve the model, with --set router.modelServers.matchLabels.app=NAME" -}}
{{- end -}}
{{- if and (eq $plan.source "labels") (not $plan.proxy) (ne $provider "none") -}}
  {{- fail (printf "router.inferencePool.create: %s finds a picker by its InferencePool only" $provider) -}}
{{- end -}}
{{- range $pool.existing -}}
  {{- if and (gt (len $pool.existing) 1) (not .port) -}}
    {{- fail (printf "router.inferencePool.existing: pool %s needs a port of its own, as there are several" .name) -}}
  {{- end -}}
{{- end -}}
{{- if and .Values.router.inferenceObjectives (not $plan.create) -}}
  {{- fail "router.inferenceObjectives are for the InferencePool of the release, and there is none" -}}
{{- end -}}
{{- if and .Values.httpRoute.create (not $plan.create) -}}
  {{- fail "httpRoute.create: the route leads to the InferencePool of the release, and there is none" -}}
{{- end -}}
{{- if and $plan.proxy (ne $provider "none") -}}
  {{- fail "router.proxy.enabled is instead of a gateway: leave provider.name at none" -}}
{{- end -}}
{{- if and (gt $plan.workers 1.0) (not $plan.proxy) (ne $provider "none") -}}
  {{- fail "picker.workers: a gateway asks one port of the Service; raise router.epp.replicas instead" -}}
{{- end -}}
{{- if and (gt $plan.workers 1.0) $plan.elects -}}
  {{- fail "picker.workers: a follower's workers would serve nobody; set picker.leaderElection=false" -}}
{{- end -}}
{{- if and (eq $plan.tls "off") (has $provider (list "kgateway" "envoy-gateway")) -}}
  {{- fail (printf "picker.tls.mode: %s speaks TLS to a picker, always" $provider) -}}
{{- end -}}
{{- if and (eq $plan.tls "secret") (not $own.tls.secretName) -}}
  {{- fail "picker.tls.secretName: name the Secret with tls.crt and tls.key" -}}
{{- end -}}
{{- if and (eq $plan.tls "cert-manager") (not $own.tls.issuerRef.name) -}}
  {{- fail "picker.tls.issuerRef.name: name the issuer" -}}
{{- end -}}
{{- if and $plan.elects (eq $plan.source "addresses") -}}
  {{- fail "picker.leaderElection: with picker.endpoints the API server is not asked, so there is no Lease" -}}
{{- end -}}
{{- if and $plan.several $own.stateVolume.persistentVolumeClaim -}}
  {{- fail "picker.stateVolume: replicas would write over each other's files on one persistentVolumeClaim" -}}
{{- end -}}
{{- if and $own.handoff.enabled (not $own.handoff.tokenSecret) -}}
  {{- fail "picker.handoff.tokenSecret: name the Secret with the pool's token" -}}
{{- end -}}
{{- if and $own.handoff.enabled (gt (len .Values.router.modelServers.targetPorts) 1) -}}
  {{- fail "picker.handoff.enabled: a proxy stands beside one engine, and router.modelServers.targetPorts has several" -}}
{{- end -}}
{{- if and $epp.pluginsCustomConfig (not (hasKey $plan.files $epp.pluginsConfigFile)) -}}
  {{- fail (printf "router.epp.pluginsConfigFile: %s is not among router.epp.pluginsCustomConfig" $epp.pluginsConfigFile) -}}
{{- end -}}
{{- end }}
