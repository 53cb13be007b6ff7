#!/bin/bash
# down.sh [--purge]: ends what up.sh started, and nothing else: its programs, its
# containers, their mounts, bridge and cgroups. The next up.sh gives an empty
# cluster; images and certificates stay, unless purged.
set -uo pipefail # goes on after an error: the more is taken down, the better
. "$(dirname "$0")/conf/lib.sh"
if [ ! -d "$ST" ]; then exit; fi
exec 9> "$ST/lock"
flock 9
ctr() { "$DEB/usr/bin/ctr" -a "$SOCKET" -n k8s.io "$@" 2> /dev/null; }
stop kubelet
stop apiserver KILL # on SIGTERM it waits for open streams, a minute
if alive containerd; then
  for task in $(ctr task ls -q); do ctr task kill -a -s KILL "$task"; done
  for _ in $(seq 50); do
    if ! ctr task ls | grep -q RUNNING; then break; fi
    sleep 0.1
  done
  for task in $(ctr task ls -q); do ctr task rm -f "$task"; done > /dev/null
  for container in $(ctr container ls -q); do ctr container rm "$container"; done
fi
stop etcd
stop containerd
# Volumes, network namespaces, root filesystems: the deepest first.
awk -v below="$ST/" 'index($2, below) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do
  umount "$mount" 2> /dev/null || umount -l "$mount"
done
"$BIN/busybox" ip link del rigk8s0 2> /dev/null
# What has no place that could be configured.
for result in /var/lib/cni/results/rig-*-eth0; do
  id=${result%-eth0}
  rm -f "$result" "/var/lib/cni/results/cni-loopback-${id##*/rig-}-lo"
done
find /var/log/containers -lname "$ST/*" -delete 2> /dev/null
if [ -S /var/lib/kubelet/device-plugins/kubelet.sock ]; then rm /var/lib/kubelet/device-plugins/kubelet.sock; fi
rmdir -p /var/lib/cni/results /var/log/containers /var/lib/kubelet/device-plugins /run/containerd/{runc/k8s.io,s} 2> /dev/null
for cgroup in /sys/fs/cgroup/kubepods /sys/fs/cgroup/*/kubepods; do
  if [ -d "$cgroup" ]; then find "$cgroup" -depth -type d -exec rmdir {} + 2> /dev/null; fi
done
if [ -f "$ST/sysctl" ]; then
  while read -r value name; do echo "$value" > "/proc/sys/$name"; done < "$ST/sysctl"
  rm "$ST/sysctl"
fi
if [ "${1:-}" = --purge ]; then
  rm -rf --one-file-system "$ST"
else
  rm -rf --one-file-system "$ST"/{etcd,kubelet,kubelet-plugins,cni-ipam,logs,run,containerd/state} "$ST"/containerd/root/io.containerd.grpc.v1.cri
fi
exit 0
