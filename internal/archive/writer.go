package archive

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a Writer. The output depends on what is written, Compression and
// ModTime alone: not on Concurrency, nor on the machine.
type Options struct {
	Compression Compression // empty: Gzip
	ModTime     time.Time   // of all entries, cut to the second
	Concurrency int         // goroutines that compress; 0: as many as processors
}

// Writer writes a dump: Manifest, then File for each file, then Close. Its
// methods are for one goroutine, Stats aside. An error of any of them is final, but
// for one that [Writer.Rollback] takes back.
//
// Each Write of the output is a whole piece: what was written before it can be read
// without it.
//
// The bytes of a file are read, hashed, compressed and written by different
// goroutines, in pieces of bounded number and size. So the error of a write may
// be returned by a later File, or by Close.
//
// To give up, let the reader of the file that is being written return an error,
// and call Abort. A Write that hangs is waited for: what may hang must be closed
// from outside.
type Writer struct {
	opts   Options
	limits Limits
	w      io.Writer
	names  map[string]struct{}
	order  []string // names, as they were written
	hash   *hasher
	in     atomic.Int64
	out    atomic.Int64

	pool    pool
	cur     *piece // being filled
	work    chan *piece
	ordered chan step // the same pieces, in the order of the stream
	wg      sync.WaitGroup
	stopped bool

	// caller is the error of a file or of a wrong call. What was written before it is
	// sound.
	caller error

	failed   atomic.Bool
	mu       sync.Mutex
	err      error // the first one of the output or of an encoder
	returned bool  // err was returned to the caller
}

// step is one of the things that flush does, in their order.
type step struct {
	piece *piece        // to write
	mark  *atomic.Int64 // gets the offset in the output
	reach chan struct{} // closed when all before it is done
}

var (
	errClosed  = errors.New("the dump is closed")
	errAborted = errors.New("the dump was given up")
)

// NewWriter starts a dump on w. Close or Abort must be called; w is not closed.
func NewWriter(w io.Writer, opts Options) (*Writer, error) { return newWriter(w, opts, nil) }

// newWriter returns a writer for a dump that already has the entries in sums.
func newWriter(w io.Writer, opts Options, sums []sum) (*Writer, error) {
	var err error
	if opts.Compression, err = ParseCompression(string(opts.Compression)); err != nil {
		return nil, err
	}
	if opts.Concurrency <= 0 {
		opts.Concurrency = runtime.GOMAXPROCS(0)
	}
	if opts.Compression == None {
		opts.Concurrency = 0
	}
	var encoders []encoder
	for range opts.Concurrency {
		e, err := newEncoder(opts.Compression)
		if err != nil {
			return nil, err
		}
		encoders = append(encoders, e)
	}

	// One piece for each encoder, and for who reads, who hashes, who writes and
	// who waits for its turn to be written.
	n := opts.Concurrency + 4
	d := &Writer{
		opts:    opts,
		limits:  Limits{}.withDefaults(),
		w:       w,
		names:   make(map[string]struct{}),
		hash:    newHasher(sums),
		pool:    newPool(n, pieceSize(opts.Compression)),
		work:    make(chan *piece, n),
		ordered: make(chan step, n),
	}
	for _, s := range sums {
		d.names[s.name] = struct{}{}
		d.order = append(d.order, s.name)
	}
	d.cur = d.pool.take()
	d.cur.kind = smallKind
	for _, e := range encoders {
		d.wg.Go(func() { d.compress(e) })
	}
	d.wg.Go(d.flush)
	return d, nil
}

// Neither compress nor flush ever stops early: after a failure they go on
// without doing anything, so that no one who waits for a piece waits forever.

func (d *Writer) compress(e encoder) {
	for p := range d.work {
		if !d.failed.Load() {
			if p.out == nil {
				// Grown step by step, it would leave twice its size behind as garbage.
				p.out = make([]byte, 0, p.size+p.size/64)
			}
			var err error
			if p.out, err = e.encode(p.out[:0], p.buf, p.kind); err != nil {
				d.fail(fmt.Errorf("compress the dump: %w", err))
			}
		}
		p.done <- struct{}{}
	}
}

func (d *Writer) flush() {
	for s := range d.ordered {
		switch {
		case s.piece != nil:
			d.write(s.piece)
			s.piece.release()
		case s.mark != nil:
			s.mark.Store(d.out.Load())
			d.sync()
		case s.reach != nil:
			close(s.reach)
		}
	}
}

func (d *Writer) write(p *piece) {
	out := p.buf
	if d.opts.Compression != None {
		<-p.done
		out = p.out
	}
	if d.failed.Load() {
		return
	}
	n, err := d.w.Write(out)
	if err == nil && n < len(out) {
		err = io.ErrShortWrite
	}
	d.out.Add(int64(n))
	if err != nil {
		d.fail(fmt.Errorf("write the dump: %w", err))
	}
}

// sync makes an uncompressed dump durable up to a mark before anything follows it: it
// has no checksums yet that would show what a power failure took.
func (d *Writer) sync() {
	s, ok := d.w.(Syncer)
	if !ok || d.opts.Compression != None || d.failed.Load() {
		return
	}
	if err := s.Sync(); err != nil {
		d.fail(fmt.Errorf("write the dump: %w", err))
	}
}

// fail keeps the first error of the output or of an encoder.
func (d *Writer) fail(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.err == nil {
		d.err = err
		d.failed.Store(true)
	}
}

// refuse keeps the first error of a file or of a wrong call.
func (d *Writer) refuse(err error) error {
	if first := d.firstError(); first != nil {
		return first
	}
	d.caller = err
	return err
}

func (d *Writer) firstError() error {
	if d.caller != nil {
		return d.caller
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.returned = d.err != nil
	return d.err
}

// send passes the current piece on and begins the next one.
func (d *Writer) send(next kind) error {
	if len(d.cur.buf) > 0 {
		d.ordered <- step{piece: d.cur}
		if d.opts.Compression != None {
			d.work <- d.cur
		}
		d.cur = d.pool.take()
	}
	d.cur.kind = next
	return d.firstError()
}

// append puts bytes of the tar itself into the stream.
func (d *Writer) append(data []byte) error {
	for len(data) > 0 {
		if d.cur.room() == 0 {
			if err := d.send(d.cur.kind); err != nil {
				return err
			}
		}
		n := min(d.cur.room(), len(data))
		d.cur.buf = append(d.cur.buf, data[:n]...)
		data = data[n:]
	}
	return nil
}

// Manifest writes the first entry. It sets Format and the texts of times.
func (d *Writer) Manifest(m Manifest) error {
	if err := d.firstError(); err != nil {
		return err
	}
	if len(d.names) > 0 {
		return d.refuse(errors.New("the manifest must be the first entry of the dump, once"))
	}
	text, err := m.encode()
	if err != nil {
		return d.refuse(err)
	}
	return d.text(ManifestName, text)
}

// File writes a file of exactly size bytes, which r must give, and then io.EOF.
// The name is relative to the data dir, as docs/format.md lists them.
func (d *Writer) File(name string, size int64, r io.Reader) error {
	if err := d.firstError(); err != nil {
		return err
	}
	if name == ManifestName || name == NotesName || name == SumsName {
		return d.refuse(fmt.Errorf("write %s: the writer makes this entry itself", name))
	}
	if len(d.names) == 0 {
		return d.refuse(fmt.Errorf("write %s: the manifest must come first", name))
	}
	if _, ok := d.names[NotesName]; ok {
		return d.refuse(fmt.Errorf("write %s: it comes after the notes", name))
	}
	if err := d.begin(Entry{name, size}); err != nil {
		return d.refuse(fmt.Errorf("write %s: %w", name, err))
	}
	if err := d.body(size, r); err != nil {
		if d.failed.Load() {
			return d.firstError() // of an earlier write, not of this file
		}
		return d.refuse(fmt.Errorf("write %s: %w", name, err))
	}
	return d.end(Entry{name, size})
}

// Notes writes what was found while the files were written: each note is a sentence to
// be shown to the user. Call it after all files are written; without notes it writes
// nothing.
func (d *Writer) Notes(notes []string) error {
	if err := d.firstError(); err != nil || len(notes) == 0 {
		return err
	}
	text, err := encodeNotes(notes)
	if err != nil {
		return d.refuse(err)
	}
	return d.text(NotesName, text)
}

func (d *Writer) text(name string, text []byte) error {
	e := Entry{name, int64(len(text))}
	if err := d.begin(e); err != nil {
		return d.refuse(fmt.Errorf("write %s: %w", name, err))
	}
	for len(text) > 0 {
		if d.cur.room() == 0 {
			if err := d.send(d.cur.kind); err != nil {
				return err
			}
		}
		n := min(d.cur.room(), len(text))
		at := len(d.cur.buf)
		d.cur.buf = append(d.cur.buf, text[:n]...)
		if name != SumsName {
			d.hash.add(d.cur, d.cur.buf[at:])
		}
		text = text[n:]
	}
	if name == SumsName {
		return d.append(make([]byte, padding(e.Size)))
	}
	return d.end(e)
}

// ownPiece is the size from which a file is worth a piece of its own kind.
const ownPiece = 64 << 10

func (d *Writer) begin(e Entry) error {
	if err := checkName(e.Name); err != nil {
		return err
	}
	if err := d.limits.checkSize(e.Name, e.Size); err != nil {
		return err
	}
	if _, ok := d.names[e.Name]; ok {
		return errors.New("the dump has this entry already")
	}
	if len(d.names) >= d.limits.Entries && e.Name != SumsName {
		return fmt.Errorf("more than %d entries", d.limits.Entries)
	}
	d.names[e.Name] = struct{}{}
	d.order = append(d.order, e.Name)
	// A dump can be gone on with behind each large file, too.
	if e.Size >= ownPiece && d.opts.Compression != None {
		if err := d.send(kindOf(e.Name)); err != nil {
			return err
		}
	}
	header, err := appendHeader(nil, e, d.opts.ModTime)
	if err != nil {
		return err
	}
	return d.append(header)
}

func (d *Writer) end(e Entry) error {
	d.hash.end(e.Name)
	return d.append(make([]byte, padding(e.Size)))
}

// body copies size bytes and makes sure that r ends there.
func (d *Writer) body(size int64, r io.Reader) error {
	var done int64
	for idle := 0; done < size; {
		if d.cur.room() == 0 {
			if err := d.send(d.cur.kind); err != nil {
				return err
			}
		}
		at := len(d.cur.buf)
		n, err := r.Read(d.cur.buf[at : at+int(min(int64(d.cur.room()), size-done))])
		if n > 0 {
			d.cur.buf = d.cur.buf[:at+n]
			d.hash.add(d.cur, d.cur.buf[at:])
			done += int64(n)
			d.in.Add(int64(n))
			idle = 0
		}
		switch {
		case done == size:
			if err == nil {
				return ended(r, size)
			}
			if err != io.EOF {
				return err
			}
			return nil
		case err == io.EOF:
			return fmt.Errorf("it ended after %d of %d bytes: %w", done, size, io.ErrUnexpectedEOF)
		case err != nil:
			return err
		case n == 0:
			if idle++; idle > maxIdle {
				return io.ErrNoProgress
			}
		}
	}
	return ended(r, size)
}

func ended(r io.Reader, size int64) error {
	var one [1]byte
	for range maxIdle {
		n, err := r.Read(one[:])
		switch {
		case n > 0:
			return fmt.Errorf("it has more than the %d bytes announced", size)
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
	}
	return io.ErrNoProgress
}

// Close writes SHA256SUMS and the end of the tar. Only when it returns nil is
// the dump whole, as far as w tells: syncing and closing w is up to its owner.
func (d *Writer) Close() error {
	if d.stopped {
		return d.refuse(errClosed)
	}
	if d.firstError() == nil && len(d.names) == 0 {
		_ = d.refuse(errors.New("a dump needs a manifest"))
	}
	if d.firstError() == nil {
		// The first error is in d, whoever made it.
		if d.text(SumsName, appendSums(nil, d.hash.finish())) == nil &&
			d.append(make([]byte, trailerSize)) == nil {
			_ = d.send(smallKind)
		}
	}
	d.stop()
	err := d.firstError()
	_ = d.refuse(errClosed)
	return err
}

// Suspend ends all goroutines and leaves what was written incomplete, but so that
// each entry that was written can be read, and the part of one whose reader failed.
// Its error is one that no other method has returned.
func (d *Writer) Suspend() error {
	if d.stopped {
		return d.refuse(errClosed)
	}
	d.mu.Lock()
	returned := d.returned
	d.mu.Unlock()
	if !d.failed.Load() {
		_ = d.send(smallKind) // the first error is in d
	}
	d.stop()
	if d.failed.Load() && !returned {
		return d.err
	}
	_ = d.refuse(errClosed)
	return nil
}

// Abort ends all goroutines and leaves what was written incomplete. After Close
// it does nothing.
func (d *Writer) Abort() {
	if !d.stopped {
		d.fail(errAborted)
		d.stop()
	}
}

func (d *Writer) stop() {
	d.stopped = true
	d.hash.finish()
	close(d.work)
	close(d.ordered)
	d.wg.Wait()
}

// Stats counts bytes. It may be called at any time, by any goroutine.
type Stats struct {
	In  int64 // read from files
	Out int64 // of the dump, written
}

// Stats tells how much was done until now.
func (d *Writer) Stats() Stats { return Stats{In: d.in.Load(), Out: d.out.Load()} }
