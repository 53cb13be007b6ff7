// Package slice applies a selection to a data directory: it decides what happens to each
// block, reads the selected series of the blocks that are cut, and filters the m-mapped
// chunks and the logs of the head.
//
// It runs in the container of a production Prometheus, so it needs little CPU and bounded
// memory. It decodes labels, times and log records only. It holds a window of each file,
// one bit per series (and one per symbol if there are matchers) and the tombstones of a
// block. It sends chunks as they are stored, also those that extend beyond the selection;
// the receiver trims them when it builds the block.
//
// It reads the index with preads and not with the TSDB's reader, which needs the whole file
// mapped or in memory: hundreds of megabytes for a large block. The format of the index is
// described in tsdb/docs/format/index.md.
package slice
