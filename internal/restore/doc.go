// Package restore puts what a dump holds into a data dir, beside what is there.
//
// A running Prometheus looks for new block directories every minute, and one
// that it cannot open stops all others from being loaded; a stopped one may not
// even start. A directory whose name is not a ULID is ignored, and
// <ULID>.tmp-for-creation is removed at the next start. So a dump is unpacked
// below such a name, every block is verified there, and only then renamed:
// before its rename a block does not exist for Prometheus, after it the block is
// whole and on disk. Whatever kills a restore in between leaves a data dir that a
// server starts on, and running the same restore again finishes it.
//
// Three things in a block's meta.json would do harm in another data dir, so they
// are changed (everything else, unknown fields too, stays as it was):
//
//   - A block that ends later than the target's own newest one makes the target
//     forget its own WAL below that time at the next restart. Blocks with the hint
//     from-out-of-order do not count for this.
//   - Compaction drops that hint when it merges such a block with one of the
//     target's own, and the harm is back. Blocks with the hint from-stale-series
//     are kept apart from those without it (by a Prometheus that knows this hint;
//     an older one ignores it). Such a block stays as it is until retention.
//   - compaction.parents names blocks that the server deletes at once.
//
// A restore is prepared, then run: [Prepare] unpacks and verifies the dump, and [Plan],
// which touches no file, decides what is done and what speaks against it; [Prepared.Run]
// hands the blocks to the [Target]. The target changes its data directory with package
// apply: in this process where it is on this machine, in the agent where it is in a
// container.
//
// A dump with a raw head (WAL and head chunks) keeps it only where nothing else is: in an
// empty data directory or with Spec.Replace. Elsewhere the head becomes blocks first,
// since two WALs cannot be joined.
//
// What is not promised: that a Prometheus understands every chunk of a newer one; and
// that it has room below a size-based retention.
package restore
