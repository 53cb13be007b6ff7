package cli

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/promdump/promdump/internal/fsutil"
)

// longestBase leaves room for ".partial" within the 255 bytes that filesystems allow.
const longestBase = 240

// partial is the name of a dump that is not finished.
func partial(name string) string {
	dir, base := filepath.Split(name)
	if len(base) > longestBase {
		sum := sha256.Sum256([]byte(base))
		base = strings.ToValidUTF8(base[:longestBase-9], "") + fmt.Sprintf("~%x", sum[:4])
	}
	return dir + base + ".partial"
}

// busyError says that another command writes the file.
type busyError struct{ name string }

func (e *busyError) Error() string { return "another promdump is writing " + e.name }

func (e *busyError) Hint() string {
	return "wait until it is done, or name another file with -t"
}

// openPartial opens a file and locks it. The lock ends with the file or the process.
func openPartial(name string, flag int) (*os.File, error) {
	const tries = 10 // the one that had it may have renamed or removed it
	for try := 1; ; try++ {
		f, err := os.OpenFile(name, flag, 0o666)
		if err != nil {
			return nil, err
		}
		// Without locks in this filesystem two commands must not write one file.
		if err := fsutil.Lock(f); errors.Is(err, fsutil.ErrLocked) {
			return nil, errors.Join(&busyError{name}, f.Close())
		}
		if fsutil.SameFile(name, f) {
			return f, nil
		}
		if err := f.Close(); err != nil || try == tries {
			return nil, errors.Join(&busyError{name}, err)
		}
	}
}

// begin removes what the file has of an earlier command, before anything is written.
func (o *output) begin() error {
	if o.began || o.temp == "" {
		return nil
	}
	o.began = true
	if o.resume {
		return nil
	}
	return o.file.Truncate(0)
}

// outputFile is an output that can be cut back and synced.
type outputFile struct{ *output }

// Rewind implements archive.Rewinder.
func (o *outputFile) Rewind(size int64) error {
	if err := o.begin(); err != nil {
		return err
	}
	if err := o.file.Truncate(size); err != nil {
		return err
	}
	_, err := o.file.Seek(size, io.SeekStart)
	return err
}

// Sync implements archive.Syncer.
func (o *outputFile) Sync() error { return o.synced.sync() }

// release closes the file, and with it the lock. It may be called again.
func (o *output) release() error {
	if o.file == nil {
		return nil
	}
	if o.synced != nil {
		o.synced.wait()
	}
	err := o.file.Close()
	o.file = nil
	return err
}

// keep leaves what was written as FILE.partial.
func (o *output) keep() error {
	// What cannot be synced, as on a full disk, is checked when it is resumed.
	_ = o.synced.sync()
	return o.release()
}

// abort removes what this command has written, where that can be done. What an earlier
// one has left stays.
func (o *output) abort() error {
	if o.file == nil {
		return nil
	}
	if o.temp == "" {
		return o.file.Close()
	}
	fi, err := o.file.Stat()
	if err == nil && !o.resume && (o.began || fi.Size() == 0) {
		err = os.Remove(o.temp) // still locked
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return errors.Join(err, o.release())
	}
	return errors.Join(err, o.release())
}

// A file is synced while more is written, so that after a power failure there is much to
// go on with, and the end need not wait for all of it.
const (
	syncBytes = 64 << 20
	syncAfter = 5 * time.Second
)

// syncer syncs a file in the background, once in a while.
type syncer struct {
	file  *os.File
	bytes int64 // since the last time
	last  time.Time
	named bool // its name is durable too
	busy  sync.WaitGroup
	now   sync.Mutex // held while it is synced in the background

	mu  sync.Mutex
	err error
}

func newSyncer(f *os.File) *syncer { return &syncer{file: f, last: time.Now()} }

// wrote counts n bytes. It returns the error of an earlier sync.
func (s *syncer) wrote(n int) error {
	s.bytes += int64(n)
	if s.bytes < syncBytes && time.Since(s.last) < syncAfter || !s.now.TryLock() {
		return nil
	}
	s.bytes, s.last = 0, time.Now()
	s.busy.Go(func() {
		defer s.now.Unlock()
		err := s.flush()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.err = errors.Join(s.err, err)
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *syncer) wait() { s.busy.Wait() }

// sync returns when all that was written is durable.
func (s *syncer) sync() error {
	s.wait()
	s.bytes, s.last = 0, time.Now()
	if s.err != nil {
		return s.err
	}
	return s.flush()
}

func (s *syncer) flush() error {
	err := s.file.Sync()
	if err == nil && !s.named {
		s.named = true
		err = syncDir(filepath.Dir(s.file.Name()))
	}
	return err
}
