package wire

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// slow counts what is written, and takes its time for it.
type slow struct {
	n       int
	perByte float64 // ns
}

func (s *slow) Write(p []byte) (int, error) {
	time.Sleep(time.Duration(s.perByte * float64(len(p))))
	s.n += len(p)
	return len(p), nil
}

func noise(n int) []byte {
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(b)
	return b
}

// What is compressed depends on the stream and on the bytes, and every mixture is read
// as it was written.
func TestChooses(t *testing.T) {
	index := []byte(strings.Repeat("namespace=\"shop\",pod=\"front-7c9\"\x00\x01", 30_000))
	chunks := noise(1 << 20)
	for _, c := range []struct {
		name        string
		link        float64 // ns a byte
		before      int64   // bytes that went over it
		index, data bool    // compressed
	}{
		{"nothing is known yet", slowLink, 0, true, false},
		{"slow", 200, 1 << 30, true, false},
		{"fast beyond all codecs", 0.01, 1 << 30, false, false},
	} {
		var out bytes.Buffer
		w, err := NewWriter(&out, Zstd)
		if err != nil {
			t.Fatal(err)
		}
		w.out.link = linkSpeed{perByte: c.link, written: c.before}
		size := func(name string, b []byte) int {
			before := out.Len()
			for range 8 {
				// What writing takes here is not what is tested.
				w.out.link = linkSpeed{perByte: c.link, written: c.before}
				if err := w.Write(&File{Name: name, Size: int64(len(b)), Body: bytes.NewReader(b)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
			return (out.Len() - before) / 8
		}
		if n := size("01A/index", index); (n < len(index)/2) != c.index {
			t.Errorf("%s: an index of %d bytes takes %d", c.name, len(index), n)
		}
		if n := size("01A/chunks/000001", chunks); (n < len(chunks)) != c.data {
			t.Errorf("%s: chunks of %d bytes take %d", c.name, len(chunks), n)
		}
		if err := w.Write(&End{}); err != nil || w.Flush() != nil {
			t.Fatal(err)
		}
		r := NewReader(&out)
		for i := range 16 {
			m, err := r.Next()
			if err != nil {
				t.Fatalf("%s: message %d: %v", c.name, i, err)
			}
			want := index
			if i >= 8 {
				want = chunks
			}
			got, err := io.ReadAll(m.(*File).Body)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%s: file %d differs: %v", c.name, i, err)
			}
		}
		if m, err := r.Next(); err != nil {
			t.Errorf("%s: %T, %v", c.name, m, err)
		}
	}
}

// A stream that becomes slow is compressed from then on, and no longer when it is fast
// again.
func TestFollowsTheLink(t *testing.T) {
	out := &slow{}
	w, err := NewWriter(out, Zstd)
	if err != nil {
		t.Fatal(err)
	}
	// Half of it are zeros.
	b := noise(256 << 10)
	clear(b[:len(b)/2])
	send := func(n int) float64 {
		before := out.n
		for range n {
			if err := w.Write(&File{Name: "01A/chunks/000001", Size: int64(len(b)), Body: bytes.NewReader(b)}); err != nil {
				t.Fatal(err)
			}
		}
		return float64(out.n-before) / float64(n*len(b))
	}
	send(80) // beyond what buffers may take
	for _, c := range []struct {
		perByte  float64
		from, to float64
	}{{0, 0.95, 1.1}, {20, 0.4, 0.6}, {0, 0.95, 1.1}} {
		out.perByte = c.perByte
		send(256)
		if got := send(16); got < c.from || got > c.to {
			t.Errorf("at %v ns a byte it sends %.2f of what there is, want %v to %v (link %+v, stats %+v)",
				c.perByte, got, c.from, c.to, w.out.link, w.out.stats[chunkClass])
		}
	}
}

func TestDamagedSegments(t *testing.T) {
	var out bytes.Buffer
	w, err := NewWriter(&out, Zstd)
	if err != nil {
		t.Fatal(err)
	}
	b := bytes.Repeat([]byte("abc"), 100_000)
	if err := w.Write(&File{Name: "01A/index", Size: int64(len(b)), Body: bytes.NewReader(b)}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Write(&End{}), w.Flush()); err != nil {
		t.Fatal(err)
	}
	whole := out.Bytes()
	read := func(damaged []byte) error {
		r := NewReader(bytes.NewReader(damaged))
		m, err := r.Next()
		if err != nil {
			return err
		}
		got, err := io.ReadAll(m.(*File).Body)
		if err == nil {
			_, err = r.Next()
		}
		if err == nil && !bytes.Equal(got, b) {
			t.Error("damage is read without an error")
		}
		return err
	}
	if err := read(whole); err != nil {
		t.Fatal(err)
	}
	for n := range whole {
		if err := read(whole[:n]); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at %d of %d: %v", n, len(whole), err)
		}
		bad := bytes.Clone(whole)
		bad[n] ^= 0x5a
		_ = read(bad) // it may stand for the same bytes in another way
	}
	// A length that nobody means takes no memory.
	huge := append(bytes.Clone(whole[:len(magic)+2]), stored, 0xff, 0xff, 0xff, 0xff)
	if _, ok := errors.AsType[*FrameError](read(huge)); !ok {
		t.Error("a segment of 4 GiB is taken")
	}
}
