// Package changed ranks the series of a storage by how much they changed in a window
// of time against a baseline.
//
//	storage ─> reader ─> vectors ─> statistics ─> groups ─> rows, ranked
//
// A unit of work is a family: a metric, or the three metrics of a classic histogram.
// Workers read a family series by series and keep a value for each step of time; the
// statistics of these vectors are in stats.go, and docs/changed.md explains them and
// their limits. Of a family nothing stays but the rows that may be shown.
//
// What is not promised: that a row is a cause. The statistics know no direction of
// cause and effect; they know what changed, how much, and when it began.
package changed
