#!/bin/sh
# The main job on a small TSDB with an incident in it, without Kubernetes.
set -eu
dir=$(mktemp -d "${TMPDIR:-/tmp}/promdump-demo.XXXXXX")
at() { date -u -d "@$1" '+%Y-%m-%d %H:%M:%S' 2>/dev/null || date -u -r "$1" '+%Y-%m-%d %H:%M:%S'; }
run() { printf '\n$ promdump'; for a; do case $a in *\ *) printf ' "%s"' "$a" ;; *) printf ' %s' "$a" ;; esac; done; echo; ./bin/promdump "$@"; }

now=$(($(date +%s) / 60 * 60))
echo "A Prometheus has run for six hours. About 100 minutes ago something broke. Its data dir:"
./bin/mktsdb demo "$dir/data" "$now"
run meta -d "$dir/data"

echo
echo "Everything around the incident, as one file:"
run dump -d "$dir/data" --start-time "$(at $((now - 6600)))" --end-time "$(at $((now - 3600)))" -t "$dir/incident.tar.gz"
run verify "$dir/incident.tar.gz"
run meta "$dir/incident.tar.gz"

echo
echo "On the laptop, into a data dir that any Prometheus opens:"
run restore -d "$dir/laptop" -t "$dir/incident.tar.gz"
run meta -d "$dir/laptop"

cat <<TXT

What to try next, with the same files:
  ./bin/promdump open $dir/incident.tar.gz
  ./bin/promdump query $dir/incident.tar.gz 'sum by (code) (rate(http_requests_total[5m]))' -o graph
  ./bin/promdump dump -d $dir/data --since 2h --match '{namespace="shop"}' -t shop.tar.gz
  ./bin/promdump dump -d $dir/data --around "$(at $((now - 5400)))" --window 10m --dry-run
  prometheus --storage.tsdb.path=$dir/laptop --config.file=/dev/null --storage.tsdb.retention.time=10y
  rm -r $dir
TXT
