// Package dump assembles what a source tells into a dump file.
//
// Raw files go straight into the archive. The series of a cut block and the
// head's records become blocks in a staging directory first, because a tar says
// how long a file is before it says what is in it. The staging directory needs
// as much space as those blocks, never that of whole ones.
//
// Nothing is written before there is something to write: a selection that takes
// nothing is an [EmptyError], and the output stays empty.
//
// What is not promised: that the output is worth anything after an error. Who
// gave the writer removes or marks what was written; without its digests a
// reader takes it for what it is, incomplete.
package dump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/wire"
)

// Spec says what dump is written, and how.
type Spec struct {
	Request     wire.Request
	Source      archive.Source // for the manifest
	Selectors   []string       // the request's matchers as PromQL, for the manifest
	Compression archive.Compression
	Staging     string    // an existing directory for temporary files
	Tool        string    // name and version of this program, for the manifest
	Now         time.Time // time of the dump, for the manifest and the files' times
	Progress    func(Progress)
	Logger      *slog.Logger

	// Lasting leaves what was written readable after an error, so that the next dump can
	// resume it as Kept.
	Lasting bool

	// Kept is the unfinished dump to resume. The output holds it, and must be an
	// [archive.Rewinder]. Request.Selection, Head and WholeBlocks must be those of its
	// manifest; its compression and time are taken.
	Kept *Kept
}

// Progress is how far a dump is, in bytes.
type Progress struct {
	Read, Total int64 // of the plan; an estimate where blocks are cut
	Written     int64 // to the output

	Part, Parts int // cut blocks, of a server its windows: done, and in the plan
}

// Report is what a dump holds.
type Report struct {
	Plan         *wire.Plan
	Blocks       int
	Series       uint64   // distinct ones of all blocks
	SeriesSummed bool     // Series is a sum over the blocks, because an index could not be read
	Samples      uint64   // of the blocks; a raw head's are not counted
	LeftOut      []string // selected data that cannot be read, one sentence each; the plan's notes have them too
	RawHead      bool
	Head         HeadReport
	BytesRead    int64
	BytesWritten int64 // of the dump, with those that were reused
	Reused       int64 // bytes of an unfinished dump
	ReusedBlocks int
	Elapsed      time.Duration
}

// EmptyError says that the selection takes nothing of what the source holds.
// The head's times are of its samples; HeadMin > HeadMax: it has none, or was
// not read.
type EmptyError struct {
	Plan             *wire.Plan
	HeadMin, HeadMax int64 // Unix milliseconds, both included
	Head             HeadReport
}

func (e *EmptyError) Error() string { return "nothing is selected" }

// ErrUnfinished says that a source stopped telling before it was done.
var ErrUnfinished = errors.New("the source stopped before its end")

// ReadPlan asks the source what it would tell.
func ReadPlan(ctx context.Context, src source.Source, req wire.Request) (*wire.Plan, error) {
	req.Version, req.PlanOnly = wire.Version, true
	for msg, err := range src.Read(ctx, req) {
		if err != nil {
			return nil, err
		}
		if p, ok := msg.(*wire.Plan); ok {
			return p, nil
		}
		break
	}
	return nil, fmt.Errorf("read plan of %s: %w", src, ErrUnfinished)
}

// Write reads the source and writes the dump to w.
func Write(ctx context.Context, src source.Source, spec Spec, w io.Writer) (report Report, err error) {
	start := time.Now()
	if spec.Logger == nil {
		spec.Logger = slog.New(slog.DiscardHandler)
	}
	staging, err := os.MkdirTemp(spec.Staging, ".promdump-")
	if err != nil {
		return report, fmt.Errorf("make staging directory: %w", err)
	}
	a := &assembler{
		ctx: ctx, src: src, spec: spec, staging: staging, count: &counter{w: w}, series: block.NewSeriesCounter(),
		noted:   map[string]bool{},
		headEnd: wire.HeadEnd{MinTime: math.MaxInt64, MaxTime: math.MinInt64},
	}
	defer func() {
		err = errors.Join(err, a.close())
		report = a.report
		report.BytesRead, report.BytesWritten, report.Elapsed = a.read, a.count.n.Load(), time.Since(start)
	}()
	spec.Request.Version = wire.Version
	if spec.Kept != nil {
		spec.Request.Resume = &wire.Resume{Have: spec.Kept.have()}
	}
	for msg, err := range src.Read(ctx, spec.Request) {
		if err != nil {
			return report, err
		}
		if err := a.take(msg); err != nil {
			return report, err
		}
	}
	return report, a.finish()
}

// assembler turns a story into an archive.
type assembler struct {
	ctx     context.Context
	src     source.Source
	spec    Spec
	staging string
	count   *counter
	out     *archive.Writer // nil until there is something to write
	group   string          // of the files that are written now: a block, or empty
	noted   map[string]bool // notes that are in the manifest
	done    bool            // End was told
	report  Report

	cutting string // ULID of the block that is cut
	cut     *block.Builder
	head    *block.HeadBuilder
	series  *block.SeriesCounter

	headEnd    wire.HeadEnd
	tent       tentative
	base, read int64 // bytes of the plan: when the current part began, and now
	parts      int   // of the plan, done
}

// take takes one message of the story.
func (a *assembler) take(msg wire.Message) error {
	if _, ok := msg.(*wire.Plan); !ok && a.report.Plan == nil {
		return errors.New("the source did not begin with its plan")
	}
	if err := a.settle(msg); err != nil {
		return err
	}
	switch m := msg.(type) {
	case *wire.Plan:
		// A second one has more blocks, after a stream that broke.
		plan := *m
		if a.report.Plan == nil && a.spec.Kept != nil {
			now := archive.Source{Kind: a.kind(), Name: a.spec.Source.Name}
			if err := a.spec.Kept.check(now, m); err != nil {
				return err
			}
		}
		a.report.Plan = &plan
	case *wire.Forget:
		return a.forget(m.ULID)
	case *wire.File:
		if m.Tentative {
			return a.tentativeFile(m)
		}
		return a.file(&wire.File{Name: m.Name, Size: m.Size, Body: &reading{a, m.Body}})
	case *wire.BlockStart, *wire.Symbols, *wire.Series, *wire.BlockEnd:
		if err := a.block(m); err != nil {
			return fmt.Errorf("cut block %s: %w", a.cutting, err)
		}
	case *wire.HeadStart, *wire.HeadChunks, *wire.Records, *wire.HeadEnd:
		if err := a.headPart(m); err != nil {
			return fmt.Errorf("make blocks of the head: %w", err)
		}
	case *wire.End:
		a.done = true
	default:
		return fmt.Errorf("the source told something unknown: %T", msg)
	}
	return nil
}

// file writes a file whose body counts what is read of it.
func (a *assembler) file(m *wire.File) error {
	w, err := a.writer()
	if err != nil {
		return err
	}
	if group, _, _ := strings.Cut(m.Name, "/"); !isHeadFile(m.Name) && group != a.group {
		if err := a.begin(group); err != nil {
			return err
		}
	}
	body, done := a.counted(m.Name, m.Body, a.plannedSeries)
	defer done()
	if err := w.File(m.Name, m.Size, body); err != nil {
		return fmt.Errorf("write %s to the dump: %w", m.Name, err)
	}
	a.base = a.read
	if ulid, ok := strings.CutSuffix(m.Name, "/meta.json"); ok {
		a.countWhole(ulid)
	} else if dir, _, _ := strings.Cut(m.Name, "/"); dir == "wal" || dir == "wbl" || dir == "chunks_head" {
		a.report.RawHead = true
	}
	return nil
}

// counted copies the bytes of a block's index to the series counter.
func (a *assembler) counted(name string, body io.Reader, series func(ulid string) uint64) (_ io.Reader, done func()) {
	ulid, ok := strings.CutSuffix(name, "/index")
	if !ok {
		return body, func() {}
	}
	i := a.series.Index(series(ulid))
	return io.TeeReader(body, i), i.Done
}

func (a *assembler) plannedSeries(ulid string) uint64 {
	for _, b := range a.report.Plan.Blocks {
		if b.ULID == ulid {
			return b.Series
		}
	}
	return 0
}

func (a *assembler) countWhole(ulid string) {
	for _, b := range a.report.Plan.Blocks {
		if b.ULID == ulid {
			a.report.Blocks++
			a.report.Series += b.Series
			a.report.Samples += b.Samples
		}
	}
}

func (a *assembler) block(msg wire.Message) (err error) {
	if start, ok := msg.(*wire.BlockStart); ok {
		if a.cut != nil {
			return fmt.Errorf("another one begins within it: %s", start.ULID)
		}
		a.cutting = start.ULID
		a.cut, err = block.NewBuilder(block.Spec{
			Parent: a.staging, MinTime: start.MinTime, MaxTime: start.MaxTime, Selected: start.Selected, Origin: start.ULID, Hints: start.Hints,
		})
		return err
	}
	if a.cut == nil {
		return fmt.Errorf("%T is told outside of a block", msg)
	}
	switch m := msg.(type) {
	case *wire.Symbols:
		return a.cut.Symbols(m)
	case *wire.Series:
		var n int64
		for _, c := range m.Chunks {
			n += int64(len(c.Data))
		}
		a.advance(n, a.planned(a.cutting))
		return a.cut.Series(m)
	case *wire.BlockEnd:
		built, err := a.cut.Finish(a.ctx)
		if err != nil {
			return err
		}
		lossy := a.leaveOut(a.cut.Lost(), m)
		a.cut = nil
		a.finishPart(a.planned(a.cutting))
		return a.add(built, origin{ULID: a.cutting, Sources: a.plannedSources(a.cutting), Lossy: lossy})
	}
	return nil
}

// leaveOut adds a note on the data that a cut block lacks because of damage. It reports
// whether there is any.
func (a *assembler) leaveOut(lost block.Lost, end *wire.BlockEnd) bool {
	var notes []string
	if n := lost.Chunks; n > 0 {
		s := fmt.Sprintf("damaged chunks of block %s are left out (%d): %s", a.cutting, n, strings.Join(lost.First, "; "))
		if n -= len(lost.First); n > 0 {
			s += fmt.Sprintf("; and %d more", n)
		}
		notes = append(notes, s)
	}
	if lost.Labels > 0 {
		notes = append(notes, fmt.Sprintf("series of block %s have a label twice, of which the last is kept (%d): %s",
			a.cutting, lost.Labels, lost.Twice))
	}
	if end.Unread > 0 {
		notes = append(notes, fmt.Sprintf("damaged series of block %s are left out (%d): %.300s",
			a.cutting, end.Unread, end.Reason))
	}
	a.report.LeftOut = append(a.report.LeftOut, notes...)
	a.report.Plan.Notes = append(a.report.Plan.Notes, notes...)
	return len(notes) > 0
}

func (a *assembler) headPart(msg wire.Message) (err error) {
	if start, ok := msg.(*wire.HeadStart); ok {
		if a.head != nil {
			return errors.New("it begins twice")
		}
		a.head, err = block.NewHeadBuilder(block.HeadSpec{Parent: a.staging, MinTime: start.MinTime, MaxTime: start.MaxTime})
		return err
	}
	if a.head == nil {
		return fmt.Errorf("%T is told outside of the head", msg)
	}
	switch m := msg.(type) {
	case *wire.HeadChunks:
		var n int64
		for _, c := range m.Chunks {
			n += int64(len(c.Data))
		}
		a.advance(n, a.report.Plan.Head.Bytes)
		return a.head.Chunks(m)
	case *wire.Records:
		var n int64
		for _, r := range m.Records {
			n += int64(len(r))
		}
		a.advance(n, a.report.Plan.Head.Bytes)
		return a.head.Records(m)
	case *wire.HeadEnd:
		built, err := a.head.Finish(a.ctx)
		if err != nil {
			return err
		}
		a.headEnd = *m
		a.report.Head = newHeadReport(m, a.head.Ignored())
		a.head = nil
		a.finishPart(a.report.Plan.Head.Bytes)
		for _, b := range built {
			if err := a.add(b, origin{ULID: headOrigin}); err != nil {
				return err
			}
		}
	}
	return nil
}

// forget drops what was begun, before it is told again.
func (a *assembler) forget(ulid string) (err error) {
	switch {
	case a.tent.some && ulid == a.tent.place:
		return a.takeBack()
	case ulid == "" && a.head != nil:
		err, a.head = a.head.Discard(), nil
	case ulid != "" && a.cut != nil && ulid == a.cutting:
		err, a.cut = a.cut.Discard(), nil
	}
	a.read = a.base
	return err
}

// add writes a block that was built of origin, and removes it from the staging
// directory.
func (a *assembler) add(b *block.Built, of origin) error {
	if b == nil {
		return nil
	}
	ulid := b.Meta.ULID.String()
	a.spec.Logger.Debug("built block", "ulid", ulid, "origin", of.ULID, "series", b.Meta.Stats.NumSeries, "samples", b.Meta.Stats.NumSamples)
	w, err := a.writer()
	if err != nil {
		return err
	}
	files, err := a.signed(b, of)
	if err != nil {
		return fmt.Errorf("write block %s to the dump: %w", ulid, err)
	}
	if err := a.begin(ulid); err != nil {
		return err
	}
	for _, f := range files {
		if err := a.addFile(w, b, f); err != nil {
			return fmt.Errorf("write block %s to the dump: %w", ulid, err)
		}
	}
	a.report.Blocks++
	a.report.Series += b.Meta.Stats.NumSeries
	a.report.Samples += b.Meta.Stats.NumSamples
	return os.RemoveAll(b.Dir)
}

func (a *assembler) addFile(w *archive.Writer, b *block.Built, f block.File) error {
	in, err := os.Open(filepath.Join(b.Dir, filepath.FromSlash(f.Name)))
	if err != nil {
		return err
	}
	defer in.Close()
	name := b.Meta.ULID.String() + "/" + f.Name
	body, done := a.counted(name, &cancelling{a.ctx, in}, func(string) uint64 { return b.Meta.Stats.NumSeries })
	defer done()
	return w.File(name, f.Size, body)
}

// writer begins the dump at the first thing to write.
func (a *assembler) writer() (*archive.Writer, error) {
	if a.out != nil {
		return a.out, nil
	}
	if a.spec.Kept != nil {
		w, err := a.reopen()
		a.out = w
		return w, err
	}
	w, err := archive.NewWriter(a.count.output(), archive.Options{Compression: a.spec.Compression, ModTime: a.spec.Now})
	if err != nil {
		return nil, err
	}
	a.out = w
	for _, n := range a.report.Plan.Notes {
		a.noted[n] = true
	}
	return w, w.Manifest(a.manifest())
}

// begin begins the files of a block. The dump can be gone on with from there.
func (a *assembler) begin(group string) error {
	a.group = group
	_, err := a.out.Mark()
	return err
}

func (a *assembler) finish() error {
	switch {
	case !a.done, a.cut != nil, a.head != nil, a.tent.cut:
		return ErrUnfinished
	case a.out == nil && a.spec.Kept != nil && len(a.spec.Kept.Blocks) > 0:
		if _, err := a.writer(); err != nil {
			return err
		}
	case a.out == nil:
		return &EmptyError{Plan: a.report.Plan, HeadMin: a.headEnd.MinTime, HeadMax: a.headEnd.MaxTime, Head: a.report.Head}
	}
	err := errors.Join(a.out.Notes(a.newNotes()), a.out.Close())
	a.out = nil
	if n, exact := a.series.Count(); exact {
		a.report.Series = n
	} else {
		a.report.SeriesSummed = true
	}
	a.tell()
	return err
}

// close removes what is left of the work, done or not.
func (a *assembler) close() error {
	var err error
	switch {
	case a.out != nil && a.spec.Lasting:
		err = a.out.Suspend()
	case a.out != nil:
		a.out.Abort()
	}
	if a.cut != nil {
		err = errors.Join(err, a.cut.Discard())
	}
	if a.head != nil {
		err = errors.Join(err, a.head.Discard())
	}
	return errors.Join(err, os.RemoveAll(a.staging))
}
