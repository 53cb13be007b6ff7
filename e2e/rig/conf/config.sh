#!/bin/bash
# config.sh: kubeconfigs, and what kubelet, containerd and CNI are told.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
mkdir -p "$ST/etc/cni"

# In place, and only what changed: containerd does not see a CNI file that was
# renamed into place.
put() {
  local new
  new=$(cat)
  if [ "$new" != "$(cat "$1" 2> /dev/null)" ]; then (umask 077 && echo "$new" > "$1"); fi
}

kubeconfig() { # NAME USER
  put "$ST/$1.kubeconfig" << EOT
apiVersion: v1
kind: Config
clusters: [{name: rig, cluster: {server: "https://127.0.0.1:6443", certificate-authority: $PKI/ca.crt}}]
users: [{name: $1, user: $2}]
contexts: [{name: rig, context: {cluster: rig, user: $1, namespace: default}}]
current-context: rig
EOT
}
for user in admin kubelet; do kubeconfig $user "{client-certificate: $PKI/$user.crt, client-key: $PKI/$user.key}"; done
for user in bob carol; do kubeconfig $user "{token: $(cat "$PKI/$user.token")}"; done

put "$ST/etc/kubelet.yaml" << EOT
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: 127.0.0.1
readOnlyPort: 0
healthzPort: 0
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: AlwaysAllow}
tlsCertFile: $PKI/kubelet-server.crt
tlsPrivateKeyFile: $PKI/kubelet-server.key
containerRuntimeEndpoint: unix://$SOCKET
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
makeIPTablesUtilChains: false
localStorageCapacityIsolation: false
resolvConf: ""
volumePluginDir: $ST/kubelet-plugins
podLogsDir: $ST/logs/pods
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
nodeStatusUpdateFrequency: 5s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
EOT

# No gateway: a pod reaches itself and other pods, nothing else.
put "$ST/etc/cni/10-rig.conflist" << EOT
{"cniVersion": "1.0.0", "name": "rig", "plugins": [
  {"type": "bridge", "bridge": "rigk8s0", "isGateway": false, "ipMasq": false, "hairpinMode": false,
    "ipam": {"type": "host-local", "dataDir": "$ST/cni-ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]]}}]}
EOT

# - restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox fails else,
#   with "can't get final child's PID from pipe: EOF".
# - netns_mounts_under_state_dir: else they are left behind in /run/netns.
put "$ST/etc/containerd.toml" << EOT
version = 2
root = "$ST/containerd/root"
state = "$ST/containerd/state"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]
[grpc]
  address = "$SOCKET"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "rig.local/pause:1"
  stream_server_address = "127.0.0.1"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "$DEB/usr/lib/cni"
    conf_dir = "$ST/etc/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "$DEB/usr/sbin/runc"
        SystemdCgroup = false
EOT
