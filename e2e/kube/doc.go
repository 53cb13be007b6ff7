// Package kube judges kubectl promdump by a real Kubernetes: etcd, apiserver,
// kubelet and containerd on this machine, with real Prometheus servers in its
// pods. Its tests boot that cluster by ../rig/up.sh and take it down at the end,
// also if they are killed. All of it is Linux, as root.
//
//	go test ./kube                      what has to be built first takes ten minutes: ../rig/build/all.sh
//	PROMDUMP_E2E_KEEP=1 go test ./kube  leaves the cluster up, and takes the one that is up
//	PROMDUMP_E2E_KUBECONFIG=…/admin.kubeconfig go test ./kube
//	                                    neither boots nor ends anything; must be a rig on this machine
//
// Where there is no root, or nothing is built yet, all tests are skipped with
// the reason; with PROMDUMP_E2E_REQUIRE_KUBE=1 that is an error, and what is
// missing is built. PROMDUMP_E2E_RIG is where it all is kept.
//
// What the harness has for a test:
//
//   - [startPod]: a pod of its own, of a kind of ../rig/pods/pods.yaml, with a
//     data dir from this machine if wanted ([seed] makes one); ended with the test.
//     pod has its HTTP API (query, samples, write, fill), and what is really in
//     the container, also where that has no shell, and also while the apiserver
//     is dead: processes, files, blocks, memory.
//   - [kubectl], [cluster.run]: the real one, as any user of ../rig/pods/access.yaml.
//   - [newProxy]: a bad connection to the apiserver, with a kubeconfig for it.
//   - [cluster.kill]: a dead apiserver, kubelet, containerd or etcd; [cluster.up].
//
// What is not promised: that pods find each other by name, that anything makes a
// pod again (there are no controllers), or that a namespace can be deleted.
package kube
