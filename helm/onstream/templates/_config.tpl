{{/* onstream.yaml: values.config, and over it what the chart decides. The same for every process. */}}

{{/* Arms that have engines of their own. */}}
{{- define "onstream.arms" -}}
{{- $placement := dig "serving" "rollout" "placement" "split" .Values.config -}}
{{- if .Values.engines.candidate.replicas -}}
stable candidate
{{- else if eq $placement "switchback" -}}
stable
{{- else -}}
{{- fail "engines.candidate.replicas: 0 needs config.serving.rollout.placement: switchback, where arms take turns on stable's engines" -}}
{{- end -}}
{{- end -}}

{{- define "onstream.engineSlots" -}}
{{- $fullname := include "onstream.fullname" . -}}
{{- range $arm := include "onstream.arms" . | splitList " " }}
{{- $pool := index $.Values.engines $arm }}
{{- $scores := or (eq $.Values.engines.scoring "all") (eq $.Values.engines.scoring $arm) }}
{{- range $ordinal := until (int $pool.replicas) }}
- id: {{ $fullname }}-engine-{{ $arm }}-{{ $ordinal }}
  arm: {{ $arm }}
  host: {{ $fullname }}-engine-{{ $arm }}-{{ $ordinal }}.{{ $fullname }}-engine-{{ $arm }}.{{ $.Release.Namespace }}.svc
  port: 8000
  control_port: 8100
  {{- if $scores }}
  scoring_port: 8200
  {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "onstream.logSecurity" -}}
{{- $security := .Values.kafka.security -}}
protocol: {{ $security.protocol }}
{{- if hasPrefix "SASL" $security.protocol }}
mechanism: {{ $security.mechanism }}
username: {{ include "onstream.kafkaUsername" . | quote }}
password_file: /etc/onstream/secrets/kafka/password
{{- end }}
{{- if hasSuffix "SSL" $security.protocol }}
check_hostname: {{ $security.checkHostname }}
{{- if $security.caSecret }}
ca_file: /etc/onstream/secrets/kafka/ca.pem
{{- end }}
{{- if $security.certificateKey }}
cert_file: /etc/onstream/secrets/kafka/certificate.pem
key_file: /etc/onstream/secrets/kafka/key.pem
{{- end }}
{{- end }}
{{- end -}}

{{/* A file system takes some of its volume for itself. */}}
{{- define "onstream.spoolFits" -}}
{{- $most := dig "serving" "capture" "max_spool_bytes" 1073741824 .Values.config -}}
{{- $unit := regexFind "[A-Za-z]*$" .Values.spool.size -}}
{{- $factor := get (dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776) $unit -}}
{{- if gt (float64 $most) (mulf 0.9 $factor (trimSuffix $unit .Values.spool.size | float64)) -}}
{{- fail (printf "spool.size: nine tenths of it must hold config.serving.capture.max_spool_bytes, %.0f, got %s" (float64 $most) .Values.spool.size) -}}
{{- end -}}
{{- end -}}

{{- define "onstream.owned" -}}
{{- include "onstream.spoolFits" . -}}
{{- $fullname := include "onstream.fullname" . -}}
{{- $store := required "store.uri: name the object store, for example s3://bucket/onstream" .Values.store.uri | trimSuffix "/" -}}
run_dir: /var/lib/onstream
model:
  name: {{ .Values.model.name | quote }}
  path: {{ .Values.model.path | quote }}
log:
  brokers: {{ required "kafka.brokers: name the brokers, host:port" .Values.kafka.brokers | quote }}
  local: false
  security:
    {{- include "onstream.logSecurity" . | nindent 4 }}
store:
  url: {{ $store }}/store
  {{- with .Values.signing }}
  {{- if .secret }}
  signing:
    {{- if .privateKey }}
    key_file: /etc/onstream/secrets/signing/private.pem
    {{- end }}
    public_key_files:
      {{- range $number, $_ := .publicKeys }}
      - /etc/onstream/secrets/signing/public-{{ $number }}.pem
      {{- else }}
      []
      {{- end }}
    required: {{ .required }}
  {{- else if .required }}
  {{- fail "signing.required: name the Secret with the keys in signing.secret" }}
  {{- end }}
  {{- end }}
serving:
  engine:
    listen: 0.0.0.0
  engines:
    {{- include "onstream.engineSlots" . | nindent 4 }}
  router:
    host: {{ $fullname }}-router.{{ .Release.Namespace }}.svc
    listen: 0.0.0.0
    port: 8000
  rollout:
    host: {{ $fullname }}-rollout.{{ .Release.Namespace }}.svc
    listen: 0.0.0.0
    port: 8100
ingest:
  lake:
    enabled: {{ .Values.lake.enabled }}
    {{- if not (dig "ingest" "lake" "url" "" .Values.config) }}
    url: {{ $store }}/lake
    {{- end }}
privacy:
  {{- if not (dig "privacy" "keys_url" "" .Values.config) }}
  keys_url: {{ $store }}/keys
  {{- end }}
  secret_file: /etc/onstream/secrets/privacy/secret
trainer:
  host: {{ $fullname }}-trainer.{{ .Release.Namespace }}.svc
  listen: 0.0.0.0
  port: 8200
  ray_address: {{ include "onstream.rayAddress" . }}
  {{- if ne (include "onstream.rayAddress" .) "local" }}
  # its workers have none of the driver's disk
  checkpoint_dir: {{ $store }}/trainer
  {{- end }}
  {{- if and .Values.trainer.ray.create (not (dig "trainer" "workers" 0 .Values.config)) }}
  {{- $ray := .Values.trainer.ray.workers }}
  workers: {{ mul $ray.replicas (max 1 $ray.gpus) }}
  {{- end }}
{{- end -}}

{{- define "onstream.config" -}}
{{- mergeOverwrite (deepCopy .Values.config) (include "onstream.owned" . | fromYaml) | toYaml -}}
{{- end -}}

{{/* Of all that a process reads at its start: a change replaces its pods. */}}
{{- define "onstream.checksum" -}}
{{- list (include "onstream.config" . | fromYaml) .Values.files | toJson | sha256sum -}}
{{- end -}}

{{/* Engines know neither the other engines nor the gate: adding an engine restarts none. */}}
{{- define "onstream.engineChecksum" -}}
{{- $config := include "onstream.config" . | fromYaml -}}
{{- list $config.model $config.log $config.store $config.privacy $config.health $config.serving.engine $config.serving.capture $config.ingest.inactivity_s | toJson | sha256sum -}}
{{- end -}}
