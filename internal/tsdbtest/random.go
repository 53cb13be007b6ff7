package tsdbtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/util/compression"

	"github.com/promdump/promdump/internal/wire"
)

// Random creates and fills a TSDB in dir. Its samples depend on seed and options only. The TSDB is open
// and is closed at the end of the test unless the caller closes it.
func Random(t testing.TB, dir string, seed uint64, opts Options) *TSDB {
	t.Helper()
	d := &TSDB{Dir: dir, opts: opts.withDefaults(), seed: seed}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close the random TSDB: %v", err)
		}
	})
	if err := d.fill(context.Background()); err != nil {
		t.Fatalf("fill a random TSDB (seed %d): %v", seed, err)
	}
	return d
}

// filler is the state of fill.
type filler struct {
	*TSDB
	r      *rand.Rand
	series []*series
	ticks  int
}

// fill simulates three runs of a server: the first compacts everything, the second finds an overlapping
// block and does not merge it, the third replays a log with a checkpoint, deletions and out-of-order
// samples.
func (d *TSDB) fill(ctx context.Context) error {
	f := &filler{TSDB: d, r: rand.New(rand.NewPCG(d.seed, 1))}
	f.ticks = int(d.opts.Duration / d.opts.Interval)
	for i := range d.opts.Series {
		f.series = append(f.series, newSeries(f.r, i, f.ticks, d.opts.Plain))
	}
	d.MinTime, d.MaxTime = f.time(0), f.time(f.ticks-1)
	d.Borders = []int64{d.MinTime, d.MaxTime}
	codecs := []compression.Type{compression.None, compression.Snappy, compression.Zstd}
	if d.opts.Plain {
		codecs = codecs[:2] // older versions do not support zstd
	}
	f.r.Shuffle(len(codecs), func(i, j int) { codecs[i], codecs[j] = codecs[j], codecs[i] })
	codecs = append(codecs, codecs...)

	// 8 h of 15: a block of 6 h and some of 2 h, with merged out-of-order blocks.
	first := f.ticks * 8 / 15
	if err := d.open(true, codecs[0]); err != nil {
		return err
	}
	if err := f.play(ctx, 0, first); err != nil {
		return err
	}
	if err := f.deleteSome(ctx, 0, first/2); err != nil {
		return err
	}
	if err := f.overlap(ctx); err != nil {
		return err
	}

	// Up to 2 h before the end. From here on blocks overlap.
	if err := d.open(false, codecs[1]); err != nil {
		return err
	}
	second := f.ticks * 13 / 15
	if err := f.play(ctx, first, second); err != nil {
		return err
	}
	// Not the samples of out-of-order head chunks: Prometheus keeps these chunks after compaction, and
	// serves deleted samples from them after a restart. The right result would not be defined.
	if to := f.oldest(); to > first {
		if err := f.deleteSome(ctx, first, to); err != nil {
			return err
		}
	}
	if err := d.Close(); err != nil {
		return err
	}

	if err := d.open(false, codecs[2]); err != nil {
		return err
	}
	if err := f.play(ctx, second, f.ticks); err != nil {
		return err
	}
	if err := f.deleteSome(ctx, second, f.ticks-1); err != nil {
		return err
	}
	// Deletions in blocks, after the last compaction, which would apply them.
	if err := f.deleteSome(ctx, 0, f.oldest()); err != nil {
		return err
	}
	if err := f.emptySeries(ctx); err != nil {
		return err
	}
	d.db.ForceHeadMMap()
	f.noteBorders()
	return nil
}

// oldest returns the last tick before all samples of the head, in order and out of order.
func (f *filler) oldest() int {
	oldest := min(f.db.Head().MinOOOTime(), f.db.Head().MinTime())
	return int((oldest-f.MinTime)/f.opts.Interval.Milliseconds()) - 1
}

func (f *filler) time(tick int) int64 {
	return f.opts.Start.UnixMilli() + int64(tick)*f.opts.Interval.Milliseconds()
}

// play appends the samples of the ticks [from, to) and compacts when a server would.
func (f *filler) play(ctx context.Context, from, to int) error {
	for tick := from; tick < to; tick++ {
		app := f.db.AppenderV2(ctx)
		for i, s := range f.series {
			if err := f.sample(app, i, s, tick); err != nil {
				return errors.Join(fmt.Errorf("append to %.100s: %w", s.labels, err), app.Rollback())
			}
		}
		if err := app.Commit(); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
		if tick%10 == 0 {
			if err := f.late(ctx, tick); err != nil {
				return err
			}
		}
		if f.time(tick)%(30*time.Minute).Milliseconds() == 0 {
			if err := f.compact(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *filler) append(app storage.AppenderV2, s *series, t int64, v float64, h *histogram.Histogram, fh *histogram.FloatHistogram) error {
	var st int64
	if f.opts.StartTimestamps && s.kind != gauge && !s.kind.isGauge() {
		st = s.start
	}
	_, err := app.Append(0, s.labels, st, t, v, h, fh, storage.AOptions{})
	return err
}

func (f *filler) sample(app storage.AppenderV2, i int, s *series, tick int) error {
	// Each series has an offset within the interval, like the scrapes of a target.
	t := f.time(tick) + int64(i*37)%f.opts.Interval.Milliseconds()
	f.MaxTime = max(f.MaxTime, t)
	late := tick > f.ticks/2
	switch {
	case tick < s.from || tick > s.to+1:
		return nil
	case tick == s.to+1:
		if s.kind == once || i >= 2*int(kinds) && i%3 == 0 {
			return nil // ends without a stale marker
		}
		v, h, fh := s.stale(late)
		return f.append(app, s, t, v, h, fh)
	case f.r.Float64() < s.gaps:
		return nil
	}
	v, h, fh := s.next(f.r, t, late)
	return f.append(app, s, t, v, h, fh)
}

// late appends out-of-order samples of up to 2.5 h ago, also before a series' first and after its last
// in-order sample.
func (f *filler) late(ctx context.Context, tick int) error {
	app := f.db.AppenderV2(ctx)
	seen := map[[2]int64]bool{}
	for range 8 {
		i := f.r.IntN(len(f.series))
		s := f.series[i]
		if s.kind == mixed || s.kind == once {
			continue // the TSDB serves one of two types at the same time
		}
		old := f.r.Int64N((150 * time.Minute).Milliseconds())
		t := f.time(tick) - old
		t -= t % f.opts.Interval.Milliseconds() // not the time of an in-order sample
		t += int64(i*37)%f.opts.Interval.Milliseconds() + 1 + f.r.Int64N(30)
		key := [2]int64{int64(i), t}
		if t < f.MinTime || t >= f.time(tick) || seen[key] {
			continue
		}
		seen[key] = true
		scratch := *s // a copy: the in-order counter continues
		v, h, fh := scratch.next(f.r, t, false)
		err := f.append(app, s, t, v, h, fh)
		if err != nil && !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
			return errors.Join(fmt.Errorf("append out of order to %.100s: %w", s.labels, err), app.Rollback())
		}
	}
	if err := app.Commit(); err != nil {
		return fmt.Errorf("commit out-of-order samples: %w", err)
	}
	return nil
}

// deleteSome deletes ranges of some series, and all samples of one series, between two ticks.
func (f *filler) deleteSome(ctx context.Context, from, to int) error {
	for n := range 4 {
		s := f.series[(n*5+f.r.IntN(5))%len(f.series)]
		if s.kind == once {
			s = f.series[0]
		}
		a := from + f.r.IntN(to-from)
		b := min(to, a+1+f.r.IntN(f.ticks/10))
		mint, maxt := f.time(a), f.time(b)
		if n == 0 {
			mint, maxt = f.time(from), f.time(to)
		}
		m := labels.MustNewMatcher(labels.MatchEqual, "i", s.labels.Get("i"))
		if err := f.db.Delete(ctx, mint, maxt, m); err != nil {
			return fmt.Errorf("delete: %w", err)
		}
		f.Borders = append(f.Borders, mint, maxt)
		f.HeadDeletions = append(f.HeadDeletions, Deletion{s.labels.Get("i"), mint, maxt})
	}
	return nil
}

// overlap closes the database and adds a block that overlaps its blocks: with new samples between theirs,
// and some of the same samples.
func (f *filler) overlap(ctx context.Context) (err error) {
	blocks := f.db.Blocks()
	if len(blocks) == 0 {
		return errors.New("no block yet")
	}
	mint := f.opts.Start.Add(time.Hour).UnixMilli()
	maxt := mint + (2 * time.Hour).Milliseconds()
	w, err := tsdb.NewBlockWriter(slog.New(slog.DiscardHandler), f.Dir, 3*blockRange.Milliseconds())
	if err != nil {
		return fmt.Errorf("overlapping block: %w", err)
	}
	defer func() {
		if e := w.Close(); err == nil {
			err = e
		}
	}()
	same, err := read(ctx, f.db, wire.Selection{MinTime: mint, MaxTime: maxt, Matchers: [][]wire.Matcher{{{Type: "=", Name: "i", Value: "0"}}}})
	if err != nil {
		return err
	}
	app := w.AppenderV2(ctx)
	first := f.series[0]
	for _, samples := range same {
		for _, s := range samples {
			if _, err := app.Append(0, first.labels, s.ST, s.T, math.Float64frombits(s.Value), nil, nil, storage.AOptions{}); err != nil {
				return errors.Join(err, app.Rollback())
			}
		}
	}
	for i, s := range f.series[1:20] {
		scratch := *s
		if s.kind == mixed || s.kind == once {
			continue
		}
		for t := mint + 31; t < maxt; t += 7 * f.opts.Interval.Milliseconds() {
			v, h, fh := scratch.next(f.r, t, false)
			if err := f.append(app, &scratch, t+int64((i+1)*37)%f.opts.Interval.Milliseconds(), v, h, fh); err != nil {
				return errors.Join(fmt.Errorf("append to the overlapping block: %w", err), app.Rollback())
			}
		}
	}
	if err := app.Commit(); err != nil {
		return err
	}
	if _, err := w.Flush(ctx); err != nil {
		return fmt.Errorf("overlapping block: %w", err)
	}
	return f.Close()
}

// emptySeries adds series without samples to the head: one by a rollback, one by a deletion.
func (f *filler) emptySeries(ctx context.Context) error {
	app := f.db.AppenderV2(ctx)
	if _, err := app.Append(0, labels.FromStrings("__name__", "never", "i", "never"), 0, f.MaxTime, 1, nil, nil, storage.AOptions{}); err != nil {
		return err
	}
	if err := app.Rollback(); err != nil {
		return err
	}
	app = f.db.AppenderV2(ctx)
	if _, err := app.Append(0, labels.FromStrings("__name__", "deleted", "i", "deleted"), 0, f.MaxTime, 1, nil, nil, storage.AOptions{}); err != nil {
		return err
	}
	if err := app.Commit(); err != nil {
		return err
	}
	return f.db.Delete(ctx, f.MinTime, f.MaxTime, labels.MustNewMatcher(labels.MatchEqual, "i", "deleted"))
}

func (f *filler) noteBorders() {
	for _, b := range f.db.Blocks() {
		f.Borders = append(f.Borders, b.Meta().MinTime, b.Meta().MaxTime)
	}
	f.Borders = append(f.Borders, f.db.Head().MinTime(), f.db.Head().MinOOOTime())
	slices.Sort(f.Borders)
	f.Borders = slices.DeleteFunc(slices.Compact(f.Borders), func(t int64) bool { return t < f.MinTime-1000 || t > f.MaxTime+2*blockRange.Milliseconds() })
}
