{{/* Names and labels. */}}

{{- define "picker.name" -}}
{{ .Release.Name | replace "." "-" }}-epp
{{- end }}

{{- define "picker.selectorLabels" -}}
app.kubernetes.io/name: picker
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "picker.labels" -}}
{{ include "picker.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- define "picker.metadata" -}}
name: {{ include "picker.name" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "picker.labels" . | nindent 2 }}
{{- end }}

{{- define "picker.image" -}}
{{- $image := .Values.router.epp.image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "picker.host" -}}
{{ include "picker.name" . }}.{{ .Release.Namespace }}.svc.{{ .Values.router.clusterDomain }}
{{- end }}
