#!/bin/bash
# images.sh PROMETHEUS: state/images.tar, all images, from local files. Their
# Prometheus takes remote write, and samples that are two days late.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
prometheus=$(realpath "$1")
busybox=$(realpath "$BIN/busybox")
files=$ST/images
mkdir -p "$files"

cat > "$files/passwd" << EOT
root:x:0:0:root:/root:/bin/sh
nonroot:x:65532:65532:nonroot:/:/bin/sh
nobody:x:65534:65534:nobody:/:/bin/sh
EOT
cat > "$files/group" << EOT
root:x:0:
nonroot:x:65532:
nogroup:x:65534:
EOT
cat > "$files/quiet.yml" << EOT
storage:
  tsdb:
    out_of_order_time_window: 48h
EOT
cat > "$files/prometheus.yml" << EOT
global:
  scrape_interval: 1s
  scrape_native_histograms: true
scrape_configs:
- job_name: prometheus
  static_configs:
  - targets: ["127.0.0.1:9090"]
$(cat "$files/quiet.yml")
EOT

run=/etc/prometheus/prometheus.yml,--storage.tsdb.path=/prometheus,--web.enable-remote-write-receiver
server="dir=/prometheus entry=/bin/prometheus cmd=--config.file=$run"
cat > "$files/spec.new" << EOT
layer pause
file $BIN/pause /pause
image rig.local/pause:1 pause user=65534 entry=/pause

layer prometheus
file $prometheus /bin/prometheus
$(ldd "$prometheus" 2> /dev/null | grep -o '/[^ ]*' | sort -u | sed 's/.*/file & &/')
file $files/prometheus.yml /etc/prometheus/prometheus.yml 644
file $files/quiet.yml /etc/prometheus/quiet.yml 644
dir /prometheus 777 65534

layer system
file $files/passwd /etc/passwd 644
file $files/group /etc/group 644
dir /tmp 1777

layer shell
file $busybox /bin/busybox
$("$busybox" --list | grep -vx busybox | sed 's#.*#link busybox /bin/&#')

layer tar
file $busybox /bin/tar

image rig.local/tools:1 shell,system cmd=/bin/sh
image rig.local/prom-busybox:1 prometheus,shell,system user=65534 $server
image rig.local/prom-distroless:1 prometheus,system user=65532 $server
image rig.local/prom-tar:1 prometheus,tar,system user=65534 $server
EOT

# What the images are made of says whether they are the same as last time.
{
  cat "$files/spec.new"
  cksum "$files"/*.yml "$files/passwd" "$files/group" "$BIN/mkimage" "$BIN/pause"
  stat -c '%n %s %y' "$prometheus" "$busybox"
} > "$files/made-of.new"
if ! cmp -s "$files/made-of.new" "$files/made-of" || [ ! -e "$ST/images.tar" ]; then
  rm -f "$files/imported"
  "$BIN/mkimage" "$ST/images.tar" < "$files/spec.new"
  mv "$files/made-of.new" "$files/made-of"
fi
