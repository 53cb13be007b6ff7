// Package datadir reads a Prometheus data dir that a living Prometheus may be
// writing to.
//
// A data dir holds blocks (directories named by a ULID, immutable until they are
// deleted) and the head: what is not in a block yet. The head is in three places.
// wal/checkpoint.N and the segments after N have the records of in-order samples, and
// of the series; wbl/ has those of out-of-order samples. chunks_head/ has the chunks
// that were full: m-mapped chunks. Usually the logs have the same samples as well, but
// not after a crash: a server that starts repairs its log by cutting it at the damage,
// and still serves the chunks. So the head consists of all three.
//
// The files of a head are read as far as they can be. Where Prometheus cuts its log
// at the first damage, or does not start at all, reading goes on at the next whole
// record, and each [Damage] is reported.
//
// While we read, Prometheus compacts: it writes a block from the head, drops
// the log below it, merges blocks and deletes what it merged. So [Open] first
// opens every file that will be needed, and an open file stays readable after
// its deletion. The head's files are opened before the blocks are listed: what
// leaves the head in between is then in both, and [Head.MinValidTime] says
// which in-order samples of the log a block has already. The other order would
// lose what moves from head to block just then.
//
// Nothing is ever written, locked or created in the data dir. Files are read in
// bounded memory, never mapped.
//
// What is not promised: that the newest moments before Open are there. A
// Prometheus writes its log in pages, and a record that was half written when
// we came is left out.
package datadir
