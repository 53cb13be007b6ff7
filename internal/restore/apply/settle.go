package apply

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// Discard removes what a replacement with an ID has taken away.
func Discard(ctx context.Context, dir, id string, patience time.Duration) (_ *wire.Discarded, err error) {
	lock, err := lockDir(ctx, dir, patience)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return (&replacement{dir: dir, id: id, step: func(string) error { return nil }}).discard()
}

// FindReplaced returns the data directory that a replacement with an ID is of. In the
// middle of one it may not look like a data directory.
func FindReplaced(dirs []string, id string) (string, error) {
	if !isULID(id) {
		return "", fmt.Errorf("%q is no ID of a replacement", id)
	}
	for _, dir := range dirs {
		if fi, err := os.Stat(filepath.Join(dir, datadir.AsidePrefix+id)); err == nil && fi.IsDir() {
			return dir, nil
		}
	}
	return Find(dirs)
}

// settle finds out what an earlier session did for the same replacement. Offline it ends
// the replacements of others, too: it undoes those that were killed half-way, and removes
// the old contents of those that were killed after it. Those that a server has worked
// with since are left alone, since that would be lost.
func (s *Session) settle(ctx context.Context) (*wire.Restored, error) {
	if s.o.Replace != "" && !s.o.Offline {
		return s.replacement(ctx, s.o.Replace).before()
	}
	all, err := asides(s.dir)
	if err != nil || !s.o.Offline || len(all) == 0 {
		return nil, err
	}
	held, err := lockServer(s.dir, s.owner)
	if _, live := errors.AsType[*LiveError](err); live {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		if serr := s.settleOne(ctx, a); serr != nil {
			err = fmt.Errorf("settle the restore that %s is of: %w", filepath.Join(s.dir, a.Dir), serr)
			break
		}
	}
	return nil, errors.Join(err, held.release())
}

func (s *Session) settleOne(ctx context.Context, a wire.Aside) error {
	r := s.replacement(ctx, a.Dir[len(datadir.AsidePrefix):])
	j, err := r.read()
	switch {
	case !isULID(r.id), a.Done && !j.Discard: // not ours, or its client keeps the old contents for now
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if names, err := r.old(); len(names) > 0 || err != nil { // not of this version
			return err
		}
	case err == nil && !a.Done:
		if used, err := r.used(j); used || err != nil {
			return err
		}
	}
	if _, err = r.before(); err == nil && a.Done {
		_, err = r.discard()
	}
	if j.State != "" { // else it was killed before it began
		s.Settled = append(s.Settled, a)
	}
	return errors.Join(err, os.RemoveAll(r.root()))
}

// Unfinished returns the directory with the old contents of a data directory that a
// replacement, which was killed, has taken apart; empty: it is whole, or a server has
// worked with it since.
func Unfinished(dir string) (string, error) {
	all, err := asides(dir)
	for _, a := range all {
		r := &replacement{dir: dir, id: a.Dir[len(datadir.AsidePrefix):]}
		names, oerr := r.old()
		if a.Done || oerr != nil || len(names) == 0 {
			continue
		}
		if j, jerr := r.read(); jerr == nil {
			if used, uerr := r.used(j); uerr == nil && !used {
				return r.aside(), nil
			}
		}
	}
	return "", err
}

// used reports whether a server has been at work in the data directory since the journal
// was written.
func (r *replacement) used(j journal) (bool, error) {
	names, err := r.old()
	if err != nil {
		return false, err
	}
	if j.State == publishing {
		late, err := r.late(j)
		if err != nil || late != "" {
			return late != "", err
		}
		names = j.New
	}
	fi, err := os.Stat(r.journal())
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if changed, err := changedSince(filepath.Join(r.dir, name), fi.ModTime()); changed || err != nil {
			return changed, err
		}
	}
	return false, nil
}

// changedSince reports whether a file below root, if there are any, was written after a
// time.
func changedSince(root string, t time.Time) (changed bool, err error) {
	err = filepath.WalkDir(root, func(_ string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err == nil {
			changed = changed || fi.ModTime().After(t)
		}
		return err
	})
	return changed, err
}
