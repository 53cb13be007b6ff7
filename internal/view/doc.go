// Package view opens dumps, as one storage.
//
// A [Cache] holds dumps unpacked, each in a directory named by the digest of its
// file: unpacking and verifying is done once, and the next [Cache.Open] of the
// same file maps its blocks into memory and is done. A [View] is several opened
// dumps as one storage, read-only:
//
//	file ─> Cache ─> Dump ─┐
//	file ─> Cache ─> Dump ─┴─> View
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
package view
