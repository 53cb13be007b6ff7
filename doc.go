// Package promdump extracts a time range and a set of series from a Prometheus as one
// verified file of TSDB blocks, which any Prometheus can load. It never changes the
// Prometheus that it reads.
//
// The package is for programs such as a must-gather or a test harness. [Write] dumps a
// selection of a data directory ([Dir]) or of a running server ([Server]), and [Open]
// opens a dump for queries. For people there are the commands promdump and kubectl
// promdump; only the latter reads from pods.
//
// # Stability
//
// The package follows semantic versioning. [Dump] implements [storage.Queryable] of
// Prometheus, whose Go packages have no stable API: a release may need another version of
// them, and its notes say so. Every release reads the dumps of all earlier ones. The
// packages below internal may change at any time.
//
// # The tour
//
// The data flows in one direction:
//
//	data dir ─> datadir ─> slice ─> agent ─wire─> source ─> dump ─> archive ─> file ─> restore
//	            handles    plan,    one           local,    series and records    └──> query
//	                       series   request       pod, …    become blocks (block)
//
// The packages left of wire may run in the container of a running server: they only read,
// and they need little memory. The packages right of it run on the user's machine and do
// the heavy work: they build indexes, replay the head and compress.
//
//   - internal/datadir opens a data directory that Prometheus may be writing to. Its open
//     files stay readable when Prometheus deletes them.
//   - internal/slice decides for each block whether it is copied whole, cut or skipped. It
//     reads the selected series of a cut block and filters the logs of the head.
//   - internal/wire defines the messages between both sides and their encoding as frames
//     (docs/wire.md).
//   - internal/agent carries out one request. cmd/promdump-agent runs it in a container;
//     internal/agentbin embeds that program for each architecture.
//   - internal/source reads data with one of several access methods. Each returns the same
//     sequence of messages, which source/sourcetest tests: from a local directory (local),
//     through an agent in a pod (pod), with tar where no agent can run (podtar), or from a
//     running server with remote read (remoteread).
//   - internal/kube finds Prometheus servers in a cluster, executes commands in their
//     containers and forwards their ports. It creates debug containers, and pods that mount
//     a volume.
//   - internal/promapi parses responses of Prometheus' HTTP API.
//   - internal/block builds blocks from series and records, and verifies blocks.
//   - internal/archive reads and writes the dump file (docs/format.md).
//   - internal/dump writes the messages of a source into an archive.
//   - internal/restore unpacks and verifies a dump, and plans its restore into a data
//     directory. internal/restore/apply carries out the plan: in this process, or in the
//     agent if the data directory is in a container.
//   - internal/view opens dumps as one read-only storage. A cache has the unpacked and
//     verified blocks.
//   - internal/query serves Prometheus' HTTP API over that storage, runs single queries and
//     exports samples (docs/open.md). query/page is the embedded web UI, built from its
//     web/.
//   - internal/term and internal/cli are the command line of promdump. internal/cli/plugin
//     is that of kubectl promdump, the same commands for a pod.
//   - internal/fsutil, internal/retry and internal/suggest are small helpers: locks and
//     temporary directories, the classification of errors for retries, and similar names.
//   - internal/tsdbtest creates real TSDBs for tests. e2e tests with real servers.
//
// house_test.go tests which packages may import which.
package promdump
