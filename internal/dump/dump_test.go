package dump_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

func spec(t *testing.T, req wire.Request) dump.Spec {
	return dump.Spec{Request: req, Compression: archive.None, Staging: t.TempDir(), Tool: "test", Now: time.Unix(1, 0)}
}

func all(head wire.HeadMode) wire.Request {
	return wire.Request{Head: head, Selection: tsdbtest.Everything()}
}

// half cuts every block of the TSDB and takes a part of its head.
func half(tsdb *tsdbtest.TSDB) wire.Request {
	return wire.Request{Head: wire.HeadBlock, Selection: wire.Selection{
		MinTime: tsdb.MinTime, MaxTime: tsdb.MaxTime, Matchers: [][]wire.Matcher{{{Type: "=~", Name: "i", Value: "[0-9]"}}},
	}}
}

func left(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s was left in the staging directory", e.Name())
	}
}

// short tells n messages of a story and then stops, with an error or without.
type short struct {
	source.Source
	n   int
	err error
}

func (s short) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		n := 0
		for msg, err := range s.Source.Read(ctx, req) {
			if n == s.n {
				if s.err != nil {
					yield(nil, s.err)
				}
				return
			}
			if !yield(msg, err) {
				return
			}
			n++
		}
	}
}

// Wherever a story stops, with an error or in silence, there is no dump, and
// what there is of it is known to be incomplete.
func TestStoryThatStops(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 4, tsdbtest.Options{Plain: true})
	src := local.New(tsdb.Dir, local.Options{})
	broken := errors.New("the line broke")
	for _, req := range []wire.Request{half(tsdb), all(wire.HeadRaw)} {
		for n := 0; ; n += 1 + n/4 {
			for _, err := range []error{broken, nil} {
				s := spec(t, req)
				var out bytes.Buffer
				_, got := dump.Write(t.Context(), short{src, n, err}, s, &out)
				if got == nil { // it was told to its end
					if n < 5 {
						t.Fatalf("%d messages are all", n)
					}
					goto next
				}
				if err != nil && !errors.Is(got, broken) || err == nil && !errors.Is(got, dump.ErrUnfinished) {
					t.Fatalf("head %s, stopped after %d messages: %v", req.Head, n, got)
				}
				left(t, s.Staging)
				if out.Len() == 0 {
					continue
				}
				dir := t.TempDir()
				if _, _, err := archive.Extract(t.Context(), &out, dir, nil); !errors.Is(err, archive.ErrIncomplete) {
					t.Fatalf("head %s, stopped after %d messages: the output reads as %v", req.Head, n, err)
				}
			}
		}
	next:
	}
}

// twisted tells messages of its own.
type twisted struct {
	source.Source
	story []wire.Message
}

func (s twisted) Read(context.Context, wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		for _, m := range s.story {
			if !yield(m, nil) {
				return
			}
		}
	}
}

func TestStoriesWithoutSense(t *testing.T) {
	plan, start := &wire.Plan{}, &wire.BlockStart{ULID: "01ARZ3NDEKTSV4RRFFQ69G5FAV", MaxTime: 10}
	file := func(name string) *wire.File { return &wire.File{Name: name, Size: 1, Body: strings.NewReader("x")} }
	for what, story := range map[string][]wire.Message{
		"nothing":                  {},
		"no plan":                  {&wire.End{}},
		"file with a hostile name": {plan, file("../../etc/passwd"), &wire.End{}},
		"file of no data dir":      {plan, file("queries.active"), &wire.End{}},
		"file twice":               {plan, file("wal/00000001"), file("wal/00000001"), &wire.End{}},
		"series without a block":   {plan, &wire.Series{}, &wire.End{}},
		"records without a head":   {plan, &wire.Records{Log: wire.WAL}, &wire.End{}},
		"block in a block":         {plan, start, start, &wire.BlockEnd{}, &wire.End{}},
		"block without its end":    {plan, start, &wire.End{}},
		"two heads":                {plan, &wire.HeadStart{}, &wire.HeadStart{}, &wire.HeadEnd{}, &wire.End{}},
		"head without its end":     {plan, &wire.HeadStart{}, &wire.End{}},
		"short file":               {plan, &wire.File{Name: "wal/00000001", Size: 5, Body: strings.NewReader("x")}, &wire.End{}},
		"unknown symbol":           {plan, start, &wire.Series{Labels: []uint32{1, 2}}, &wire.BlockEnd{}, &wire.End{}},
	} {
		s := spec(t, all(wire.HeadBlock))
		_, err := dump.Write(t.Context(), twisted{local.New(".", local.Options{}), story}, s, io.Discard)
		if _, empty := errors.AsType[*dump.EmptyError](err); err == nil || empty {
			t.Errorf("%s: %v", what, err)
		}
		left(t, s.Staging)
	}
}

// full is a disk with room for n bytes.
type full struct{ n int }

var errFull = errors.New("no space left")

func (f *full) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestFullDisk(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 5, tsdbtest.Options{Plain: true})
	src := local.New(tsdb.Dir, local.Options{})
	whole, err := dump.Write(t.Context(), src, spec(t, half(tsdb)), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for n := int64(0); n < whole.BytesWritten; n += whole.BytesWritten/20 + 1 {
		s := spec(t, half(tsdb))
		if _, err := dump.Write(t.Context(), src, s, &full{int(n)}); !errors.Is(err, errFull) {
			t.Fatalf("a disk of %d bytes: %v", n, err)
		}
		left(t, s.Staging)
	}
	if _, err := dump.Write(t.Context(), src, spec(t, half(tsdb)), &full{int(whole.BytesWritten)}); err != nil {
		t.Fatalf("a disk that is just large enough: %v", err)
	}
}

func TestReportAndProgress(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 6, tsdbtest.Options{Plain: true})
	for _, req := range []wire.Request{half(tsdb), all(wire.HeadBlock), all(wire.HeadRaw)} {
		s := spec(t, req)
		var seen []dump.Progress
		s.Progress = func(p dump.Progress) { seen = append(seen, p) }
		var out bytes.Buffer
		report, err := dump.Write(t.Context(), local.New(tsdb.Dir, local.Options{}), s, &out)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range seen {
			if p.Read > p.Total || i > 0 && p.Read < seen[i-1].Read {
				t.Fatalf("head %s: progress goes from %+v to %+v", req.Head, seen[max(0, i-1)], p)
			}
		}
		if last := seen[len(seen)-1]; last.Read != last.Total || report.BytesRead != last.Total {
			t.Errorf("head %s: at the end %d of %d bytes were read, reported %d", req.Head, last.Read, last.Total, report.BytesRead)
		}
		if report.BytesWritten != int64(out.Len()) || report.RawHead != (req.Head == wire.HeadRaw) {
			t.Errorf("head %s: reported %+v, written %d", req.Head, report, out.Len())
		}
		dir := t.TempDir()
		if _, _, err := archive.Extract(t.Context(), &out, dir, nil); err != nil {
			t.Fatal(err)
		}
		blocks, samples := 0, uint64(0)
		metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range metas {
			stats, err := block.Verify(t.Context(), filepath.Dir(m), func(f block.Finding) { t.Error(f) })
			if err != nil {
				t.Fatal(err)
			}
			blocks, samples = blocks+1, samples+stats.Samples
		}
		if blocks != report.Blocks || samples != report.Samples {
			t.Errorf("head %s: reported %d blocks and %d samples, there are %d and %d", req.Head, report.Blocks, report.Samples, blocks, samples)
		}
	}
}

// A chunk of an encoding that nobody knows yet travels as long as it need not be
// cut; then the error says which block it is in and what helps.
func TestUnknownEncoding(t *testing.T) {
	dir := t.TempDir()
	if err := tsdbtest.Random(t, dir, 7, tsdbtest.Options{Plain: true}).Close(); err != nil {
		t.Fatal(err)
	}
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil || len(metas) == 0 {
		t.Fatal(err, len(metas))
	}
	// The largest block: the others have chunks of one sample, which have no inside.
	var in string
	var want *tsdb.BlockMeta
	for _, m := range metas {
		meta, err := block.ReadMeta(filepath.Dir(m))
		if err != nil {
			t.Fatal(err)
		}
		if want == nil || meta.Stats.NumSamples > want.Stats.NumSamples {
			in, want = filepath.Dir(m), meta
		}
	}
	series, from, to := renameEncoding(t, in)
	src := local.New(dir, local.Options{})
	i := wire.Matcher{Type: "=", Name: "i", Value: series}
	inside := wire.Request{Head: wire.HeadNone, Selection: wire.Selection{MinTime: want.MinTime, MaxTime: want.MaxTime - 1, Matchers: [][]wire.Matcher{{i}}}}
	if _, err := dump.Write(t.Context(), src, spec(t, inside), io.Discard); err != nil {
		t.Errorf("a chunk of an unknown encoding inside the range: %v", err)
	}
	across := inside
	across.Selection.MinTime, across.Selection.MaxTime = from+1, to
	_, err = dump.Write(t.Context(), src, spec(t, across), io.Discard)
	unknown, ok := errors.AsType[*block.EncodingError](err)
	if !ok || unknown.Encoding != 99 || !strings.Contains(err.Error(), want.ULID.String()) || !strings.Contains(err.Error(), "--whole-blocks") {
		t.Errorf("a chunk of an unknown encoding across the border: %v", err)
	}
	across.WholeBlocks = true
	if _, err := dump.Write(t.Context(), src, spec(t, across), io.Discard); err != nil {
		t.Errorf("with whole blocks: %v", err)
	}
}

// renameEncoding gives one chunk of the block the encoding 99. It returns the
// series' label i, and the chunk's first and last time.
func renameEncoding(t *testing.T, dir string) (i string, from, to int64) {
	t.Helper()
	ir, err := index.NewFileReader(filepath.Join(dir, "index"), index.DecodePostingsRaw)
	if err != nil {
		t.Fatal(err)
	}
	defer ir.Close()
	p, err := ir.Postings(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	var lb labels.ScratchBuilder
	var metas []chunks.Meta
	nth := -1
	for nth < 0 && p.Next() {
		if err := ir.Series(p.At(), &lb, &metas); err != nil {
			t.Fatal(err)
		}
		nth = slices.IndexFunc(metas, func(m chunks.Meta) bool { return m.MaxTime > m.MinTime })
	}
	m := metas[nth]
	segment, offset := chunks.BlockChunkRef(m.Ref).Unpack()
	if segment != 0 {
		t.Fatalf("the chunk is in segment %d", segment)
	}
	path := filepath.Join(dir, "chunks", "000001")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	size, n := binary.Uvarint(b[offset:])
	data := b[offset+n : offset+n+1+int(size)]
	data[0] = 99
	binary.BigEndian.PutUint32(b[offset+n+len(data):], crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return lb.Labels().Get("i"), m.MinTime, m.MaxTime
}

func TestCancelled(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 8, tsdbtest.Options{Plain: true})
	src := local.New(tsdb.Dir, local.Options{})
	for stop := range 30 {
		ctx, cancel := context.WithCancel(t.Context())
		s := spec(t, all(wire.HeadBlock))
		n := 0
		s.Progress = func(dump.Progress) {
			if n++; n > stop {
				cancel()
			}
		}
		if _, err := dump.Write(ctx, src, s, io.Discard); !errors.Is(err, context.Canceled) {
			t.Fatalf("cancelled after %d steps: %v", stop, err)
		}
		cancel()
		left(t, s.Staging)
	}
}
