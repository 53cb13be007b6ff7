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

// Head reads the selected part of the head: HeadStart, HeadChunks, Records,
// HeadEnd. It stops early without an error when send returns false.
//
// A chunk that overlaps the selection is sent as it is stored. A record is sent
// unchanged if everything in it is selected; otherwise it is encoded again with the
// selected part. All series records of selected series are sent, whatever the times:
// which series have samples is known only at the end.
//
// Damaged parts of the files are left out and reported in HeadEnd. An error comes from
// the disk or the context.
func Head(ctx context.Context, h *datadir.Head, s *Selection, send func(wire.Message) bool) error {
	f := newFilter(s)
	if err := f.read(ctx, h, send); err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("read head: %w", err)
	}
	return nil
}

func (f *filter) read(ctx context.Context, h *datadir.Head, send func(wire.Message) bool) error {
	say := func(m wire.Message) error {
		if !send(m) {
			return errStop
		}
		return nil
	}
	if err := say(&wire.HeadStart{MinTime: f.sel.MinTime, MaxTime: f.sel.MaxTime}); err != nil {
		return err
	}
	f.from = h.MinValidTime
	if f.names() {
		// Only the log says which series a chunk belongs to.
		if err := f.findSeries(ctx, h); err != nil {
			return err
		}
	}
	if err := f.chunks(ctx, h, say); err != nil {
		return err
	}
	if err := f.records(h.Records(ctx, f.damaged), wire.WAL, say); err != nil {
		return err
	}
	f.from = math.MinInt64 // an out-of-order sample may be older than every block
	if err := f.records(h.OutOfOrderRecords(ctx, f.damaged), wire.WBL, say); err != nil {
		return err
	}
	end := f.headEnd()
	return say(&end)
}

func (f *filter) records(log iter.Seq2[[]byte, error], name wire.Log, say func(wire.Message) error) error {
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
		if err := say(&msg); err != nil {
			return err
		}
	}
	if msg.Records = f.take(); len(msg.Records) > 0 {
		return say(&msg)
	}
	return nil
}

// HeadInventory reads what the head holds beyond the blocks.
func HeadInventory(ctx context.Context, h *datadir.Head) (wire.HeadInventory, error) {
	// Nothing is selected, but everything is read.
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

// filter keeps what is selected of records, in out.
type filter struct {
	sel  *Selection
	from int64 // samples before this time are in a block

	known    refSet    // series that have a record; unused without matchers
	selected refSet    // series that the matchers select
	sampled  refSet    // series with a sample
	hashes   refHashes // of the labels of each series; nil: not needed
	kinds    kinds
	end      wire.HeadEnd

	newest   int64 // sample of the current log; math.MinInt64: none yet
	oldest   int64 // since the last damage; math.MaxInt64: none yet
	unclosed int   // index of the first entry in end.Damage without a time after it; -1: none

	out  []byte
	ends []int // where each record in out ends

	// Reused from record to record.
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

// take gives the records kept so far, valid until the next one is filtered.
func (f *filter) take() [][]byte {
	recs := make([][]byte, len(f.ends))
	start := 0
	for i, end := range f.ends {
		recs[i], start = f.out[start:end], end
	}
	f.out, f.ends = f.out[:0], f.ends[:0]
	return recs
}

func (f *filter) headEnd() wire.HeadEnd {
	end := f.end
	for _, page := range f.sampled {
		end.Series += uint64(bitset(page[:]).count())
	}
	return end
}

func (f *filter) matching() bool { return len(f.sel.lists) > 0 }

// names reports whether series records are decoded, so that the refs with a record are
// known.
func (f *filter) names() bool { return f.matching() || f.hashes != nil }

// keep takes what an encoder appended to f.out as one record.
func (f *filter) keep(out []byte) {
	f.out = out
	f.ends = append(f.ends, len(out))
}

func (f *filter) filter(rec []byte) (err error) {
	// The library's decoders trust what has a right checksum.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("decode record of kind %d: %v", rec[0], r)
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
		// Exemplars, metadata, markers of head chunks: nothing that a block holds.
		return nil
	}
}

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
			f.selected.clear(uint64(s.Ref)) // refs begin anew after a restart with an empty log
		}
	}
	if len(kept) > 0 {
		var enc record.Encoder
		f.keep(enc.Series(kept, f.out))
	}
	return nil
}

// wants counts a sample and reports whether it is selected.
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

// count counts samples of a series between two times.
func (f *filter) count(ref uint64, from, to int64) {
	f.end.MinTime, f.end.MaxTime = min(f.end.MinTime, from), max(f.end.MaxTime, to)
	f.sampled.set(ref)
}

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

// tombstones go out whatever their times: there are few, and what they delete
// is cut to the selection anyway.
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
