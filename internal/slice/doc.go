// Package slice takes a selection out of a data dir: it decides what happens to
// each block, reads the selected series of the blocks that are cut, and filters
// the head's m-mapped chunks and logs.
//
// It runs in the container of a Prometheus that must not notice. So nothing is
// decoded but labels, times and log records; nothing is held but a window of
// each file, one bit per series (and one per symbol when there are matchers)
// and a block's tombstones. Chunks go out as they are stored, also those that
// reach over the selection's border: who builds the block trims them.
//
// The index is read here with preads and not with the TSDB's reader, which wants
// the whole file mapped or in memory: its resident size is the index', hundreds
// of megabytes for a large block. The format is in tsdb/docs/format/index.md.
package slice
