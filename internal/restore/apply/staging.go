package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/datadir"
)

// lockDir keeps two sessions from working in one data directory: that of a stream which
// was cut may still be about to end. A server has another lock.
func lockDir(ctx context.Context, dir string, patience time.Duration) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, &BusyError{dir})
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		locked, err := tryLock(f)
		if locked {
			return f, nil
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", dir, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-tick.C:
		}
	}
}

// MakeStaging makes a staging directory. A [Sweep] leaves it alone while the file that is
// returned is open.
func MakeStaging(root string) (mark *os.File, err error) {
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, fmt.Errorf("make staging directory: %w", err)
	}
	mark, err = os.OpenFile(filepath.Join(root, markName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("mark staging directory: %w", err), os.RemoveAll(root))
	}
	if _, err := tryLock(mark); err != nil {
		return nil, errors.Join(fmt.Errorf("mark staging directory: %w", err), mark.Close(), os.RemoveAll(root))
	}
	return mark, nil
}

// Sweep removes the staging directories in parent of restores that were killed.
func Sweep(parent string, log *slog.Logger) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("look for staging of earlier restores: %w", err)
	}
	for _, e := range entries {
		if id, gone := strings.CutSuffix(e.Name(), datadir.Deleting); gone && isULID(id) {
			// The old contents that a replacement was removing.
			if _, err := os.Lstat(filepath.Join(parent, e.Name(), journalName)); err == nil {
				if err := os.RemoveAll(filepath.Join(parent, e.Name())); err != nil {
					return fmt.Errorf("remove what a killed restore left behind: %w", err)
				}
			}
			continue
		}
		id, ours := strings.CutSuffix(e.Name(), datadir.Creating)
		if !ours || !isULID(id) {
			continue
		}
		root := filepath.Join(parent, e.Name())
		busy, err := locked(filepath.Join(root, markName))
		if busy || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look for staging of earlier restores: %w", err)
		}
		log.Info("remove what a killed restore left behind", "dir", root)
		if err := os.RemoveAll(root); err != nil {
			return fmt.Errorf("remove what a killed restore left behind: %w", err)
		}
	}
	return nil
}

// serverLock is the lock of a server, held so that none starts meanwhile.
type serverLock struct {
	f    *os.File
	made bool
}

func lockServer(dir string, owner owner) (*serverLock, error) {
	name := filepath.Join(dir, lockName)
	l := &serverLock{}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		l.made = true
		f, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	}
	if err != nil {
		return nil, fmt.Errorf("lock data dir: %w", err)
	}
	l.f = f
	ok, err := tryLock(f)
	if err == nil && ok {
		// If this process is killed now, a server of another user must be able to take it.
		err = owner.give(name)
	}
	switch {
	case err != nil:
		return nil, errors.Join(fmt.Errorf("lock data dir: %w", err), l.release())
	case !ok, len(Servers(dir)) > 0:
		l.made = false
		return nil, errors.Join(&LiveError{dir}, l.release())
	}
	return l, nil
}

func (l *serverLock) release() error {
	var err error
	if l.made {
		err = os.Remove(l.f.Name())
	}
	return errors.Join(err, l.f.Close())
}
