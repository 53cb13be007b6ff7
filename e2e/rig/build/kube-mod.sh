#!/bin/bash
# kube-mod.sh VERSION: the go.mod of a throwaway module that can build
# k8s.io/kubernetes/cmd/…, to stdout. Its staging modules are v0.0.0 in its own
# go.mod, so each needs a replace line. Nothing else goes into that module:
# another requirement would change versions, and all is compiled anew.
set -euo pipefail
mod=$(go mod download -json "k8s.io/kubernetes@$1" | sed -n 's/.*"GoMod": "\(.*\)".*/\1/p')
echo "module rig/kube"
grep '^go ' "$mod"
echo "require k8s.io/kubernetes $1"
sed -n 's#^[[:space:]]*\(k8s\.io/[a-z0-9.-]*\) => \./staging/.*#\1#p' "$mod" | sort -u | while read -r staged; do
  echo "replace $staged => $staged v0.${1#v1.}"
done
