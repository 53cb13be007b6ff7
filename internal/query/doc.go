// Package query opens dumps and answers PromQL over them, as Prometheus would.
//
// A [Cache] holds dumps unpacked, each in a directory named by the digest of its
// file: unpacking and verifying is done once, and the next [Cache.Open] of the
// same file maps its blocks into memory and is done. A [View] is several opened
// dumps as one storage; a [Server] puts Prometheus' own HTTP API in front of it,
// made of Prometheus' own packages, so that Grafana, promtool and another
// Prometheus (remote read) cannot tell the difference:
//
//	file ─> Cache ─> Dump ─┐
//	file ─> Cache ─> Dump ─┴─> View ─> Engine ─> Server, one answer, an export
//
// # The cache
//
// A directory in it is whole or is not there: everything is unpacked and verified
// under another name, synced, and renamed. Who has a dump open holds a shared lock
// in its directory; what is removed to stay below the limit is what nobody holds
// and was not used for the longest time.
//
// Which dump a file is, is known by the SHA-256 of its bytes. To ask for that
// costs a read of the file, so the answer is kept for the file's name, inode,
// size and both its times, where all of these are older than the answer. Whoever
// can set a change time back can change the cache too.
//
// # What is served, and what is not
//
// Nothing is ever written: there is no appender behind the API, and what a
// Prometheus would let one change is refused by its path before it gets there.
// A browser is let in by the names in Host and Origin, since any page on the web
// may point a name of its own at 127.0.0.1.
//
// What is not promised: exemplars and metric metadata, which no block holds (the
// API answers that there are none); status/tsdb, which is of the head in
// Prometheus, is of all blocks here. A query without a time is answered for the
// end of the dump, not for now.
package query
