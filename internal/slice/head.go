package slice

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"math"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/record"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// Head tells the selected records of the head: HeadStart, Records, HeadEnd. It
// stops early without an error when tell gives false.
//
// A record of which everything is selected goes out as it is; another one is
// written anew with what is selected of it. All series records of selected
// series are told, whatever the times: only the log's reader at home can know
// which are in use.
func Head(ctx context.Context, h *datadir.Head, s *Selection, tell func(wire.Message) bool) error {
	f := newFilter(s)
	if !tell(&wire.HeadStart{MinTime: s.MinTime, MaxTime: s.MaxTime}) {
		return nil
	}
	logs := []struct {
		log   wire.Log
		from  int64
		batch iter.Seq2[[]byte, error]
	}{
		{wire.WAL, h.MinValidTime, h.Records(ctx)},
		// An out-of-order sample may be older than every block.
		{wire.WBL, math.MinInt64, h.OutOfOrderRecords(ctx)},
	}
	for _, l := range logs {
		msg := wire.Records{Log: l.log}
		f.from = l.from
		for rec, err := range l.batch {
			if err != nil {
				return fmt.Errorf("read head: %w", err)
			}
			if err := f.filter(rec); err != nil {
				return fmt.Errorf("read head: %w", err)
			}
			if f.size() < messageSize {
				continue
			}
			if msg.Records = f.take(); !tell(&msg) {
				return nil
			}
		}
		if msg.Records = f.take(); len(msg.Records) > 0 && !tell(&msg) {
			return nil
		}
	}
	end := f.end()
	tell(&end)
	return nil
}

// HeadInventory reads what the head holds beyond the blocks.
func HeadInventory(ctx context.Context, h *datadir.Head) (wire.HeadInventory, error) {
	inv := wire.HeadInventory{Bytes: h.Bytes()}
	// Nothing is told, but everything is seen.
	s := &Selection{MinTime: math.MaxInt64, MaxTime: math.MinInt64}
	err := Head(ctx, h, s, func(m wire.Message) bool {
		if end, ok := m.(*wire.HeadEnd); ok {
			inv.MinTime, inv.MaxTime, inv.Series = end.MinTime, end.MaxTime, end.Series
		}
		return true
	})
	return inv, err
}

// filter keeps what is selected of records, in out.
type filter struct {
	sel  *Selection
	from int64 // samples before this time are in a block

	selected refSet // series that the matchers take; unused without matchers
	sampled  refSet // series with a sample
	kinds    kinds
	min, max int64 // of all samples that count
	told     uint64

	// countOnly tells nothing, so what it does not know it does not lose.
	countOnly bool

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
		sel: s, selected: refSet{}, sampled: refSet{}, kinds: kinds{hists: refSet{}, floats: refSet{}},
		min: math.MaxInt64, max: math.MinInt64,
		countOnly: s.MinTime > s.MaxTime,
		dec:       record.NewDecoder(labels.NewSymbolTable(), slog.New(slog.DiscardHandler)),
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

func (f *filter) end() wire.HeadEnd {
	var series uint64
	for _, page := range f.sampled {
		series += uint64(bitset(page[:]).count())
	}
	return wire.HeadEnd{MinTime: f.min, MaxTime: f.max, Series: series, Samples: f.told}
}

func (f *filter) matching() bool { return len(f.sel.lists) > 0 }

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
		if len(rec) > 0 && !f.countOnly {
			return fmt.Errorf("a record has the kind %d, which this promdump does not know (--head=raw takes the log as it is)", rec[0])
		}
		return nil
	default:
		// Exemplars, metadata, markers of head chunks: nothing that a block holds.
		return nil
	}
}

func (f *filter) series(rec []byte) error {
	if !f.matching() {
		f.keep(append(f.out, rec...))
		return nil
	}
	all, err := f.dec.Series(rec, nil)
	if err != nil {
		return fmt.Errorf("decode series: %w", err)
	}
	kept := all[:0]
	for _, s := range all {
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

// wants counts a sample and tells whether it is selected.
func (f *filter) wants(ref uint64, t int64) bool {
	if t < f.from {
		return false
	}
	f.min, f.max = min(f.min, t), max(f.max, t)
	f.sampled.set(ref)
	if t < f.sel.MinTime || t > f.sel.MaxTime || f.matching() && !f.selected.has(ref) {
		return false
	}
	f.told++
	return true
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
