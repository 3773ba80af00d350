{{/* How KEDA asks the brokers for a group's lag. */}}

{{- define "onstream.kedaTrigger" -}}
{{- $security := .root.Values.kafka.security -}}
- type: kafka
  metadata:
    bootstrapServers: {{ .root.Values.kafka.brokers | quote }}
    consumerGroup: {{ .group }}
    topic: {{ .topic }}
    lagThreshold: {{ .keda.lagThreshold | quote }}
    # a group's first look begins at the oldest message, as its stage does
    offsetResetPolicy: earliest
    {{- if hasPrefix "SASL" $security.protocol }}
    sasl: {{ get (dict "PLAIN" "plaintext" "SCRAM-SHA-256" "scram_sha256" "SCRAM-SHA-512" "scram_sha512") $security.mechanism }}
    {{- end }}
    tls: {{ hasSuffix "SSL" $security.protocol | ternary "enable" "disable" }}
  {{- if include "onstream.kedaAuthenticates" .root }}
  authenticationRef:
    name: {{ include "onstream.fullname" .root }}-kafka
  {{- end }}
{{- end -}}

{{- define "onstream.usesKeda" -}}
{{- if or .Values.ingest.keda.enabled .Values.rewards.keda.enabled (and .Values.lake.enabled .Values.lake.keda.enabled) }}yes{{ end -}}
{{- end -}}

{{/* Whether KEDA needs anything of a Secret to ask the brokers: TLS by itself does not. */}}
{{- define "onstream.kedaAuthenticates" -}}
{{- $security := .Values.kafka.security -}}
{{- if or (hasPrefix "SASL" $security.protocol) (and (eq $security.protocol "SSL") (or $security.certificateKey $security.caSecret)) }}yes{{ end -}}
{{- end -}}

{{/* KEDA takes the user's name from the container that it scales; passwords and keys it takes from Secrets. */}}
{{- define "onstream.kedaUsername" -}}
{{- if and .keda.enabled (hasPrefix "SASL" .root.Values.kafka.security.protocol) }}
- {name: KAFKA_USERNAME, value: {{ include "onstream.kafkaUsername" .root | quote }}}
{{- end }}
{{- end -}}
