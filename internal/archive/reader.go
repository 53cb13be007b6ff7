package archive

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Reader reads a dump and verifies it on the way. Its methods are for one
// goroutine. An error is final, and io.EOF too.
//
// Until Next has returned io.EOF nothing that was read is verified.
type Reader struct {
	limits   Limits
	s        *stream
	hash     *hasher
	manifest Manifest
	names    map[string]struct{}
	entry    Entry // whose body is being read
	left     int64 // bytes of it to come
	open     bool  // its body was not finished
	err      error
	closed   bool
}

// NewReader reads the start of a dump, whatever its compression, up to its
// manifest. The Reader must be closed; r is not. Errors: ErrNotDump, ErrIncomplete,
// ErrDamaged, *FormatError, or r's own.
func NewReader(r io.Reader) (*Reader, error) { return NewReaderLimits(r, Limits{}) }

// NewReaderLimits is NewReader with other bounds.
func NewReaderLimits(r io.Reader, limits Limits) (*Reader, error) {
	s, err := newStream(r)
	if err != nil {
		return nil, err
	}
	d := &Reader{limits: limits.withDefaults(), s: s, hash: newHasher(nil), names: make(map[string]struct{})}
	if err := d.readManifest(); err != nil {
		_ = d.Close()
		return nil, err
	}
	return d, nil
}

// Manifest returns the manifest of the dump. Its Notes are complete once Next has
// returned io.EOF.
func (d *Reader) Manifest() Manifest { return d.manifest }

func (d *Reader) readManifest() error {
	e, err := d.header()
	if _, ok := errors.AsType[*DamageError](err); ok && (d.s.err == nil || d.s.err == io.EOF) {
		// It could be decompressed: some other tar, or no tar at all. That is no
		// damage, so the error must not match it.
		return fmt.Errorf("%w: %s", ErrNotDump, err.Error())
	}
	if err != nil {
		return err
	}
	if e.Name != ManifestName {
		return fmt.Errorf("%w: its first entry is %q, not %s", ErrNotDump, e.Name, ManifestName)
	}
	text, err := d.text(e)
	if err != nil {
		return err
	}
	d.manifest, err = decodeManifest(text)
	return err
}

// Next goes to the next file; what is left of the one before is skipped, and verified
// all the same. It returns io.EOF once the dump has proved to be whole. The manifest,
// the notes and the digests do not count as files.
func (d *Reader) Next() (Entry, error) {
	if d.err != nil {
		return Entry{}, d.err
	}
	e, err := d.next()
	if err != nil {
		d.err = err
	}
	return e, err
}

func (d *Reader) next() (Entry, error) {
	for d.left > 0 {
		if _, err := d.take(d.left); err != nil {
			return Entry{}, err
		}
	}
	if err := d.finish(); err != nil {
		return Entry{}, err
	}
	e, err := d.header()
	if err == nil && e.Name == NotesName {
		e, err = d.readNotes(e)
	}
	if err != nil {
		return Entry{}, err
	}
	if e.Name == SumsName {
		if err := d.verify(e); err != nil {
			return Entry{}, err
		}
		return Entry{}, io.EOF
	}
	return e, nil
}

// readNotes reads the notes, and the header of the entry after them.
func (d *Reader) readNotes(e Entry) (Entry, error) {
	text, err := d.text(e)
	if err != nil {
		return Entry{}, err
	}
	if d.manifest.Notes, err = decodeNotes(text); err != nil {
		return Entry{}, err
	}
	next, err := d.header()
	if err == nil && next.Name != SumsName {
		return Entry{}, &DamageError{Entry: next.Name, Reason: "an entry after " + NotesName}
	}
	return next, err
}

// header reads the header of an entry and makes it the current one.
func (d *Reader) header() (Entry, error) {
	var block [blockSize]byte
	if err := d.s.readFull(block[:]); err != nil {
		return Entry{}, d.explain(err)
	}
	if block == [blockSize]byte{} {
		return Entry{}, fmt.Errorf("%w: %s is missing", ErrIncomplete, SumsName)
	}
	e, err := parseHeader(&block)
	if err != nil {
		return Entry{}, &DamageError{Entry: e.Name, Reason: err.Error()}
	}
	if err := checkName(e.Name); err != nil {
		return Entry{}, &DamageError{Entry: e.Name, Reason: err.Error()}
	}
	if err := d.limits.checkSize(e.Name, e.Size); err != nil {
		return Entry{}, &DamageError{Entry: e.Name, Reason: err.Error()}
	}
	// Names that differ in case only are both no dump's, so this finds them all.
	if _, ok := d.names[e.Name]; ok {
		return Entry{}, &DamageError{Entry: e.Name, Reason: "a second entry of this name"}
	}
	if e.Name != SumsName {
		if len(d.names) >= d.limits.Entries {
			return Entry{}, &DamageError{Entry: e.Name, Reason: fmt.Sprintf("more than %d entries", d.limits.Entries)}
		}
		d.names[e.Name] = struct{}{}
	}
	d.entry, d.left, d.open = e, e.Size, true
	return e, nil
}

// take gives up to limit bytes of the body. They stay until the next call.
func (d *Reader) take(limit int64) ([]byte, error) {
	data, err := d.s.next(min(limit, d.left))
	if err != nil {
		return nil, d.explain(err)
	}
	d.left -= int64(len(data))
	if d.entry.Name != SumsName {
		d.hash.add(d.s.cur, data)
	}
	return data, nil
}

// finish reads what fills the last block of a body.
func (d *Reader) finish() error {
	if !d.open {
		return nil
	}
	d.open = false
	if d.entry.Name != SumsName {
		d.hash.end(d.entry.Name)
	}
	return d.zeros(padding(d.entry.Size))
}

func (d *Reader) zeros(n int64) error {
	block := make([]byte, n)
	if err := d.s.readFull(block); err != nil {
		return d.explain(err)
	}
	if strings.Trim(string(block), "\x00") != "" {
		return &DamageError{Entry: d.entry.Name, Reason: "bytes after its end that are not zero"}
	}
	return nil
}

// text reads a whole entry.
func (d *Reader) text(e Entry) ([]byte, error) {
	// Grown as it comes: a header may promise much.
	var text []byte
	for d.left > 0 {
		data, err := d.take(d.left)
		if err != nil {
			return nil, err
		}
		text = append(text, data...)
	}
	return text, d.finish()
}

// Read reads the body of the current file.
func (d *Reader) Read(p []byte) (int, error) {
	if d.err != nil {
		return 0, d.err
	}
	if d.left == 0 {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	data, err := d.take(int64(len(p)))
	if err != nil {
		d.err = err
		return 0, err
	}
	return copy(p, data), nil
}

// WriteTo writes the rest of the current file to w, without a copy.
func (d *Reader) WriteTo(w io.Writer) (int64, error) {
	var done int64
	for d.err == nil && d.left > 0 {
		data, err := d.take(d.left)
		if err != nil {
			d.err = err
			break
		}
		n, err := w.Write(data)
		done += int64(n)
		if err == nil && n < len(data) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return done, err
		}
	}
	if d.err == io.EOF {
		return done, nil
	}
	return done, d.err
}

// maxFindings bounds what is told of a dump that is damaged all over.
const maxFindings = 20

// verify reads SHA256SUMS and what must follow it.
func (d *Reader) verify(e Entry) error {
	text, err := d.text(e)
	if err != nil {
		return err
	}
	if err := compare(string(text), d.hash.finish()); err != nil {
		return err
	}
	d.entry = Entry{}
	if err := d.zeros(trailerSize); err != nil {
		return err
	}
	_, err = d.s.next(1)
	if err == nil {
		return &DamageError{Reason: "something follows its end"}
	}
	if err != io.EOF || d.s.src.err.Load() != nil {
		return d.explain(err)
	}
	return nil
}

// compare says which entries are not what SHA256SUMS says of them.
func compare(text string, sums []sum) error {
	if text == string(appendSums(nil, sums)) {
		return nil
	}
	var found []error
	for _, s := range sums {
		var line string
		var ok bool
		if line, text, ok = strings.Cut(text, "\n"); !ok {
			found = append(found, &DamageError{s.name, "no digest in " + SumsName})
			break
		}
		if line == s.digest+"  "+s.name {
			continue
		}
		digest, name, _ := strings.Cut(line, "  ")
		if name != s.name || len(digest) != len(s.digest) {
			found = append(found, &DamageError{SumsName, fmt.Sprintf("line %.200q where that of %s must be", line, s.name)})
			break
		}
		found = append(found, &DamageError{s.name, "its SHA-256 is " + s.digest + ", " + SumsName + " has " + digest})
		if len(found) == maxFindings {
			break
		}
	}
	if len(found) == 0 {
		found = append(found, &DamageError{SumsName, "lines of entries that are not there"})
	}
	return errors.Join(found...)
}

func (d *Reader) explain(err error) error {
	err = d.s.explain(err)
	if damage, ok := errors.AsType[*DamageError](err); ok && d.open {
		damage.Entry = d.entry.Name
	}
	return err
}

// Close ends the goroutines, whatever is still to be read. It waits for a Read
// of the dump that is under way.
func (d *Reader) Close() error {
	if !d.closed {
		d.closed = true
		if d.err == nil {
			d.err = errClosed
		}
		d.hash.finish()
		d.s.close()
	}
	return nil
}
