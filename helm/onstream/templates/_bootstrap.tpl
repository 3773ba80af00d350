{{- define "onstream.bootstrapPod" -}}
metadata:
  labels:
    {{- include "onstream.podLabels" . | nindent 4 }}
  {{- with .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  restartPolicy: Never
  serviceAccountName: {{ include "onstream.fullname" .root }}-bootstrap
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    {{- include "onstream.podSecurity" .root | nindent 4 }}
  {{- include "onstream.pullSecrets" .root | nindent 2 }}
  {{- include "onstream.scheduling" . | nindent 2 }}
  containers:
    - name: bootstrap
      image: {{ include "onstream.image" (dict "root" .root "image" "router") }}
      imagePullPolicy: {{ .root.Values.images.pullPolicy }}
      command: [onstream, bootstrap]
      args: [--config, /etc/onstream/onstream.yaml]
      env:
        {{- include "onstream.env" . | nindent 8 }}
      {{- include "onstream.envFrom" .root | nindent 6 }}
      resources:
        requests: {cpu: 500m, memory: 2Gi, ephemeral-storage: 5Gi}
        limits: {cpu: "2", memory: 2Gi, ephemeral-storage: 5Gi}
      securityContext:
        {{- include "onstream.containerSecurity" .root | nindent 8 }}
      volumeMounts:
        {{- include "onstream.mounts" .root | nindent 8 }}
        {{- include "onstream.modelMount" .root | nindent 8 }}
  volumes:
    {{- include "onstream.volumes" . | nindent 4 }}
    {{- include "onstream.modelVolume" .root | nindent 4 }}
{{- end -}}
