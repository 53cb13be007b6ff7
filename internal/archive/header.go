package archive

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// blockSize is tar's: headers have this size, bodies are filled up to it.
const blockSize = 512

// trailerSize is that of the two blocks of zeros which end a tar.
const trailerSize = 2 * blockSize

// octalMax is the largest size that USTAR can say. Beyond it the header is
// GNU's, with a binary size: one block still, and older tars (busybox) read it,
// where they do not read a PAX size.
const octalMax = 1<<33 - 1

// padding is how many zeros follow a body.
func padding(size int64) int64 { return -size & (blockSize - 1) }

// appendHeader appends the header of a regular file.
func appendHeader(dst []byte, e Entry, modTime time.Time) ([]byte, error) {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: e.Name, Size: e.Size, Mode: 0o644,
		ModTime: modTime.Truncate(time.Second), Format: tar.FormatUSTAR,
	}
	if e.Size > octalMax {
		h.Format = tar.FormatGNU
	}
	var block bytes.Buffer
	// A writer of its own for each header: it is never told of the body.
	if err := tar.NewWriter(&block).WriteHeader(h); err != nil {
		return dst, fmt.Errorf("write header of %s: %w", e.Name, err)
	}
	if block.Len() != blockSize {
		return dst, fmt.Errorf("write header of %s: it does not fit into one block", e.Name)
	}
	return append(dst, block.Bytes()...), nil
}

// parseHeader reads a header. archive/tar would do, but for what it does
// unasked: it follows PAX and GNU extensions that change the name and the size
// of the next entry, and takes a tar without an end for a whole one.
// The name is given along with an error as far as it can be read.
func parseHeader(b *[blockSize]byte) (Entry, error) {
	var e Entry
	name, rest, _ := bytes.Cut(b[:100], []byte{0})
	e.Name = string(name)

	magic := string(b[257:265])
	if magic != "ustar\x0000" && magic != "ustar  \x00" {
		return Entry{}, errors.New("not a tar header")
	}
	sum, err := parseOctal(b[148:154])
	if err != nil || b[154] != 0 || b[155] != ' ' || sum != checksum(b) {
		return e, errors.New("wrong checksum of the tar header")
	}
	if len(bytes.Trim(rest, "\x00")) != 0 {
		return e, errors.New("bytes after the end of the name")
	}
	if t := b[156]; t != tar.TypeReg {
		return e, fmt.Errorf("not a regular file, but %s", typeName(t))
	}
	// USTAR puts the prefix of long names here, GNU the map of sparse files.
	if len(bytes.Trim(b[345:], "\x00")) != 0 {
		return e, errors.New("a tar header with more than a name and a size")
	}
	if b[124] == 0x80 {
		size := binary.BigEndian.Uint64(b[128:136])
		if binary.BigEndian.Uint32(b[124:128]) != 0x80000000 || size > math.MaxInt64 {
			return e, errors.New("absurd size")
		}
		e.Size = int64(size)
		return e, nil
	}
	if e.Size, err = parseOctal(b[124:135]); err != nil || b[135] != 0 {
		return e, errors.New("the size is not a number")
	}
	return e, nil
}

// parseOctal reads a field of octal digits and nothing else, not even a sign.
func parseOctal(field []byte) (int64, error) {
	n, err := strconv.ParseUint(string(field), 8, 63)
	return int64(n), err
}

// checksum is the sum of the header's bytes, with its own field as spaces.
func checksum(b *[blockSize]byte) int64 {
	var sum int64
	for i, c := range b {
		if i >= 148 && i < 156 {
			c = ' '
		}
		sum += int64(c)
	}
	return sum
}

func typeName(t byte) string {
	switch t {
	case tar.TypeLink, tar.TypeSymlink:
		return "a link"
	case tar.TypeChar, tar.TypeBlock, tar.TypeFifo:
		return "a device"
	case tar.TypeDir:
		return "a directory"
	case tar.TypeXHeader, tar.TypeXGlobalHeader, tar.TypeGNULongName, tar.TypeGNULongLink:
		return "a tar extension"
	case tar.TypeGNUSparse:
		return "a sparse file"
	}
	return fmt.Sprintf("type %q", t)
}
