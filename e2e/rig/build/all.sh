#!/bin/bash
# all.sh: everything that the rig is made of, where it is missing. Cold about ten
# minutes of two processors and 6 GB of Go's caches; again: a second.
set -euo pipefail
. "$(dirname "$0")/../conf/lib.sh"
mkdir -p "$BIN" "$DIR/build"
exec 8> "$DIR/build.lock"
flock 8
export CGO_ENABLED=0 GOFLAGS="-buildvcs=false -mod=mod"

# A build that is cut off must not be taken for one that is done.
build() { # NAME PACKAGE LDFLAGS, in the module of the working directory
  local since=$SECONDS
  go build -trimpath -ldflags "-s -w $3" -o "$BIN/$1.new" "$2"
  mv "$BIN/$1.new" "$BIN/$1"
  if [ $((SECONDS - since)) -gt 5 ]; then echo "built $1 in $((SECONDS - since)) s"; fi
}

is_kube() { # NAME: there, and of the right version
  case $1 in
  kubectl) "$BIN/$1" version --client 2> /dev/null ;;
  *) "$BIN/$1" --version 2> /dev/null ;;
  esac | grep -qF "$K8S"
}

module=$DIR/build/kube
version=k8s.io/component-base/version
flags="-X $version.gitVersion=$K8S -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<< "$K8S") -X $version.gitTreeState=clean"
flags="$flags -X k8s.io/client-go/pkg/version.gitVersion=$K8S"
for name in kube-apiserver kubelet kubectl; do
  if is_kube $name; then continue; fi
  if ! grep -q "k8s.io/kubernetes $K8S\$" "$module/go.mod" 2> /dev/null; then
    mkdir -p "$module"
    rm -f "$module/go.sum"
    bash "$RIG/build/kube-mod.sh" "$K8S" > "$module/go.mod"
  fi
  (cd "$module" && build $name k8s.io/kubernetes/cmd/$name "$flags")
done

# Ours, in the module of e2e.
for name in mkimage pause; do
  if [ ! -x "$BIN/$name" ] || [ -n "$(find "$RIG/images/$name" -newer "$BIN/$name")" ]; then
    (cd "$RIG" && GOFLAGS=-buildvcs=false && build $name ./images/$name "")
  fi
done

# Taken from packages that are not installed: installing would start services.
packages="containerd etcd-server runc busybox-static containernetworking-plugins"
if [ "$(cat "$DEB/complete" 2> /dev/null)" != "$packages" ]; then
  if ! command -v apt-get > /dev/null; then
    echo "the rig takes containerd, etcd and runc from Debian's packages, and there is no apt-get" >&2
    exit 1
  fi
  rm -rf "$DEB"
  mkdir -p "$DEB"
  (
    cd "$DEB"
    fetch() { apt-get -qq -o APT::Sandbox::User=root download $packages; }
    fetch 2> /dev/null || { apt-get -qq update && fetch; } # a fresh machine knows no packages
    for file in *.deb; do dpkg -x "$file" .; done
    rm -- *.deb
  )
  ln -sf "$(find "$DEB" -path '*bin/busybox')" "$BIN/busybox"
  echo "$packages" > "$DEB/complete"
fi
