// Package block makes TSDB blocks, and checks them.
//
// A block is a directory named by a ULID that holds a closed piece of time: the
// samples, packed into chunks of about 120 (chunks/000001, …), an index from
// labels to series and from series to chunks (index), what was deleted but not
// yet purged (tombstones), and a summary (meta.json). The formats are specified
// in Prometheus' own tsdb/docs/format; this package writes them with Prometheus'
// own writers and adds nothing to them.
//
// # Making
//
// A [Builder] turns the received series of a cut block into a block that has the
// selected samples and no others. A chunk that lies inside the range, with nothing
// deleted in it, keeps its bytes and is never decoded; so it does not matter whether we
// know its encoding. A chunk at the border, or with deleted samples, is decoded and
// encoded anew, in the same encoding. Chunks of one series that overlap in time (old
// blocks have them) are merged, because an index cannot hold them. Two samples at the
// same time are both kept, since Prometheus serves both. Labels, series and chunks may
// come in any order. A chunk that cannot be read is left out, and counted as [Lost].
//
// The head's records become blocks here too (head*.go), through the same writer.
//
// The ULID of a built block comes from its content and origin, so the same
// selection of the same data always gives the same block.
//
// # Checking
//
// [Verify] reads a block as Prometheus would, but all of it, and lists what it
// finds wrong or odd, with the place. The [Level] of a finding is what Prometheus'
// library does with such a block; TestVerifyJudgesAsPrometheus holds each against it.
//
// # What is not promised
//
// Nothing here is durable: blocks are built in a staging directory that can be
// made again, and not every file is synced. Whoever publishes a block syncs it.
// A trimmed histogram chunk that has lost its first sample starts with "counter
// reset unknown", as it does when Prometheus trims it; queries then detect the
// reset themselves. Verify cannot tell whether values are what
// was scraped, only that they can be read.
package block
