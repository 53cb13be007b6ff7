// Package e2e judges promdump by real Prometheus servers: one that scrapes,
// receives remote write and compacts every few seconds while it is dumped; one
// that is started on what was restored; one beside which we restore; and one of
// 2023. What they answer is compared sample by sample, bit by bit, with what is
// in the dump.
//
// It is a module of its own, so that the server's dependencies are not
// promdump's. The server and promtool are built from the server's module, once,
// into the user's cache directory.
//
//	go test ./...                           about two minutes
//	PROMDUMP_E2E_SOAK=10m go test -run Soak  how long the living server is dumped
//
// What cannot be had on a machine is skipped with its reason, and is an error
// where it must not be missing: PROMDUMP_E2E_REQUIRE_OLD=1 (Prometheus 2.42 of
// Debian, or any by PROMDUMP_E2E_PROMETHEUS_OLD), PROMDUMP_E2E_REQUIRE_STRACE=1
// and PROMDUMP_E2E_REQUIRE_MOUNT=1.
package e2e
