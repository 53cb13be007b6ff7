#!/bin/bash
# pki.sh: keys, certificates and tokens, once, for this machine alone.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
if [ -d "$PKI" ]; then exit; fi
umask 077
rm -rf "$PKI.new"
mkdir -p "$PKI.new"
cd "$PKI.new"
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout"
openssl req -x509 $key ca.key -out ca.crt -days 3650 -subj /CN=rig-ca \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign,digitalSignature 2> ca.log

certificate() { # NAME SUBJECT USAGE [ALTERNATIVE-NAMES]
  openssl req $key "$1.key" -out "$1.csr" -subj "$2" 2> "$1.log"
  {
    echo keyUsage=critical,digitalSignature
    echo "extendedKeyUsage=$3"
    if [ -n "${4:-}" ]; then echo "subjectAltName=$4"; fi
  } > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 -extfile "$1.ext" -out "$1.crt" 2>> "$1.log"
}
here=DNS:localhost,IP:127.0.0.1
certificate etcd /CN=etcd serverAuth,clientAuth $here
certificate apiserver /CN=kube-apiserver serverAuth DNS:kubernetes,DNS:kubernetes.default.svc,IP:10.0.0.1,$here
certificate kubelet-server /CN=kubelet serverAuth $here
certificate apiserver-client /O=system:masters/CN=apiserver-client clientAuth
certificate kubelet /O=system:nodes/CN=system:node:127.0.0.1 clientAuth
certificate admin /O=system:masters/CN=admin clientAuth
openssl genrsa -out sa.key 2048 2> sa.log

# Users that are not the admin, see pods/access.yaml.
for user in bob carol; do
  openssl rand -hex 16 > $user.token
  echo "$(cat $user.token),$user,$user,\"devs\"" >> tokens.csv
done
mv "$PKI.new" "$PKI"
