#!/bin/bash
# up.sh: a real Kubernetes of one node on this machine: etcd, kube-apiserver,
# kubelet, containerd and runc, all on loopback. Needs root, Linux, openssl, and
# apt-get the first time; PROMETHEUS is the path of a prometheus to run in pods.
#
# Again while it is up: starts what has died. down.sh ends it. Everything is
# below $PROMDUMP_E2E_RIG, by default ~/.cache/promdump-e2e/rig.
#
# No scheduler and no controllers: pods have nodeName 127.0.0.1, and what owns
# them does not make them again.
set -euo pipefail
. "$(dirname "$0")/conf/lib.sh"
began=$(date +%s%N)
last=$began
phase() {
  local now
  now=$(date +%s%N)
  printf '%-12s %4d.%01d s\n' "$1" $(((now - last) / 1000000000)) $(((now - last) / 100000000 % 10))
  last=$now
}
prometheus=${PROMETHEUS:?the path of a prometheus}
mkdir -p "$ST"/{pids,logs,run}
exec 9> "$ST/lock"
flock 9

bash "$RIG/build/all.sh" 9>&-
export PATH=$DEB/usr/sbin:$DEB/usr/bin:$BIN:$PATH # containerd looks for its shim here
phase build
bash "$CONF/images.sh" "$prometheus"
phase images
bash "$CONF/pki.sh"
bash "$CONF/config.sh"
phase config

# The kubelet sets these for the whole machine; down.sh puts them back.
if [ ! -f "$ST/sysctl" ]; then
  for name in kernel/panic kernel/panic_on_oops vm/overcommit_memory vm/panic_on_oom; do
    echo "$(cat /proc/sys/$name) $name"
  done > "$ST/sysctl"
fi
listens() { (: < "/dev/tcp/127.0.0.1/$1") 2> /dev/null; }
for listener in etcd:2379 etcd:2380 apiserver:6443 kubelet:10250; do
  if ! alive ${listener%:*} && listens ${listener#*:}; then
    echo "up.sh: somebody else listens on 127.0.0.1:${listener#*:}" >&2
    exit 1
  fi
done

# Every user of the machine reaches loopback, hence certificates for etcd too.
trusted="--trusted-ca-file=$PKI/ca.crt --cert-file=$PKI/etcd.crt --key-file=$PKI/etcd.key --client-cert-auth"
start etcd etcd --data-dir "$ST/etcd" --unsafe-no-fsync --initial-cluster default=https://127.0.0.1:2380 \
  --listen-client-urls https://127.0.0.1:2379 --advertise-client-urls https://127.0.0.1:2379 $trusted \
  --listen-peer-urls https://127.0.0.1:2380 --initial-advertise-peer-urls https://127.0.0.1:2380 ${trusted//--/--peer-}
start containerd containerd -c "$ST/etc/containerd.toml"
start apiserver kube-apiserver --bind-address=127.0.0.1 --secure-port=6443 --endpoint-reconciler-type=none --cert-dir="$ST/run" \
  --etcd-servers=https://127.0.0.1:2379 --etcd-cafile="$PKI/ca.crt" --etcd-certfile="$PKI/etcd.crt" --etcd-keyfile="$PKI/etcd.key" \
  --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" \
  --client-ca-file="$PKI/ca.crt" --token-auth-file="$PKI/tokens.csv" --authorization-mode=Node,RBAC \
  --disable-admission-plugins=ServiceAccount --allow-privileged=true --service-cluster-ip-range=10.0.0.0/24 \
  --service-account-issuer=https://kubernetes.default.svc --service-account-key-file="$PKI/sa.key" --service-account-signing-key-file="$PKI/sa.key" \
  --kubelet-client-certificate="$PKI/apiserver-client.crt" --kubelet-client-key="$PKI/apiserver-client.key" \
  --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP
ctr="ctr -a $SOCKET -n k8s.io"
await 60 containerd $ctr version
phase containerd
if [ ! -e "$ST/images/imported" ]; then
  $ctr images import "$ST/images.tar" > "$ST/logs/import.log" 2>&1 || { cat "$ST/logs/import.log" >&2; exit 1; }
  touch "$ST/images/imported"
fi
phase import
export KUBECONFIG=$ST/admin.kubeconfig
await 120 apiserver kubectl get --raw /readyz
phase apiserver
start kubelet kubelet --config="$ST/etc/kubelet.yaml" --kubeconfig="$ST/kubelet.kubeconfig" --root-dir="$ST/kubelet" \
  --cert-dir="$ST/run" --hostname-override=127.0.0.1
await 90 apiserver kubectl apply -f "$RIG/pods/access.yaml"
await 90 kubelet bash -c ": < /dev/tcp/127.0.0.1/10250" # one that died leaves its node ready
await 90 kubelet sh -c 'kubectl get node 127.0.0.1 -o "jsonpath={.status.conditions[?(@.type==\"Ready\")].status}" | grep -q True'
phase node
last=$began
phase all
echo "export KUBECONFIG=$KUBECONFIG PATH=$BIN:\$PATH"
