package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// creating is what a server's own blocks are called until they are whole: it
// removes such directories when it starts.
const creating = datadir.Creating

// serveReceive takes blocks from stdin. All of them are there, whole and on the
// disk before the first gets its name; when anything fails none is left behind.
// With Call.Replace they take the place of all that is there, and so may a head.
func (p Process) serveReceive(ctx context.Context, cancel context.CancelCauseFunc, call wire.Call, in *bufio.Reader) error {
	w, err := wire.NewWriter(p.Out, call.Codec)
	if err != nil {
		return err
	}
	alive, stop := context.WithCancel(ctx)
	defer stop()
	go keepAlives(alive, w)
	r := &receiver{}
	done := make(chan error, 1)
	go func() { done <- p.receive(call, in, w, r) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		err = context.Cause(ctx) // whoever reads stdin cannot be stopped, but does nothing any more
	}
	finished, ended := r.end()
	if finished && err != nil {
		// Nothing takes it back any more: the client is told, if there is one.
		select {
		case err = <-done:
		case <-time.After(graceTime):
		}
	}
	err = errors.Join(err, ended)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return err // the stream broke, and whoever hears that in words does not try again
	}
	if err != nil {
		f := failure(err)
		if f.Code == codeIncomplete { // nothing of it is left
			f.Code = codeNoAgent
		}
		err = errors.Join(err, w.Fail(f))
	}
	if _, short := errors.AsType[*MemoryError](context.Cause(ctx)); short {
		// The client ends the stream when it has the failure.
		select {
		case <-done: //nolint:errcheck // the failure is what counts
		case <-time.After(graceTime):
		}
		return err
	}
	werr := watch(in, cancel).wait(ctx)
	return errors.Join(err, werr)
}

func (p Process) receive(call wire.Call, in io.Reader, w *wire.Writer, r *receiver) error {
	if p.short != nil {
		return p.short
	}
	dir, err := r.find(call)
	if err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	ready := wire.Ready{}
	if ready.Done, err = r.begin(dir); err != nil {
		return err
	}
	if err := w.Answer(ready); err != nil || ready.Done != nil {
		return err
	}
	var got wire.End
	for m, err := range wire.NewReader(in).All() {
		if err != nil {
			return fmt.Errorf("receive blocks: %w", err)
		}
		switch m := m.(type) {
		case *wire.File:
			got.Files++
			got.Bytes += uint64(m.Size)
			err = r.file(m)
		case *wire.End:
			if *m != got {
				return fmt.Errorf("receive blocks: here are %d files with %d bytes, not %d with %d", got.Files, got.Bytes, m.Files, m.Bytes)
			}
			err = r.publish()
		default:
			err = fmt.Errorf("receive blocks: %T is no part of one", m)
		}
		if err != nil {
			return err
		}
	}
	return w.Answer(r.result)
}

// receiver puts blocks into a data dir.
type receiver struct {
	mu       sync.Mutex // between the work and an end that comes from elsewhere
	ended    bool
	finished bool // all is in its place
	dir      string
	replace  *replacement // nil: beside what is there

	owner  [2]int          // uid and gid of the data dir, if we may give files away; else -1
	staged []string        // ULIDs that are there under a name of their own
	skip   map[string]bool // that were there before
	result wire.Restored
}

func (r *receiver) find(call wire.Call) (string, error) {
	if call.Replace == nil {
		return findTarget(call.Dirs)
	}
	dir, err := replacing(call.Dirs, call.Replace.ID)
	r.replace = &replacement{dir: dir, id: call.Replace.ID}
	return dir, err
}

// lockDir keeps two agents from working in one data dir: that of a stream which
// was cut may still be about to end. A server has another lock.
func lockDir(dir string) (*os.File, error) {
	const patience, every = clientSilence + 5*time.Second, 50 * time.Millisecond
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	for begin := time.Now(); ; time.Sleep(every) {
		locked, err := tryLock(f)
		switch {
		case locked:
			return f, nil
		case err != nil:
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
		case time.Since(begin) > patience:
			return nil, errors.Join(fmt.Errorf("another restore is at work in %s", dir), f.Close())
		}
	}
}

// begin tells of what an earlier try has done already.
func (r *receiver) begin(dir string) (*wire.Restored, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return nil, errClientGone
	}
	r.dir, r.skip, r.owner = dir, map[string]bool{}, [2]int{-1, -1}
	uid, gid, err := ownerOf(dir)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, err)
	}
	if os.Getuid() == 0 {
		r.owner = [2]int{uid, gid}
	}
	if r.replace == nil {
		return nil, nil
	}
	r.replace.owner = r.owner
	before, err := r.replace.before()
	if err != nil || before != nil {
		return before, err
	}
	if err := os.RemoveAll(r.replace.ready()); err != nil {
		return nil, err
	}
	r.staged = append(r.staged, r.replace.id)
	return nil, r.mkdir(r.replace.ready())
}

// blockFile is what may come, and nothing else.
var blockFile = regexp.MustCompile(`^([0-9A-HJKMNP-TV-Z]{26})/(meta\.json|index|tombstones|chunks/[0-9]{6})$`)

// headFile is what may come too when all is replaced.
var headFile = regexp.MustCompile(
	`^(wal/(checkpoint\.[0-9]{6,10}/)?[0-9]{6,10}|wbl/[0-9]{8,10}|chunks_head/[0-9]{6,10})$`)

func (r *receiver) file(f *wire.File) error {
	if r.replace != nil {
		return r.fileToReplace(f)
	}
	parts := blockFile.FindStringSubmatch(f.Name)
	if parts == nil || f.Offset != 0 || !isBlock(parts[1]) {
		return fmt.Errorf("receive blocks: %q is no file of a block", f.Name)
	}
	id, name := parts[1], parts[2]
	if err := r.block(id); err != nil {
		return err
	}
	if r.skip[id] {
		_, err := io.Copy(io.Discard, f.Body)
		return err
	}
	path := filepath.Join(r.dir, id+creating, filepath.FromSlash(name))
	if strings.HasPrefix(name, "chunks/") {
		if err := r.guard(func() error { return r.mkdir(filepath.Dir(path)) }); err != nil {
			return err
		}
	}
	return r.write(path, f)
}

func (r *receiver) fileToReplace(f *wire.File) error {
	parts := blockFile.FindStringSubmatch(f.Name)
	if block := parts != nil && isBlock(parts[1]); f.Offset != 0 || !block && !headFile.MatchString(f.Name) {
		return fmt.Errorf("receive blocks: %q is no file of a block or a head", f.Name)
	}
	path := r.replace.ready()
	names := strings.Split(f.Name, "/")
	for _, name := range names[:len(names)-1] {
		path = filepath.Join(path, name)
		if err := r.guard(func() error { return r.mkdir(path) }); err != nil {
			return err
		}
	}
	return r.write(filepath.Join(path, names[len(names)-1]), f)
}

// guard runs a step that makes something, unless all was ended already.
func (r *receiver) guard(f func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return errClientGone
	}
	return f()
}

// block begins a block with its first file.
func (r *receiver) block(id string) error {
	return r.guard(func() error {
		if _, known := r.skip[id]; known {
			return nil
		}
		if _, err := os.Lstat(filepath.Join(r.dir, id)); err == nil {
			r.skip[id] = true
			r.result.Skipped = append(r.result.Skipped, id)
			return nil
		}
		r.skip[id] = false
		r.staged = append(r.staged, id)
		tmp := filepath.Join(r.dir, id+creating)
		if err := os.RemoveAll(tmp); err != nil { // of a restore that was killed
			return err
		}
		return r.mkdir(tmp)
	})
}

func (r *receiver) mkdir(path string) error {
	if err := os.Mkdir(path, 0o777); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return os.Chown(path, r.owner[0], r.owner[1])
}

func (r *receiver) write(path string, f *wire.File) (err error) {
	var out *os.File
	if err := r.guard(func() error {
		out, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		return err
	}); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	if _, err := io.Copy(out, f.Body); err != nil {
		return fmt.Errorf("receive %s: %w", f.Name, err)
	}
	if err := out.Chown(r.owner[0], r.owner[1]); err != nil {
		return err
	}
	return out.Sync()
}

// publish gives all blocks their names.
func (r *receiver) publish() error {
	if r.replace != nil {
		return r.swap()
	}
	for _, id := range r.staged {
		tmp := filepath.Join(r.dir, id+creating)
		for _, dir := range []string{filepath.Join(tmp, "chunks"), tmp} {
			if err := syncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	for len(r.staged) > 0 {
		if err := r.guard(func() error {
			id := r.staged[0]
			final := filepath.Join(r.dir, id)
			if err := os.Rename(filepath.Join(r.dir, id+creating), final); err != nil {
				return err
			}
			r.staged = r.staged[1:]
			r.result.Added = append(r.result.Added, id)
			r.finished = len(r.staged) == 0
			now := time.Now()
			return os.Chtimes(final, now, now)
		}); err != nil {
			return err
		}
	}
	return syncDir(r.dir)
}

// swap is one step: whoever ends us meanwhile waits for it.
func (r *receiver) swap() error {
	err := filepath.WalkDir(r.replace.ready(), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.IsDir() {
			return err
		}
		return syncDir(path)
	})
	if err != nil {
		return err
	}
	return r.guard(func() error {
		result, err := r.replace.swap()
		if err != nil {
			return err
		}
		r.result, r.finished = *result, true
		return nil
	})
}

// end removes what has not got its name, and tells whether all has.
func (r *receiver) end() (finished bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = true
	for _, id := range r.staged {
		err = errors.Join(err, os.RemoveAll(filepath.Join(r.dir, id+creating)))
	}
	r.staged = nil
	return r.finished, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if cannotSync(err) {
		err = nil // some filesystems cannot
	}
	return errors.Join(err, d.Close())
}
