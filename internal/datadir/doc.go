// Package datadir reads a Prometheus data dir that a living Prometheus may be
// writing to.
//
// A data dir holds blocks (directories named by a ULID, immutable until they
// are deleted) and the head: what is not in a block yet. Of the head we read
// the write-ahead log: wal/checkpoint.N and the segments after N hold every
// in-order sample that no block has, wbl/ every out-of-order one. chunks_head/
// holds a part of the same samples again and matters just to who wants the
// head's files as they are.
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
