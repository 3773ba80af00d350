{{/* Rules of NetworkPolicies. docs/deploy.md draws them all, and a test compares. */}}

{{- define "onstream.peer" -}}
podSelector:
  matchLabels:
    {{- include "onstream.selectorLabels" . | nindent 4 }}
{{- end -}}

{{/* The head of a component's policy. */}}
{{- define "onstream.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "onstream.fullname" .root }}-{{ .component }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "onstream.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "onstream.selectorLabels" . | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}

{{/* From a component of ours to some ports: (dict "root" $ "component" "router" "ports" (list 8000)). */}}
{{- define "onstream.from" -}}
- from:
    - {{- include "onstream.peer" . | nindent 6 }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{- define "onstream.to" -}}
- to:
    - {{- include "onstream.peer" . | nindent 6 }}
  ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- end -}}

{{/* To somebody outside: an `Outside` of the values. Nothing where it has no ports. */}}
{{- define "onstream.toOutside" -}}
{{- if .ports }}
- ports:
    {{- range .ports }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  {{- with .to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "onstream.toDns" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
{{- end -}}

{{- define "onstream.toTelemetry" -}}
{{- if .Values.telemetry.collector.enabled }}
{{ include "onstream.to" (dict "root" . "component" "collector" "ports" (list 4318)) }}
{{- else if .Values.telemetry.endpoint }}
{{ include "onstream.toOutside" .Values.networkPolicy.telemetry }}
{{- end }}
{{- end -}}

{{/* What every process of ours needs: names, the log, the store. */}}
{{- define "onstream.toLogAndStore" -}}
{{ include "onstream.toDns" . }}
{{ include "onstream.toOutside" .Values.networkPolicy.kafka }}
{{ include "onstream.toOutside" .Values.networkPolicy.store }}
{{- include "onstream.toOutside" .Values.networkPolicy.identity }}
{{- end -}}

{{/* And what those that run on need: telemetry. */}}
{{- define "onstream.toCommon" -}}
{{ include "onstream.toLogAndStore" . }}
{{- include "onstream.toTelemetry" . }}
{{- end -}}

{{/* Prometheus, where it scrapes. */}}
{{- define "onstream.fromPrometheus" -}}
{{- if eq .root.Values.telemetry.metrics "prometheus" }}
- from:
    {{- toYaml .root.Values.networkPolicy.prometheus | nindent 4 }}
  ports:
    - {port: {{ .port }}, protocol: TCP}
{{- end }}
{{- end -}}
