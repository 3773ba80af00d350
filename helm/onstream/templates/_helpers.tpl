{{/* Names, labels and the parts that all pods share. Those that need to know a component take
     (dict "root" $ "component" "router"). */}}

{{- define "onstream.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains "onstream" .Release.Name -}}
{{- .Release.Name | trunc 35 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-onstream" .Release.Name | trunc 35 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "onstream.instanceLabels" -}}
app.kubernetes.io/name: {{ .Values.nameOverride | default .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "onstream.selectorLabels" -}}
{{ include "onstream.instanceLabels" .root }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "onstream.labels" -}}
{{ include "onstream.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: onstream
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{- define "onstream.podLabels" -}}
{{ include "onstream.labels" . }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* "engine" is one image, "lake" and "bootstrap" are others' commands: (dict "root" $ "image" "ingest"). */}}
{{- define "onstream.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $registry := required "images.registry: name the registry that you pushed the images to" .root.Values.images.registry -}}
{{- if $image.digest -}}
{{- printf "%s/%s@%s" $registry $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s/%s:%s" $registry $image.repository ($image.tag | default .root.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}

{{- define "onstream.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What `restricted` pod security asks, and more. */}}
{{- define "onstream.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "onstream.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The cluster's, so with the namespace, behind a dot, which no namespace has in it. */}}
{{- define "onstream.priorityClass" -}}
{{ include "onstream.fullname" .root }}-{{ .priority }}.{{ .root.Release.Namespace }}
{{- end -}}

{{/* Where a pod may run: (dict "root" $ "component" "router" "values" .Values.router "priority" "serving"). */}}
{{- define "onstream.scheduling" -}}
{{- $named := index .root.Values.priorityClasses .priority -}}
{{- if .root.Values.priorityClasses.create }}
priorityClassName: {{ include "onstream.priorityClass" . }}
{{- else if $named }}
priorityClassName: {{ $named }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "onstream.selectorLabels" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* Probes of the health port. An engine is ready when it serves the version that the log gave it. */}}
{{- define "onstream.probes" -}}
startupProbe:
  httpGet: {path: /started, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: {{ div (add .startupSeconds 9) 10 }}
livenessProbe:
  httpGet: {path: /live, port: health}
  periodSeconds: 20
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /ready, port: health}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 2
{{- end -}}

{{/* How long a stage may take to end: a poll in progress, a flush, 5 s to leave its group, and some
     more. docs/processes.md has the ends of all processes. */}}
{{- define "onstream.stageEndSeconds" -}}
{{- $timeout := dig "log" "timeout_s" 30 .Values.config | ceil | int -}}
{{- add $timeout $timeout 5 10 -}}
{{- end -}}

{{/* Resources with GPUs: (dict "root" $ "values" .Values.engines.stable). */}}
{{- define "onstream.gpuResources" -}}
{{- $resources := deepCopy .values.resources -}}
{{- if .values.gpus -}}
{{- $gpus := dict .root.Values.gpuResource .values.gpus -}}
{{- $resources = mergeOverwrite $resources (dict "requests" $gpus "limits" (deepCopy $gpus)) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end -}}

{{- define "onstream.ports" -}}
- {name: health, containerPort: 8300}
{{- if eq .Values.telemetry.metrics "prometheus" }}
- {name: metrics, containerPort: 9464}
{{- end }}
{{- end -}}

{{/* The environment of every process of ours. */}}
{{- define "onstream.env" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- {name: HOME, value: /tmp}
- {name: XDG_CACHE_HOME, value: /tmp/cache}
- {name: ONSTREAM__HEALTH__PORT, value: "8300"}
- {name: ONSTREAM__HEALTH__LISTEN, value: 0.0.0.0}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: k8s.namespace.name=$(POD_NAMESPACE),k8s.pod.name=$(POD_NAME),service.instance.id=$(POD_NAME),service.version={{ .root.Chart.AppVersion }}
{{- if not (has .component (list "engine" "trainer")) }}
# one thread: a pod sees all cores of its node, and may use a few
- {name: OMP_NUM_THREADS, value: "1"}
- {name: POLARS_MAX_THREADS, value: "1"}
{{- end }}
{{- if not (has .component (list "bootstrap" "test")) }}
{{- include "onstream.telemetryEnv" .root }}
{{- end }}
{{- range $name, $value := .root.Values.store.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- range $name, $value := .values.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "onstream.telemetryEnv" -}}
{{- $telemetry := .Values.telemetry -}}
{{- $endpoint := $telemetry.endpoint -}}
{{- if $telemetry.collector.enabled -}}
{{- $endpoint = printf "http://%s-collector.%s.svc:4318" (include "onstream.fullname" .) .Release.Namespace -}}
{{- end -}}
{{- if and (eq $telemetry.metrics "otlp") (not $endpoint) -}}
{{- fail "telemetry.metrics: otlp needs telemetry.endpoint or telemetry.collector, or metrics go nowhere" -}}
{{- end -}}
{{- if $endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $endpoint | quote }}}
{{- end }}
- {name: OTEL_METRICS_EXPORTER, value: {{ $telemetry.metrics }}}
{{- if eq $telemetry.metrics "prometheus" }}
- {name: OTEL_EXPORTER_PROMETHEUS_HOST, value: 0.0.0.0}
- {name: OTEL_EXPORTER_PROMETHEUS_PORT, value: "9464"}
{{- end }}
{{- end -}}

{{- define "onstream.envFrom" -}}
{{- with .Values.store.secret }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{/* A credential of ours as a variable: (dict "root" $ "name" "ONSTREAM_CONTROL_TOKEN" "key" "controlKey"). */}}
{{- define "onstream.credential" -}}
- name: {{ .name }}
  valueFrom:
    secretKeyRef:
      name: {{ .root.Values.credentials.secret }}
      key: {{ index .root.Values.credentials .key }}
{{- end -}}

{{- define "onstream.mounts" -}}
- {name: onstream, mountPath: /etc/onstream, readOnly: true}
- {name: state, mountPath: /var/lib/onstream}
- {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* /etc/onstream is one projected volume: the configuration, the files, and the secrets that every process needs. */}}
{{- define "onstream.volumes" -}}
- name: onstream
  projected:
    defaultMode: 0440
    sources:
      - configMap:
          name: {{ include "onstream.fullname" .root }}
          items:
            - {key: onstream.yaml, path: onstream.yaml}
            {{- range $name, $_ := .root.Values.files }}
            - {key: {{ $name }}, path: files/{{ $name }}}
            {{- end }}
      - secret:
          name: {{ .root.Values.credentials.secret }}
          items:
            - {key: {{ .root.Values.credentials.privacyKey }}, path: secrets/privacy/secret}
      {{- include "onstream.signingKeys" . | nindent 6 }}
      {{- include "onstream.kafkaSecrets" .root | nindent 6 }}
- name: state
  emptyDir: {sizeLimit: {{ .stateSize | default "2Gi" }}}
- name: tmp
  emptyDir: {sizeLimit: {{ .tmpSize | default "2Gi" }}}
{{- end -}}

{{/* The keys of versions' signatures: who publishes has the private one, who reads the public ones. */}}
{{- define "onstream.signingKeys" -}}
{{- $signing := .root.Values.signing -}}
{{- $publishes := and $signing.privateKey (has (.component | default "") (list "bootstrap" "trainer")) -}}
{{- if and $signing.secret (or $publishes $signing.publicKeys) }}
- secret:
    name: {{ $signing.secret }}
    items:
      {{- if $publishes }}
      - {key: {{ $signing.privateKey }}, path: secrets/signing/private.pem}
      {{- end }}
      {{- range $number, $key := $signing.publicKeys }}
      - {key: {{ $key }}, path: secrets/signing/public-{{ $number }}.pem}
      {{- end }}
{{- end }}
{{- end -}}

{{/* The Secret with who we are to the brokers. */}}
{{- define "onstream.kafkaSecret" -}}
{{- if .Values.kafka.security.secret -}}
{{- .Values.kafka.security.secret -}}
{{- else if .Values.strimzi.user.create -}}
{{- include "onstream.fullname" . -}}
{{- end -}}
{{- end -}}

{{- define "onstream.kafkaSecrets" -}}
{{- $security := .Values.kafka.security -}}
{{- $secret := include "onstream.kafkaSecret" . -}}
{{- if ne $security.protocol "PLAINTEXT" }}
{{- if or (hasPrefix "SASL" $security.protocol) $security.certificateKey }}
- secret:
    name: {{ required "kafka.security.secret: name the Secret with the password or certificate that the brokers ask for" $secret }}
    items:
      {{- if hasPrefix "SASL" $security.protocol }}
      - {key: {{ $security.passwordKey }}, path: secrets/kafka/password}
      {{- end }}
      {{- if $security.certificateKey }}
      - {key: {{ $security.certificateKey }}, path: secrets/kafka/certificate.pem}
      - {key: {{ $security.privateKeyKey }}, path: secrets/kafka/key.pem}
      {{- end }}
{{- end }}
{{- if $security.caSecret }}
- secret:
    name: {{ $security.caSecret }}
    items:
      - {key: {{ $security.caKey }}, path: secrets/kafka/ca.pem}
{{- end }}
{{- end }}
{{- end -}}

{{/* The base model's folder, for those that read it. */}}
{{- define "onstream.modelMount" -}}
{{- if or .Values.model.claim .Values.model.image }}
- {name: model, mountPath: {{ .Values.model.path }}, readOnly: true}
{{- end }}
{{- end -}}

{{- define "onstream.modelVolume" -}}
{{- if .Values.model.claim }}
- name: model
  persistentVolumeClaim: {claimName: {{ .Values.model.claim }}, readOnly: true}
{{- else if .Values.model.image }}
- name: model
  image: {reference: {{ .Values.model.image }}, pullPolicy: IfNotPresent}
{{- end }}
{{- end -}}

{{- define "onstream.claimSpec" -}}
{{- with .storageClass }}
storageClassName: {{ . }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end -}}

{{- define "onstream.checkpointClaim" -}}
{{- .Values.trainer.checkpoints.claim | default (printf "%s-checkpoints" (include "onstream.fullname" .)) -}}
{{- end -}}

{{- define "onstream.rayAddress" -}}
{{- if .Values.trainer.ray.create -}}
ray://{{ include "onstream.fullname" . }}-ray-head-svc.{{ .Release.Namespace }}.svc:10001
{{- else -}}
{{- .Values.trainer.ray.address -}}
{{- end -}}
{{- end -}}

{{- define "onstream.rayTokenSecret" -}}
{{- if .Values.trainer.ray.tokenSecret -}}
{{- .Values.trainer.ray.tokenSecret -}}
{{- else if .Values.trainer.ray.create -}}
{{- include "onstream.fullname" . }}-ray
{{- end -}}
{{- end -}}

{{- define "onstream.kafkaUsername" -}}
{{- $named := .Values.kafka.security.username -}}
{{- if and (not $named) .Values.strimzi.user.create -}}
{{- $named = include "onstream.fullname" . -}}
{{- end -}}
{{- required "kafka.security.username: SASL needs one" $named -}}
{{- end -}}
