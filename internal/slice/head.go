package slice

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// Head sends the selected part of the head: HeadStart, HeadChunks, Records, HeadEnd.
//
// Head sends a chunk that overlaps the selection as it is stored. It sends a record
// unchanged if all of it is selected, and otherwise encodes the selected part again. It
// sends the series records of all series that the matchers select, because only the end of
// the log shows which of them have samples in the time range.
//
// Head skips damaged parts of the files and reports them in HeadEnd. An error is a failure
// to read a file, or that of ctx.
//
// A message is valid during the call of send. Head stops without an error when send returns
// false.
func Head(ctx context.Context, h *datadir.Head, s *Selection, send func(wire.Message) bool) error {
	f := newFilter(s)
	if err := f.read(ctx, h, send); err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("read head: %w", err)
	}
	return nil
}

// read sends all messages of [Head].
func (f *filter) read(ctx context.Context, h *datadir.Head, send func(wire.Message) bool) error {
	emit := func(m wire.Message) error {
		if !send(m) {
			return errStop
		}
		return nil
	}
	if err := emit(&wire.HeadStart{MinTime: f.sel.MinTime, MaxTime: f.sel.MaxTime}); err != nil {
		return err
	}
	f.from = h.MinValidTime
	if f.names() {
		// The log has the labels of the series that a chunk refers to.
		if err := f.findSeries(ctx, h); err != nil {
			return err
		}
	}
	if err := f.chunks(ctx, h, emit); err != nil {
		return err
	}
	if err := f.records(h.Records(ctx, f.damaged), wire.WAL, emit); err != nil {
		return err
	}
	f.from = math.MinInt64 // an out-of-order sample may be older than every block
	if err := f.records(h.OutOfOrderRecords(ctx, f.damaged), wire.WBL, emit); err != nil {
		return err
	}
	end := f.headEnd()
	return emit(&end)
}

// records sends the selected part of a log.
func (f *filter) records(log iter.Seq2[[]byte, error], name wire.Log, emit func(wire.Message) error) error {
	f.newest, f.oldest, f.unclosed = math.MinInt64, math.MaxInt64, -1
	msg := wire.Records{Log: name}
	for rec, err := range log {
		if err != nil {
			return err
		}
		if err := f.filter(rec); err != nil {
			f.end.BadRecords++
			if f.end.BadRecord == "" {
				f.end.BadRecord = err.Error()
			}
			continue
		}
		f.closeDamage()
		if f.size() < messageSize {
			continue
		}
		msg.Records = f.take()
		if err := emit(&msg); err != nil {
			return err
		}
	}
	if msg.Records = f.take(); len(msg.Records) > 0 {
		return emit(&msg)
	}
	return nil
}

// HeadInventory reads the whole head and returns the time range, the number of series and
// the damage of the part that no block has. An error is a failure to read a file, or that
// of ctx.
func HeadInventory(ctx context.Context, h *datadir.Head) (wire.HeadInventory, error) {
	// The empty range selects nothing, but read counts everything.
	f := newFilter(&Selection{MinTime: math.MaxInt64, MaxTime: math.MinInt64})
	f.hashes = refHashes{}
	inv := wire.HeadInventory{Bytes: h.Bytes()}
	if err := f.read(ctx, h, func(wire.Message) bool { return true }); err != nil {
		return inv, fmt.Errorf("read head: %w", err)
	}
	end := f.headEnd()
	inv.MinTime, inv.MaxTime, inv.Series = end.MinTime, end.MaxTime, f.hashes.distinct(f.sampled)
	inv.UnknownSamples, inv.UnknownChunkSamples = end.UnknownSamples, end.UnknownChunkSamples
	inv.Damage, inv.MoreDamage = end.Damage, end.MoreDamage
	return inv, nil
}

// filter collects the selected parts of records and counts all samples.
type filter struct {
	sel  *Selection
	from int64 // samples before this time are in a block

	known    refSet    // series with a record; see names
	selected refSet    // series that the matchers select
	sampled  refSet    // series with a sample
	hashes   refHashes // of the labels of each series; nil if not needed
	kinds    kinds
	end      wire.HeadEnd

	newest   int64 // newest sample time of the current log; math.MinInt64: none yet
	oldest   int64 // oldest sample time since the last damage; math.MaxInt64: none yet
	unclosed int   // first entry of end.Damage whose lost range has no end yet; -1: none

	out  []byte // selected records
	ends []int  // end of each record in out

	// Reused for each record.
	dec     record.Decoder
	samples []record.RefSample
	hists   []record.RefHistogramSample
	floats  []record.RefFloatHistogramSample
}

func newFilter(s *Selection) *filter {
	return &filter{
		sel: s, known: refSet{}, selected: refSet{}, sampled: refSet{}, kinds: kinds{hists: refSet{}, floats: refSet{}},
		end:    wire.HeadEnd{MinTime: math.MaxInt64, MaxTime: math.MinInt64},
		newest: math.MinInt64, unclosed: -1,
		dec: record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler)),
	}
}

func (f *filter) size() int { return len(f.out) }

// take returns the selected records since the last call. They are valid until the next record
// is filtered.
func (f *filter) take() [][]byte {
	recs := make([][]byte, len(f.ends))
	start := 0
	for i, end := range f.ends {
		recs[i], start = f.out[start:end], end
	}
	f.out, f.ends = f.out[:0], f.ends[:0]
	return recs
}

// headEnd returns the counters for HeadEnd.
func (f *filter) headEnd() wire.HeadEnd {
	end := f.end
	for _, page := range f.sampled {
		end.Series += uint64(bitset(page[:]).count())
	}
	return end
}

// matching reports whether the selection has matchers.
func (f *filter) matching() bool { return len(f.sel.lists) > 0 }

// names reports whether the filter decodes series records and sets f.known.
func (f *filter) names() bool { return f.matching() || f.hashes != nil }

// keep sets f.out to out, to which the caller has appended one record.
func (f *filter) keep(out []byte) {
	f.out = out
	f.ends = append(f.ends, len(out))
}

// filter appends the selected part of a record to f.out. An error means that the record
// cannot be decoded.
func (f *filter) filter(rec []byte) (err error) {
	// The TSDB's decoders panic on some invalid records with valid checksums.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decode record of type %d: %v", rec[0], r)
		}
	}()
	switch kind := f.dec.Type(rec); kind {
	case record.Series:
		return f.series(rec)
	case record.Samples, record.SamplesV2:
		return f.floatSamples(rec, kind == record.SamplesV2)
	case record.HistogramSamples, record.CustomBucketsHistogramSamples, record.HistogramSamplesV2:
		return f.histograms(rec, kind == record.HistogramSamplesV2)
	case record.FloatHistogramSamples, record.CustomBucketsFloatHistogramSamples, record.FloatHistogramSamplesV2:
		return f.floatHistograms(rec, kind == record.FloatHistogramSamplesV2)
	case record.Tombstones:
		return f.tombstones(rec)
	case record.Unknown:
		if len(rec) > 0 {
			f.end.UnknownRecords++
		}
		return nil
	default:
		// Exemplars, metadata, markers of head chunks: a block does not have them.
		return nil
	}
}

// series keeps the records of selected series.
func (f *filter) series(rec []byte) error {
	if !f.names() {
		f.keep(append(f.out, rec...))
		return nil
	}
	all, err := f.dec.Series(rec, nil)
	if err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	kept := all[:0]
	for _, s := range all {
		f.known.set(uint64(s.Ref))
		if f.hashes != nil {
			f.hashes.set(uint64(s.Ref), s.Labels.Hash())
		}
		if f.sel.matches(s.Labels) {
			f.selected.set(uint64(s.Ref))
			kept = append(kept, s)
		} else {
			f.selected.clear(uint64(s.Ref)) // a server that starts with an empty log reuses refs
		}
	}
	if len(kept) > 0 {
		var enc record.Encoder
		f.keep(enc.Series(kept, f.out))
	}
	return nil
}

// wants counts a sample in f.end and reports whether it is selected.
func (f *filter) wants(ref uint64, t int64) bool {
	if t < f.from {
		return false
	}
	f.newest, f.oldest = max(f.newest, t), min(f.oldest, t)
	f.count(ref, t, t)
	if f.names() && !f.known.has(ref) {
		if t >= f.sel.MinTime && t <= f.sel.MaxTime || f.hashes != nil {
			f.end.UnknownSamples++
		}
		return false
	}
	if t < f.sel.MinTime || t > f.sel.MaxTime || f.matching() && !f.selected.has(ref) {
		return false
	}
	f.end.Samples++
	return true
}

// count records that a series has samples from from to to, in Unix milliseconds.
func (f *filter) count(ref uint64, from, to int64) {
	f.end.MinTime, f.end.MaxTime = min(f.end.MinTime, from), max(f.end.MaxTime, to)
	f.sampled.set(ref)
}

// floatSamples keeps the selected samples of a record, and stale markers as the kind that
// Prometheus stores.
func (f *filter) floatSamples(rec []byte, v2 bool) (err error) {
	if f.samples, err = f.dec.Samples(rec, f.samples[:0]); err != nil {
		return fmt.Errorf("decode samples: %w", err)
	}
	kept := f.samples[:0]
	stale := false
	for _, s := range f.samples {
		kind := f.kinds.float(uint64(s.Ref), s.V)
		if !f.wants(uint64(s.Ref), s.T) {
			continue
		}
		if kind != floatKind {
			f.staleHistogram(s, kind, v2)
			stale = true
			continue
		}
		kept = append(kept, s)
	}
	switch {
	case len(kept) == 0:
	case len(kept) == len(f.samples) && !stale:
		f.keep(append(f.out, rec...))
	default:
		enc := record.Encoder{EnableSTStorage: v2}
		f.keep(enc.Samples(kept, f.out))
	}
	return nil
}

// histograms keeps the selected histograms of a record.
func (f *filter) histograms(rec []byte, v2 bool) (err error) {
	clear(f.hists[:cap(f.hists)])
	if f.hists, err = f.dec.HistogramSamples(rec, f.hists[:0]); err != nil {
		return fmt.Errorf("decode histograms: %w", err)
	}
	kept := f.hists[:0]
	for _, s := range f.hists {
		f.kinds.hists.set(uint64(s.Ref))
		f.kinds.floats.clear(uint64(s.Ref))
		if f.wants(uint64(s.Ref), s.T) {
			kept = append(kept, s)
		}
	}
	switch {
	case len(kept) == 0:
	case len(kept) == len(f.hists):
		f.keep(append(f.out, rec...))
	default:
		f.encodeHistograms(kept, v2)
	}
	return nil
}

// encodeHistograms keeps histograms as one or two records: those with custom buckets have a
// record type of their own.
func (f *filter) encodeHistograms(kept []record.RefHistogramSample, v2 bool) {
	enc := record.Encoder{EnableSTStorage: v2}
	n := len(kept)
	out, custom := enc.HistogramSamples(kept, f.out)
	if len(custom) < n {
		f.keep(out)
	}
	if len(custom) > 0 {
		f.keep(enc.CustomBucketsHistogramSamples(custom, f.out))
	}
}

// floatHistograms keeps the selected float histograms of a record.
func (f *filter) floatHistograms(rec []byte, v2 bool) (err error) {
	clear(f.floats[:cap(f.floats)])
	if f.floats, err = f.dec.FloatHistogramSamples(rec, f.floats[:0]); err != nil {
		return fmt.Errorf("decode float histograms: %w", err)
	}
	kept := f.floats[:0]
	for _, s := range f.floats {
		f.kinds.floats.set(uint64(s.Ref))
		f.kinds.hists.clear(uint64(s.Ref))
		if f.wants(uint64(s.Ref), s.T) {
			kept = append(kept, s)
		}
	}
	switch {
	case len(kept) == 0:
	case len(kept) == len(f.floats):
		f.keep(append(f.out, rec...))
	default:
		f.encodeFloatHistograms(kept, v2)
	}
	return nil
}

// encodeFloatHistograms is like encodeHistograms.
func (f *filter) encodeFloatHistograms(kept []record.RefFloatHistogramSample, v2 bool) {
	enc := record.Encoder{EnableSTStorage: v2}
	n := len(kept)
	out, custom := enc.FloatHistogramSamples(kept, f.out)
	if len(custom) < n {
		f.keep(out)
	}
	if len(custom) > 0 {
		f.keep(enc.CustomBucketsFloatHistogramSamples(custom, f.out))
	}
}

// tombstones keeps the tombstones of the selected series, also those outside the time range:
// they are few, and they delete nothing there.
func (f *filter) tombstones(rec []byte) error {
	all, err := f.dec.Tombstones(rec, nil)
	if err != nil {
		return fmt.Errorf("decode tombstones: %w", err)
	}
	kept := all[:0]
	for _, s := range all {
		if !f.matching() || f.selected.has(uint64(s.Ref)) {
			kept = append(kept, s)
		}
	}
	if len(kept) > 0 {
		var enc record.Encoder
		f.keep(enc.Tombstones(kept, f.out))
	}
	return nil
}
