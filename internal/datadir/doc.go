// Package datadir reads a Prometheus data directory while a running Prometheus may be
// writing to it.
//
// A data directory holds blocks (directories named by a ULID, immutable until they are
// deleted) and the head: the samples that are not in a block yet. The head consists of
// three parts. wal/checkpoint.N and the segments after N have the records of series and
// in-order samples. wbl/ has the records of out-of-order samples. chunks_head/ has the
// m-mapped chunks: chunks of the head that are full. The logs usually have the samples
// of these chunks as well, but not after a crash: at its next start a server truncates a
// damaged log and still serves the m-mapped chunks. A complete head needs all three.
//
// Readers skip damage in the files of the head. Prometheus truncates its log at the
// first damage or does not start; this package continues at the next whole record and
// reports each [Damage].
//
// Prometheus compacts while the data directory is read: it writes a block from the head,
// truncates the log, merges blocks and deletes the merged ones. Therefore [Open] opens
// every file that the caller needs before it returns; an open file stays readable after
// its deletion. Open opens the files of the head before it lists the blocks. Samples
// that move from the head to a block in between are then in both, and
// [Head.MinValidTime] is the time before which a block has the in-order samples of the
// log. In the other order those samples would be in neither.
//
// The package never writes, locks or creates anything in the data directory. It reads
// files with bounded memory and does not map them.
//
// The last samples before Open may be missing: Prometheus writes its log in pages, and
// readers skip a record that was incomplete when its file was opened.
package datadir
