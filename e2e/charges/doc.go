// Package charges measures what a dump costs the memory cgroup of a container: how much
// has to be left of the container's memory limit, so that no process is killed.
//
//	cd e2e && PROMDUMP_E2E_CHARGES=1 go test -count=1 -v ./charges
//
// It needs root on Linux, and no Kubernetes: what a kubelet's exec itself costs is not in
// its figures.
package charges
