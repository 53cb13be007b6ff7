// Package block builds and verifies TSDB blocks.
//
// A block is a directory named by a ULID that holds the samples of a time range: chunks of
// about 120 samples each (chunks/000001, …), an index from labels to series and from series
// to chunks (index), deletions that are not purged yet (tombstones), and a summary
// (meta.json). The formats are specified in Prometheus' tsdb/docs/format. This package
// writes blocks with Prometheus' writers and adds nothing to the formats.
//
// # Building
//
// A [Builder] turns the received series of a cut block into a block with exactly the
// selected samples. It copies a chunk inside the range without deleted samples byte for
// byte; it does not decode the chunk, so an unknown encoding does no harm. It decodes a
// chunk that crosses the border of the range or has deleted samples, and encodes the rest
// in the same encoding. It merges overlapping chunks of a series (old blocks have them),
// because an index cannot hold them, and keeps two samples with the same time, because
// Prometheus serves both. It accepts labels, series and chunks in any order. It skips a
// chunk that cannot be read and counts it in [Lost].
//
// A [HeadBuilder] turns the records and the m-mapped chunks of a head into blocks, with the
// same writer.
//
// The ULID of a built block is derived from its contents and its origin: the same selection
// of the same data always gives the same block.
//
// # Verification
//
// [Verify] reads a block completely, like Prometheus, and lists all damage and oddities. The
// [Level] of a finding is what Prometheus does with such a block.
// TestVerifyJudgesAsPrometheus compares each with the TSDB library.
//
// # Limits
//
// The package does not sync all files of a built block: it builds blocks in a staging
// directory, and the caller that publishes a block must sync it. A trimmed histogram chunk
// without its first sample begins with "counter reset unknown", as when Prometheus trims it;
// queries then detect resets themselves. Verify checks that samples can be read, not that
// their values are those that were scraped.
package block
