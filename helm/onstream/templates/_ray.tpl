{{/* A pod of the RayCluster. Ray's workers write checkpoints and have the store's credentials; the head has none, and
     neither has any other of ours: the driver reads log and configuration. KubeRay adds the command, and leaves probes
     alone where there are some. */}}

{{- define "onstream.rayPod" -}}
metadata:
  labels:
    {{- include "onstream.podLabels" . | nindent 4 }}
  {{- with .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "onstream.fullname" .root }}-learner
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: 60
  securityContext:
    {{- include "onstream.podSecurity" .root | nindent 4 }}
  {{- include "onstream.pullSecrets" .root | nindent 2 }}
  {{- include "onstream.scheduling" . | nindent 2 }}
  containers:
    - name: ray-{{ .role }}
      image: {{ include "onstream.image" (dict "root" .root "image" "trainer") }}
      imagePullPolicy: {{ .root.Values.images.pullPolicy }}
      env:
        - {name: HOME, value: /tmp}
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        {{- if eq .role "worker" }}
        {{- range $name, $value := .root.Values.store.env }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
        {{- end }}
        {{- range $name, $value := .values.env }}
        - {name: {{ $name }}, value: {{ $value | quote }}}
        {{- end }}
      {{- if eq .role "worker" }}
      {{- include "onstream.envFrom" .root | nindent 6 }}
      {{- end }}
      ports:
        {{- if eq .role "head" }}
        - {name: gcs, containerPort: 6379}
        - {name: client, containerPort: 10001}
        {{- else }}
        - {name: node, containerPort: 6380}
        {{- end }}
      startupProbe:
        tcpSocket: {port: {{ eq .role "head" | ternary "gcs" "node" }}}
        periodSeconds: 10
        failureThreshold: 60
      livenessProbe:
        tcpSocket: {port: {{ eq .role "head" | ternary "gcs" "node" }}}
        periodSeconds: 20
        failureThreshold: 6
      readinessProbe:
        tcpSocket: {port: {{ eq .role "head" | ternary "client" "node" }}}
        periodSeconds: 5
        failureThreshold: 2
      resources:
        {{- include "onstream.gpuResources" . | nindent 8 }}
      securityContext:
        {{- include "onstream.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- if eq .role "worker" }}
        {{- include "onstream.modelMount" .root | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {sizeLimit: {{ eq .role "worker" | ternary .values.scratchSize "10Gi" }}}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: 4Gi}
    {{- if eq .role "worker" }}
    {{- include "onstream.modelVolume" .root | nindent 4 }}
    {{- end }}
{{- end -}}
