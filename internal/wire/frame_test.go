package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// story is one of each message, at random.
func story(rng *rand.Rand) []Message {
	blob := func() []byte {
		b := make([]byte, rng.IntN(200))
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return b
	}
	when := func() int64 {
		return []int64{0, -1, math.MinInt64, math.MaxInt64, rng.Int64()}[rng.IntN(5)]
	}
	series := &Series{More: rng.IntN(2) == 0}
	for range rng.IntN(5) {
		series.Labels = append(series.Labels, rng.Uint32())
		series.Deleted = append(series.Deleted, Interval{when(), when()})
		series.Chunks = append(series.Chunks, Chunk{when(), when(), uint8(rng.Uint32()), blob()})
	}
	symbols := &Symbols{}
	records := &Records{Log: WAL}
	for i := range rng.IntN(5) {
		symbols.Refs = append(symbols.Refs, rng.Uint32())
		symbols.Strings = append(symbols.Strings, string(blob())+strings.Repeat("ü", i*1000))
		records.Records = append(records.Records, blob())
	}
	return []Message{
		&Plan{Blocks: []PlannedBlock{{ULID: "A", MinTime: when(), Action: Cut, Hints: []string{"x"}}}, Bytes: 7, Notes: []string{"n"}},
		&BlockStart{ULID: "A", MinTime: when(), MaxTime: when()}, symbols, series, &BlockEnd{Series: 1, Chunks: 2},
		&HeadStart{when(), when()}, records, &Records{Log: WBL}, &Forget{}, &Forget{ULID: "A"}, &HeadEnd{MinTime: when(), Series: 3}, &End{Files: 1},
	}
}

func encoded(t testing.TB, ms ...Message) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := NewWriter(&buf, Plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range ms {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func TestEveryMessageComesBack(t *testing.T) {
	for seed := range uint64(200) {
		want := story(rand.New(rand.NewPCG(seed, 1)))
		r := NewReader(bytes.NewReader(encoded(t, want...)))
		i := 0
		for got, err := range r.All() {
			if err != nil {
				t.Fatalf("seed %d, message %d: %v", seed, i, err)
			}
			if d := cmp.Diff(want[i], got, cmp.Transformer("text", func(b []byte) string { return string(b) }), emptyIsNil()); d != "" {
				t.Fatalf("seed %d, message %d:\n%s", seed, i, d)
			}
			i++
		}
		if i != len(want) {
			t.Fatalf("seed %d: %d of %d messages", seed, i, len(want))
		}
	}
}

func emptyIsNil() cmp.Option {
	return cmp.FilterValues(func(a, b []Chunk) bool { return len(a) == 0 && len(b) == 0 }, cmp.Ignore())
}

func TestFilesOfAllSizes(t *testing.T) {
	for _, size := range []int{0, 1, dataFrame - 1, dataFrame, dataFrame + 1, 3*dataFrame + 7} {
		want := bytes.Repeat([]byte{1, 2, 3}, size)[:size]
		stream := encoded(t, &File{Name: "wal/00000001", Size: int64(size), Body: bytes.NewReader(want)}, &End{})
		r := NewReader(bytes.NewReader(stream))
		m, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		f := m.(*File)
		got, err := io.ReadAll(f.Body)
		if err != nil || !bytes.Equal(got, want) || f.Size != int64(size) {
			t.Fatalf("size %d: got %d bytes, size %d, error %v", size, len(got), f.Size, err)
		}
		if m, err = r.Next(); err != nil {
			t.Fatal(err)
		} else if _, ok := m.(*End); !ok {
			t.Fatalf("after the file comes %T", m)
		}
	}
}

func TestFileThatIsShorterThanItSaid(t *testing.T) {
	w, _ := NewWriter(io.Discard, Plain)
	err := w.Write(&File{Name: "index", Size: 5, Body: strings.NewReader("abc")})
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatalf("got %v", err)
	}
}

// A file's bytes are as many as it said, and nothing comes between them.
func TestFileWithOtherBytes(t *testing.T) {
	for what, after := range map[string]func(w *Writer) error{
		"more bytes":   func(w *Writer) error { return w.frame(kindData, []byte("abcd")) },
		"another kind": func(w *Writer) error { return w.Write(&End{}) },
		"a failure":    func(w *Writer) error { return w.Fail(Failure{Text: "gone"}) },
	} {
		var buf bytes.Buffer
		w, _ := NewWriter(&buf, Plain)
		head := binary.AppendUvarint(binary.AppendUvarint(appendString(nil, "index"), 3), 0)
		if err := errors.Join(w.frame(kindFile, head), after(w), w.Flush()); err != nil {
			t.Fatal(err)
		}
		m, err := NewReader(&buf).Next()
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.ReadAll(m.(*File).Body)
		_, damaged := errors.AsType[*FrameError](err)
		_, failed := errors.AsType[*Failure](err)
		if want := what == "a failure"; failed != want || damaged == want {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestUnreadFileStopsTheStory(t *testing.T) {
	r := NewReader(bytes.NewReader(encoded(t, &File{Name: "index", Size: 3, Body: strings.NewReader("abc")}, &End{})))
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	if m, err := r.Next(); err == nil {
		t.Fatalf("got %T over an unread file", m)
	}
}

// No cut of a stream may pass for its end, and no flipped byte for a message
// that was sent.
func TestCutsAndFlips(t *testing.T) {
	want := story(rand.New(rand.NewPCG(3, 1)))
	stream := encoded(t, want...)
	read := func(b []byte) ([]string, error) {
		var got []string
		for m, err := range NewReader(bytes.NewReader(b)).All() {
			if err != nil {
				return got, err
			}
			got = append(got, fmt.Sprintf("%+v", m))
		}
		return got, nil
	}
	for n := range stream {
		if _, err := read(stream[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: %v", n, len(stream), err)
		}
	}
	for n := range stream {
		b := bytes.Clone(stream)
		b[n] ^= 0x41
		if _, err := read(b); err == nil {
			t.Fatalf("flip at %d of %d went unseen", n, len(stream))
		}
	}
}

func TestOtherVersion(t *testing.T) {
	b := encoded(t, &End{})
	b[len(magic)] = Version + 1
	_, err := NewReader(bytes.NewReader(b)).Next()
	if v, ok := errors.AsType[*VersionError](err); !ok || v.Version != Version+1 {
		t.Fatalf("got %v", err)
	}
}

func TestFailureTakesTheStorysPlace(t *testing.T) {
	var buf bytes.Buffer
	w, _ := NewWriter(&buf, Plain)
	if err := w.Fail(Failure{Text: "no such directory", Tip: "look elsewhere"}); err != nil {
		t.Fatal(err)
	}
	_, err := NewReader(&buf).Next()
	f, ok := errors.AsType[*Failure](err)
	if !ok || f.Text != "no such directory" || f.Tip != "look elsewhere" {
		t.Fatalf("got %v", err)
	}
}

func TestFrameIsBounded(t *testing.T) {
	w, _ := NewWriter(io.Discard, Plain)
	if err := w.Write(&Symbols{Refs: []uint32{1}, Strings: []string{strings.Repeat("x", MaxFrame)}}); err == nil {
		t.Fatal("a frame beyond its bound was written")
	}
	// A promise of many bytes must not be paid in memory before they come.
	b := append(encoded(t), byte(kindSymbols), 0x80, 0x80, 0x80, 0x20) // 64 MiB
	before := testing.AllocsPerRun(1, func() {
		if _, err := NewReader(bytes.NewReader(b)).Next(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("got %v", err)
		}
	})
	if before > 20 {
		t.Fatalf("%v allocations for a frame that never came", before)
	}
}

func FuzzReader(f *testing.F) {
	for seed := range uint64(5) {
		f.Add(encoded(f, story(rand.New(rand.NewPCG(seed, 1)))...))
	}
	f.Add(encoded(f, &File{Name: "index", Size: 3, Body: strings.NewReader("abc")}, &End{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for m, err := range NewReader(bytes.NewReader(b)).All() {
			if err != nil {
				return
			}
			if f, ok := m.(*File); ok {
				if n, err := io.Copy(io.Discard, f.Body); err == nil && n != f.Size {
					t.Fatalf("file of %d bytes has %d", f.Size, n)
				}
			}
		}
	})
}

// Checksums keep a fuzzer out of the payloads, so it gets at them directly.
func FuzzPayload(f *testing.F) {
	for _, m := range story(rand.New(rand.NewPCG(1, 1))) {
		w := &Writer{}
		if k, text, err := w.encode(m); err == nil && text == nil {
			f.Add(byte(k), w.buf)
		}
	}
	f.Fuzz(func(t *testing.T, k byte, b []byte) {
		m, err := decode(kind(k), b)
		if err != nil {
			return
		}
		w := &Writer{}
		if k2, text, err := w.encode(m); err != nil || k2 != kind(k) {
			t.Fatalf("%T was decoded but not encoded: %v", m, err)
		} else if text == nil {
			if m2, err := decode(k2, w.buf); err != nil || !cmp.Equal(m, m2) {
				t.Fatalf("%T changed: %v", m, err)
			}
		}
	})
}
