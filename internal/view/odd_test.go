package view

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/dump/dumptest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// A dump with an odd or a damaged block opens, each time with notes, and serves what
// Prometheus serves.
func TestNotesOfBlocks(t *testing.T) {
	data := t.TempDir()
	b := tsdbtest.HandBlock{
		Meta: tsdb.BlockMeta{ULID: ulid.MustParse("01M85DMB02F1W7GY3RF1W7GY3R"), MinTime: 1000, MaxTime: 2000},
		Series: []tsdbtest.HandSeries{
			{Labels: []string{"__name__", "m", "z", "1", "a", "2"}, Chunks: []tsdbtest.HandChunk{tsdbtest.FloatChunk(t, 1000, 1, 2000, 2)}},
			{Labels: []string{"__name__", "n"}, Chunks: []tsdbtest.HandChunk{tsdbtest.FloatChunk(t, 1000, 1, 1500, 2)}},
		},
	}
	segment := filepath.Join(b.Write(t, data), "chunks", "000001")
	content, err := os.ReadFile(segment)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)-1] ^= 1 // the checksum of the last chunk
	if err := os.WriteFile(segment, content, 0o666); err != nil {
		t.Fatal(err)
	}
	file := dumptest.Of(t, data, wire.HeadNone)
	c := cacheIn(t, t.TempDir(), 1<<40)
	for range 2 {
		var notes []string
		in, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		d, err := c.Open(t.Context(), Input{Name: file, Path: file, R: in}, Hooks{Note: func(s string) { notes = append(notes, s) }})
		if err != nil {
			t.Fatal(err)
		}
		if len(notes) != 2 || !strings.Contains(notes[0], `damaged`) || !strings.Contains(notes[0], `__name__="n"`) ||
			!strings.Contains(notes[1], "odd") || !strings.Contains(notes[1], "not in order") {
			t.Errorf("notes %q", notes)
		}
		v, err := New(t.Context(), "", d)
		if err != nil {
			t.Fatal(err)
		}
		sel := tsdbtest.Everything()
		sel.Matchers = [][]wire.Matcher{{{Type: "=", Name: "a", Value: "2"}}}
		if got := tsdbtest.OddSamples(t, v, sel); got.Count() != 2 {
			t.Errorf("served: %v", got)
		}
		if err := v.Close(); err != nil {
			t.Error(err)
		}
	}
}
