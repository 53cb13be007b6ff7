package dump_test

import (
	"bytes"
	"context"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/wire"
)

// messages is a source that sends these.
type messages []wire.Message

func (messages) String() string { return "messages" }

func (messages) Inventory(context.Context) (*wire.Inventory, error) { return &wire.Inventory{}, nil }

func (m messages) Read(context.Context, wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		for _, one := range m {
			if !yield(one, nil) {
				return
			}
		}
	}
}

// cutBody gives some bytes, and no more come.
type cutBody struct{ r io.Reader }

func (c cutBody) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if err == io.EOF {
		err = wire.ErrCut
	}
	return n, err
}

// rewindable is a file as an output.
type rewindable struct{ bytes.Buffer }

func (r *rewindable) Rewind(size int64) error {
	r.Truncate(int(size))
	return nil
}

// What a source takes back is not in the dump, whether the output is a file or a
// stream, and what follows is.
func TestTakenBack(t *testing.T) {
	const a, b, c = "01ARZ3NDEKTSV4RRFFQ69G5FAA", "01ARZ3NDEKTSV4RRFFQ69G5FAB", "01ARZ3NDEKTSV4RRFFQ69G5FAC"
	file := func(name, text string) *wire.File {
		return &wire.File{Name: name, Size: int64(len(text)), Body: strings.NewReader(text), Tentative: true}
	}
	half := file(a+"/index", strings.Repeat("y", 300_000))
	half.Body = cutBody{strings.NewReader(strings.Repeat("y", 200_000))}
	rest := file("wal/00000001", strings.Repeat("z", 3000))
	rest.Body = cutBody{strings.NewReader("z")}
	block := func(ulid string) wire.PlannedBlock {
		return wire.PlannedBlock{ULID: ulid, Action: wire.Whole, Bytes: 1000, Series: 5, Samples: 7}
	}
	src := messages{
		&wire.Plan{Blocks: []wire.PlannedBlock{block(b), block(a)}, Head: wire.PlannedHead{Mode: wire.HeadRaw}},
		file(b+"/chunks/000001", "kept"), file(b+"/meta.json", `{"b":1}`),
		file(a+"/chunks/000001", strings.Repeat("x", 400_000)), half,
		&wire.Forget{ULID: a},
		&wire.Plan{Blocks: []wire.PlannedBlock{block(b), block(c)}, Head: wire.PlannedHead{Mode: wire.HeadRaw}},
		file(c+"/chunks/000001", "new"), file(c+"/meta.json", `{"c":1}`),
		file("wal/00000000", "old"), rest,
		&wire.Forget{},
		file("wal/00000000", "newer"), file("wal/00000001", "newest"),
		&wire.End{},
	}
	want := map[string]string{
		b + "/chunks/000001": "kept", b + "/meta.json": `{"b":1}`, c + "/chunks/000001": "new", c + "/meta.json": `{"c":1}`,
		"wal/00000000": "newer", "wal/00000001": "newest",
	}
	for _, compression := range []archive.Compression{archive.None, archive.Gzip, archive.Zstd} {
		var stream bytes.Buffer
		var disk rewindable
		for name, out := range map[string]io.Writer{"stream": &stream, "file": &disk} {
			for _, m := range src {
				if f, ok := m.(*wire.File); ok {
					if r, ok := f.Body.(io.Seeker); ok {
						_, _ = r.Seek(0, io.SeekStart)
					} else if r, ok := f.Body.(cutBody); ok {
						_, _ = r.r.(io.Seeker).Seek(0, io.SeekStart)
					}
				}
			}
			staging := t.TempDir()
			report, err := dump.Write(t.Context(), src, dump.Spec{
				Request: wire.Request{Head: wire.HeadRaw}, Compression: compression, Staging: staging, Now: time.Unix(1, 0),
			}, out)
			if err != nil {
				t.Fatalf("%s, %s: %v", compression, name, err)
			}
			if report.Blocks != 2 || report.Samples != 14 || !report.RawHead {
				t.Errorf("%s, %s: %d blocks, %d samples", compression, name, report.Blocks, report.Samples)
			}
			if left, err := os.ReadDir(staging); err != nil || len(left) > 0 {
				t.Errorf("%s, %s: left in the staging directory: %v, %v", compression, name, left, err)
			}
			written := stream.Bytes()
			if name == "file" {
				written = disk.Bytes()
			}
			dir := t.TempDir()
			if _, _, err := archive.Extract(t.Context(), bytes.NewReader(written), dir, nil); err != nil {
				t.Fatalf("%s, %s: %v", compression, name, err)
			}
			var got []string
			err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
				if err != nil || d.IsDir() || !strings.Contains(path[len(dir)+1:], "/") {
					return err
				}
				rel := filepath.ToSlash(path[len(dir)+1:])
				text, err := os.ReadFile(path)
				if string(text) != want[rel] {
					t.Errorf("%s, %s: %s has %d bytes", compression, name, rel, len(text))
				}
				got = append(got, rel)
				return err
			})
			if err != nil || len(got) != len(want) {
				slices.Sort(got)
				t.Errorf("%s, %s: files %v, %v", compression, name, got, err)
			}
		}
	}
}
