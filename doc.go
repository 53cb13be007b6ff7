// Package promdump takes everything around the time of an incident out of a
// Prometheus that you can barely reach, as one verified file that any Prometheus
// can load, and it never harms the Prometheus it reads.
//
// This package is for programs that do so themselves, a must-gather or a harness:
// [Write] dumps a selection of a data dir ([Dir]) or of a running server ([Server]),
// and [Open] reads a dump. What people use are the programs, promdump and kubectl
// promdump; pods are reached by the latter alone.
//
// # Stability
//
// The package keeps to semantic versioning. [Dump] is a [storage.Queryable] of
// Prometheus, whose Go packages promise nothing: a release may need another version
// of them, and says so. What one release has dumped every later one reads.
// Everything below internal may change at any time.
//
// # The tour
//
// The data goes one way:
//
//	data dir ─> datadir ─> slice ─> agent ─wire─> source ─> dump ─> archive ─> file ─> restore
//	            handles    plan,    one           local,    series and records    └──> query
//	                       series   request       pod, …    become blocks (block)
//
// Left of wire is what may run in the container of a living server: it reads,
// holds little and changes nothing. Right of it, on the user's machine, is all
// the heavy work: building indexes, replaying the head, compressing.
//
//   - internal/datadir opens a data dir that Prometheus is writing to, so that
//     what was opened stays whole whatever Prometheus does.
//   - internal/slice decides for each block: whole, cut or skipped; it reads the
//     selected series of a cut block and filters the head's log.
//   - internal/wire is what is said between the two sides, as messages and as
//     frames of bytes.
//   - internal/agent carries out one request. cmd/promdump-agent is the program
//     that does so in a container, and agentbin has it for each architecture.
//   - internal/source has the ways to get at data; each tells the same story, and
//     source/sourcetest holds all of them to it: a directory here (local), an agent
//     in a pod (pod), what tar gives where no agent can run (podtar), or a running
//     server that is asked by remote read (remoteread).
//   - internal/kube finds Prometheis in a cluster, runs commands in their pods and
//     connects to their ports; it makes debug containers, and pods with a volume.
//   - internal/block turns series and records into blocks, and verifies blocks.
//   - internal/archive is the dump file; docs/format.md specifies it.
//   - internal/dump assembles what a source tells into an archive.
//   - internal/restore unpacks and verifies a dump, and plans what is done with it.
//     internal/restore/apply puts it into a data dir: in this process, or in the agent
//     where the data dir is in a container.
//   - internal/view opens dumps as one storage, from a cache of what was unpacked
//     and verified once.
//   - internal/query puts Prometheus' own HTTP API in front of that, and gives
//     single answers and exports (docs/open.md). query/page is the page over it,
//     embedded as it is built from its web/.
//   - internal/term and internal/cli are what a person sees; internal/cli/plugin
//     is kubectl promdump: the same commands, with a pod at the other end.
//   - internal/tsdbtest makes real TSDBs for tests; e2e tests with real servers.
//
// The rules that this page states about who may import whom are a test:
// house_test.go.
package promdump
