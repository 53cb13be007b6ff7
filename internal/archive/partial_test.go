package archive

import (
	"bytes"
	"errors"
	"testing"
)

// A crash can leave any part of the first header, and zeros behind it. Nothing can be
// resumed then, and the file is still the beginning of a dump.
func TestPartialHeader(t *testing.T) {
	for _, c := range []Compression{Gzip, Zstd, None} {
		var whole bytes.Buffer
		w, err := NewWriter(&whole, Options{Compression: c})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(w.Manifest(Manifest{}), w.Close()); err != nil {
			t.Fatal(err)
		}
		for cut := range blockSize {
			for _, zeros := range []int{0, 1, 4096} {
				part := append(bytes.Clone(whole.Bytes()[:min(cut, whole.Len()/2)]), make([]byte, zeros)...)
				_, err := ReadPartial(bytes.NewReader(part), nil)
				if !errors.Is(err, ErrIncomplete) {
					t.Fatalf("%s, cut after %d bytes, with %d zeros: %v", c, cut, zeros, err)
				}
			}
		}
	}
}
