package agentbin

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"

	"github.com/klauspost/compress/gzip"
)

// Bounds of what an archive may hold, since it is read before it is trusted.
const (
	maxArchive = 256 << 20 // bytes, compressed
	maxProgram = 64 << 20
	maxContent = 512 << 20 // bytes, uncompressed
)

var errNotThere = errors.New("not in the archive")

// readArchive takes one file out of an archive. The rest is read too: what was
// cut must not be kept for the next time, when another file is wanted.
func readArchive(r io.Reader, name string) (program []byte, err error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, fmt.Errorf("not gzip: %w", whole(err))
	}
	content := &limited{r: z, left: maxContent}
	t := tar.NewReader(content)
	for {
		h, err := t.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read tar: %w", whole(err))
		}
		if path.Clean(h.Name) != name {
			continue
		}
		if program != nil || h.Typeflag != tar.TypeReg || h.Size > maxProgram {
			return nil, fmt.Errorf("%s in it is there twice, too large or no file", name)
		}
		// Grown as it comes: a header may promise much.
		var b bytes.Buffer
		if _, err := io.Copy(&b, t); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, whole(err))
		}
		program = b.Bytes()
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return nil, fmt.Errorf("read its end: %w", whole(err))
	}
	if program == nil {
		return nil, errNotThere
	}
	return program, nil
}

// whole makes sure that the end of a stream is never taken for the end of an archive.
func whole(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// limited fails, where io.LimitReader would end as if all was there.
type limited struct {
	r    io.Reader
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.r.Read(p)
	l.left -= int64(n)
	if l.left < 0 {
		return 0, errors.New("it is larger than it may be")
	}
	return n, err
}
