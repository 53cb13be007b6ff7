package archive

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// Partial describes an unfinished dump: what of it is complete, and where each entry
// ends. Of a compressed dump only pieces whose checksum is right count. An uncompressed
// one has no checksums until its end; see [Syncer].
type Partial struct {
	Manifest    Manifest
	Compression Compression
	Size        int64 // bytes that were read, the incomplete end included

	sums []sum
	ends []end
}

// end is where an entry ends.
type end struct {
	offset int64 // in the file; -1: not at the border of a piece
	in     int64 // bytes of files before it
}

// ReadPartial reads an unfinished dump as far as it is complete. It calls visit for each
// file of which at least the header is there, with a body that may end too early, with
// ErrIncomplete, and stops at an error of visit which is not that. Errors: ErrNotDump;
// ErrIncomplete if not even the manifest is there; *FormatError; r's own.
func ReadPartial(r io.Reader, visit func(n int, e Entry, body io.Reader) error) (*Partial, error) {
	v, compression, err := newVerified(r)
	if err != nil {
		return nil, err
	}
	p := &Partial{Compression: compression}
	err = p.read(v, visit)
	p.Size = v.src.n
	switch {
	case v.src.err != nil:
		return nil, fmt.Errorf("read the dump: %w", v.src.err)
	case errors.Is(err, errEnds) && len(p.sums) == 0:
		return nil, fmt.Errorf("%w: its manifest is missing", ErrIncomplete)
	case err == nil, errors.Is(err, errEnds):
		return p, nil
	}
	return nil, err
}

// errEnds: the rest is missing, damaged or not needed.
var errEnds = fmt.Errorf("%w: the rest is missing", ErrIncomplete)

func (p *Partial) read(v *verified, visit func(int, Entry, io.Reader) error) error {
	names := map[string]struct{}{}
	limits := Limits{}.withDefaults()
	var in int64
	for first := true; ; first = false {
		var block [blockSize]byte
		if _, err := io.ReadFull(v, block[:]); err != nil {
			return errEnds
		}
		e, err := parseHeader(&block)
		if first && err != nil && tornStart(block[:]) {
			return errEnds // a crash left a part of the header
		}
		if first && (err != nil || e.Name != ManifestName) {
			return fmt.Errorf("%w: it does not begin with %s", ErrNotDump, ManifestName)
		}
		_, twice := names[e.Name]
		// The notes and the digests are made anew.
		if err != nil || twice || checkName(e.Name) != nil || limits.checkSize(e.Name, e.Size) != nil ||
			e.Name == NotesName || e.Name == SumsName {
			return errEnds
		}
		names[e.Name] = struct{}{}
		digest := sha256.New()
		body := &partialBody{r: io.TeeReader(v, digest), left: e.Size}
		if first {
			err = p.manifest(body)
		} else {
			in += e.Size
			err = visit(len(p.sums), e, body)
		}
		if err == nil {
			_, err = io.Copy(io.Discard, body)
		}
		if err != nil {
			return err
		}
		fill := make([]byte, padding(e.Size))
		if _, err := io.ReadFull(v, fill); err != nil || strings.Trim(string(fill), "\x00") != "" {
			return errEnds
		}
		p.sums = append(p.sums, sum{e.Name, hex.EncodeToString(digest.Sum(nil))})
		p.ends = append(p.ends, end{v.border(), in})
	}
}

func (p *Partial) manifest(body io.Reader) error {
	text, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return errEnds
	}
	p.Manifest, err = decodeManifest(text)
	if errors.Is(err, ErrDamaged) {
		return fmt.Errorf("%w: %s", ErrNotDump, err.Error())
	}
	return err
}

// Entries is the number of complete entries, the manifest included.
func (p *Partial) Entries() int { return len(p.sums) }

// End returns where the first n entries end in the file. ok is false if the dump cannot
// be cut there.
func (p *Partial) End(n int) (offset int64, ok bool) {
	if n < 1 || n > len(p.ends) {
		return 0, false
	}
	return p.ends[n-1].offset, p.ends[n-1].offset >= 0
}

// Resume cuts the output, which must hold the dump, to its first n entries, and returns
// a Writer that continues from there. n must be one where [Partial.End] is ok. It takes
// the compression and the time of the entries from the partial dump.
func (p *Partial) Resume(w Rewinder, n, concurrency int) (*Writer, error) {
	offset, ok := p.End(n)
	if !ok {
		return nil, fmt.Errorf("go on with an unfinished dump: it cannot be cut after %d entries", n)
	}
	if err := w.Rewind(offset); err != nil {
		return nil, fmt.Errorf("go on with an unfinished dump: %w", err)
	}
	sums := slices.Clone(p.sums[:n])
	d, err := newWriter(w, Options{Compression: p.Compression, ModTime: p.Manifest.Created, Concurrency: concurrency}, sums)
	if err != nil {
		return nil, err
	}
	d.out.Store(offset)
	d.in.Store(p.ends[n-1].in)
	return d, nil
}

// partialBody is the body of an entry. A body that ends too early is errEnds.
type partialBody struct {
	r    io.Reader
	left int64
}

func (b *partialBody) Read(p []byte) (int, error) {
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && b.left > 0 {
		return n, errEnds
	}
	return n, nil
}

// verified is the tar of a dump that may be cut or damaged anywhere. It gives bytes of
// pieces only whose checksum is right, and io.EOF at the first that is not.
type verified struct {
	src  *counted
	in   *bufio.Reader
	next func(*verified) ([]byte, error) // one piece
	cur  []byte
	pos  int   // in cur
	end  int64 // of cur, in the file

	gz  *gzip.Reader
	zs  *zstd.Decoder
	buf bytes.Buffer
}

// counted counts what is read, and keeps the error of the file itself.
type counted struct {
	r   io.Reader
	n   int64
	err error
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// maxPiece bounds the pieces that are read; those that are written are much smaller.
const maxPiece = 64 << 20

func newVerified(r io.Reader) (*verified, Compression, error) {
	v := &verified{src: &counted{r: r}}
	v.in = bufio.NewReaderSize(v.src, 128<<10)
	start, err := v.in.Peek(sniffSize)
	if err != nil && err != io.EOF {
		return nil, "", fmt.Errorf("read the dump: %w", err)
	}
	switch {
	case bytes.HasPrefix(start, gzipMagic):
		v.next = (*verified).member
		return v, Gzip, nil
	case bytes.HasPrefix(start, zstdMagic):
		v.next = (*verified).frame
		v.zs, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxPiece))
		return v, Zstd, err
	case len(start) == sniffSize && bytes.Equal(start[257:262], tarMagic):
		v.next = (*verified).plain
		return v, None, nil
	case tornStart(start):
		return nil, "", fmt.Errorf("%w: its beginning is missing", ErrIncomplete)
	}
	return nil, "", fmt.Errorf("%w: it is neither gzip, zstd nor tar", ErrNotDump)
}

// tornStart reports whether these may be the first bytes of a dump of which a crash left
// no more. The rest may be missing or zeros.
func tornStart(start []byte) bool {
	start = bytes.TrimRight(start, "\x00")
	for _, s := range [][]byte{gzipMagic, zstdMagic, []byte(ManifestName)} {
		if bytes.HasPrefix(s, start) {
			return true
		}
	}
	return bytes.HasPrefix(start, []byte(ManifestName))
}

func (v *verified) Read(p []byte) (int, error) {
	for v.pos == len(v.cur) {
		cur, err := v.next(v)
		if err != nil {
			return 0, io.EOF // what comes after it is of no use
		}
		v.cur, v.pos, v.end = cur, 0, v.offset()
	}
	n := copy(p, v.cur[v.pos:])
	v.pos += n
	return n, nil
}

// offset is that of the next byte to read from the file.
func (v *verified) offset() int64 { return v.src.n - int64(v.in.Buffered()) }

// border is the offset in the file of what was read, -1 if it is within a piece.
func (v *verified) border() int64 {
	switch left := len(v.cur) - v.pos; {
	case left == 0:
		return v.end
	case v.gz == nil && v.zs == nil:
		return v.end - int64(left)
	}
	return -1
}

func (v *verified) plain() ([]byte, error) {
	if v.cur == nil {
		v.cur = make([]byte, nonePiece)
	}
	n, err := v.in.Read(v.cur[:cap(v.cur)])
	if n > 0 {
		err = nil
	}
	return v.cur[:n], err
}

func (v *verified) member() (_ []byte, err error) {
	if v.gz == nil {
		v.gz, err = gzip.NewReader(v.in)
	} else {
		err = v.gz.Reset(v.in)
	}
	if err != nil {
		return nil, err
	}
	v.gz.Multistream(false)
	v.buf.Reset()
	n, err := io.Copy(&v.buf, io.LimitReader(v.gz, maxPiece+1))
	if err == nil && n > maxPiece {
		err = errEnds
	}
	return v.buf.Bytes(), err
}

// frame reads a zstd frame. Its blocks say how long it is (RFC 8878, 3.1.1).
func (v *verified) frame() ([]byte, error) {
	start, err := v.in.Peek(zstd.HeaderMaxSize)
	if err != nil && (err != io.EOF || len(start) == 0) {
		return nil, err
	}
	var h zstd.Header
	if err := h.Decode(start); err != nil {
		return nil, err
	}
	v.buf.Reset()
	take := func(n int) error {
		if v.buf.Len()+n > maxPiece {
			return errEnds
		}
		_, err := io.CopyN(&v.buf, v.in, int64(n))
		return err
	}
	if err := take(h.HeaderSize); err != nil {
		return nil, err
	}
	for last := false; !last && !h.Skippable; {
		if err := take(3); err != nil {
			return nil, err
		}
		b := v.buf.Bytes()[v.buf.Len()-3:]
		word := int(b[0]) | int(b[1])<<8 | int(b[2])<<16
		size := word >> 3
		if word>>1&3 == 1 { // one byte, repeated
			size = 1
		}
		last = word&1 == 1
		if err := take(size); err != nil {
			return nil, err
		}
	}
	if h.Skippable || !h.HasCheckSum {
		return nil, errEnds // not of our writer
	}
	if err := take(4); err != nil {
		return nil, err
	}
	return v.zs.DecodeAll(v.buf.Bytes(), v.cur[:0])
}
