// Package view opens dumps as one read-only storage.
//
// A [Cache] holds unpacked dumps, each in a directory named by the digest of its
// dump file. A dump is unpacked and verified once; the next [Cache.Open] of the same
// file only maps its blocks into memory. A [View] combines several opened dumps:
//
//	file ─> Cache ─> Dump ─┐
//	file ─> Cache ─> Dump ─┴─> View
//
// # The cache
//
// A directory in the cache is complete or absent: everything is unpacked and verified
// under a temporary name, synced, and renamed. A process that has a dump open holds a
// shared lock in its directory. To stay below the limit, the cache removes the least
// recently used directories that are not locked.
//
// A dump file is identified by the SHA-256 of its bytes. Computing it needs a read of
// the whole file, so the cache records it for the file's name, inode, size and both
// times, provided that the file had not been changed shortly before. Users who can set
// a change time back can change the cache too.
package view
