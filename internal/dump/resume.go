package dump

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/wire"
)

// Kept is what an unfinished dump has: the complete blocks at its beginning. What
// follows them is read again: blocks that are not complete, those that lack damaged
// data (its notes are lost), and the head, which has moved on.
type Kept struct {
	Manifest    archive.Manifest
	Compression archive.Compression
	Blocks      []KeptBlock
	Size        int64 // bytes of the unfinished dump
	Bytes       int64 // of it that are kept

	partial *archive.Partial
	entries int // that are kept; 0: not even the manifest
	series  *block.SeriesCounter
}

// KeptBlock is a block that the unfinished dump has all files of.
type KeptBlock struct {
	ULID            string   // of the source's block, or window of a server
	Sources         []string // ULIDs of what that was compacted of
	Series, Samples uint64

	end int // entries of the dump up to here
}

// origin is the part of meta.json that says of what a block was built. Prometheus
// ignores it.
type origin struct {
	Created time.Time `json:"created"` // of the dump: a block may have come from another one
	ULID    string    `json:"ulid"`    // of the source's block; headOrigin
	Sources []string  `json:"sources,omitempty"`
	Lossy   bool      `json:"lossy,omitempty"` // damaged data is left out
}

const headOrigin = "head"

// ReadKept reads an unfinished dump. It returns [archive.ErrIncomplete] if the dump does
// not even say what was asked for.
func ReadKept(r io.Reader) (*Kept, error) {
	s := &keptScan{series: block.NewSeriesCounter()}
	p, err := archive.ReadPartial(r, s.file)
	if err != nil {
		return nil, err
	}
	s.manifest = p.Manifest
	k := &Kept{Manifest: p.Manifest, Compression: p.Compression, Size: p.Size, partial: p, series: s.series, entries: 1}
	if p.Compression != archive.None && s.now != nil && s.whole(p) {
		s.next(p.Entries())
	}
	s.keep(k)
	k.Bytes, _ = p.End(k.entries)
	return k, nil
}

// keptScan finds the complete blocks of an unfinished dump.
type keptScan struct {
	manifest archive.Manifest
	series   *block.SeriesCounter
	now      *scanned
	done     []*scanned
	stopped  bool // what is not a block has begun
}

// scanned is a block of an unfinished dump.
type scanned struct {
	ulid   string
	bytes  int64
	end    int // entries of the dump up to its end
	count  *block.SeriesCounter
	index  *block.IndexCounter
	meta   *scannedMeta
	broken bool
}

type scannedMeta struct {
	Stats      struct{ NumSamples, NumSeries uint64 }
	Compaction struct{ Sources []string }
	Promdump   *origin
}

// file takes the next entry of the dump.
func (s *keptScan) file(n int, e archive.Entry, body io.Reader) error {
	group, name, _ := strings.Cut(e.Name, "/")
	if s.now != nil && s.now.ulid != group {
		s.next(n)
	}
	if isHeadFile(e.Name) || s.stopped {
		s.stopped = true
		return nil
	}
	if s.now == nil {
		s.now = &scanned{ulid: group, count: s.series.Fork()}
	}
	b := s.now
	switch name {
	case "meta.json":
		text, err := io.ReadAll(body)
		if err != nil {
			return err
		}
		b.meta = &scannedMeta{}
		b.broken = b.broken || json.Unmarshal(text, b.meta) != nil
	case "index":
		b.index = b.count.Index(0)
		if _, err := io.Copy(b.index, body); err != nil {
			return err
		}
	default:
		if _, err := io.Copy(io.Discard, body); err != nil {
			return err
		}
	}
	b.bytes += e.Size
	return nil
}

// next is called where something follows the block: it is complete then.
func (s *keptScan) next(n int) {
	if s.now.index != nil && s.now.meta != nil {
		s.now.index.DoneWith(s.now.meta.Stats.NumSeries)
		s.now.index = nil
	}
	s.now.end = n
	s.done = append(s.done, s.now)
	s.now = nil
}

// whole reports whether the last block is complete, though nothing follows it.
func (s *keptScan) whole(p *archive.Partial) bool {
	if s.now.meta == nil || s.now.broken {
		return false
	}
	if o := s.origin(s.now.meta); o != nil {
		return true // meta.json is the last of its files
	}
	return slices.ContainsFunc(p.Manifest.Plan.Blocks, func(b archive.PlannedBlock) bool {
		return b.ULID == s.now.ulid && b.Action == string(wire.Whole) && b.Bytes == s.now.bytes
	})
}

// origin is nil for a block that was copied as it was.
func (s *keptScan) origin(m *scannedMeta) *origin {
	if o := m.Promdump; o != nil && o.Created.Equal(s.manifest.Created) {
		return o
	}
	return nil
}

// keep takes the blocks from the first to the last that can be kept.
func (s *keptScan) keep(k *Kept) {
	for _, b := range s.done {
		if b.meta == nil || b.broken {
			break
		}
		kept := KeptBlock{ULID: b.ulid, Sources: b.meta.Compaction.Sources, Series: b.meta.Stats.NumSeries, Samples: b.meta.Stats.NumSamples, end: b.end}
		if o := s.origin(b.meta); o != nil {
			if o.Lossy || o.ULID == headOrigin {
				break
			}
			kept.ULID, kept.Sources = o.ULID, o.Sources
		}
		k.Blocks = append(k.Blocks, kept)
	}
	for n := len(k.Blocks); n > 0; n-- {
		if _, ok := k.partial.End(k.Blocks[n-1].end); ok {
			k.entries = k.Blocks[n-1].end
			break
		}
		k.Blocks = k.Blocks[:n-1]
	}
	if _, ok := k.partial.End(k.entries); !ok {
		k.entries = 0
	}
	for _, b := range s.done[:len(k.Blocks)] {
		s.series.Merge(b.count)
	}
}

func isHeadFile(name string) bool {
	dir, _, _ := strings.Cut(name, "/")
	return dir == "wal" || dir == "wbl" || dir == "chunks_head"
}

// OtherError refuses to resume the dump of other data. The output is as it was.
type OtherError struct {
	Began, Now archive.Source
}

func (e *OtherError) Error() string {
	return fmt.Sprintf("the unfinished dump is of other data: of %s (%s), and this is %s (%s)", e.Began.Name, e.Began.Kind, e.Now.Name, e.Now.Kind)
}

// check returns an [OtherError] if the source has other data than the unfinished dump.
// The name of a source does not prove anything: a pod that was replaced has another
// name, and pods in two clusters may have the same one. Blocks do.
func (k *Kept) check(now archive.Source, plan *wire.Plan) error {
	began := k.Manifest.Source
	known := map[string]bool{}
	for _, b := range k.Manifest.Plan.Blocks {
		known[b.ULID] = true
	}
	for _, b := range k.Blocks {
		for _, s := range append(b.Sources, b.ULID) {
			known[s] = true
		}
	}
	same := began.Name == now.Name
	switch windows := began.Kind == remoteRead; {
	case windows != (now.Kind == remoteRead):
		same = len(k.Blocks) == 0
	case !windows && slices.ContainsFunc(plan.Blocks, func(b wire.PlannedBlock) bool {
		return known[b.ULID] || slices.ContainsFunc(b.Sources, func(s string) bool { return known[s] })
	}):
		same = true
	case !windows && len(k.Blocks) > 0:
		same = false
	}
	if !same {
		return &OtherError{Began: began, Now: now}
	}
	return nil
}

func (k *Kept) have() (all []wire.Block) {
	for _, b := range k.Blocks {
		all = append(all, wire.Block{ULID: b.ULID, Sources: b.Sources})
	}
	return all
}

// remoteRead is the kind of the source whose blocks are windows of time.
const remoteRead = "remote-read"

// reopen cuts the output to what is kept and returns a writer that appends to it.
func (a *assembler) reopen() (*archive.Writer, error) {
	k := a.spec.Kept
	out, ok := a.count.output().(archive.Rewinder)
	if !ok {
		return nil, errors.New("resume the dump: the output cannot be truncated")
	}
	for _, b := range k.Blocks {
		a.report.Blocks++
		a.report.Series += b.Series
		a.report.Samples += b.Samples
	}
	a.series = k.series
	a.report.Reused, a.report.ReusedBlocks = k.Bytes, len(k.Blocks)
	for _, n := range k.Manifest.Plan.Notes {
		a.noted[n] = true
	}
	if k.entries > 0 {
		return k.partial.Resume(out, k.entries, 0)
	}
	if err := out.Rewind(0); err != nil {
		return nil, fmt.Errorf("go on with the unfinished dump: %w", err)
	}
	w, err := archive.NewWriter(out, archive.Options{Compression: k.Compression, ModTime: k.Manifest.Created})
	if err != nil {
		return nil, err
	}
	return w, w.Manifest(k.Manifest)
}

// kind is that of the source, which may be decided while it is read.
func (a *assembler) kind() string {
	if k, ok := a.src.(interface{ Kind() string }); ok {
		return k.Kind()
	}
	return a.spec.Source.Kind
}

// created is the time of the dump, also of one that is gone on with.
func (a *assembler) created() time.Time {
	if a.spec.Kept != nil {
		return a.spec.Kept.Manifest.Created
	}
	return a.spec.Now.UTC()
}

// signed adds to a block's meta.json of what it was built, and makes it the last of its
// files: what has it is complete.
func (a *assembler) signed(b *block.Built, o origin) ([]block.File, error) {
	o.Created = a.created()
	const name = "meta.json"
	i := slices.IndexFunc(b.Files, func(f block.File) bool { return f.Name == name })
	path := filepath.Join(b.Dir, name)
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	start, ok := bytes.CutSuffix(bytes.TrimSpace(text), []byte("\n}"))
	if !ok || i < 0 {
		return nil, fmt.Errorf("%s is not as it was written", name)
	}
	add, err := json.MarshalIndent(o, "\t", "\t")
	if err != nil {
		return nil, err
	}
	text = fmt.Appendf(nil, "%s,\n\t\"promdump\": %s\n}", start, add)
	if err := os.WriteFile(path, text, 0o666); err != nil {
		return nil, err
	}
	files := slices.Delete(slices.Clone(b.Files), i, i+1)
	return append(files, block.File{Name: name, Size: int64(len(text))}), nil
}
