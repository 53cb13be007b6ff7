package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// replacement puts what lies ready in the place of all that a data directory holds; see
// the package's comment for the directories.
type replacement struct {
	dir, id string
	owner   owner
	offline bool // no server is at work: none is frozen

	// check is called before every step forward, step before every change of a name.
	check func() error
	step  func(name string) error
}

func (r *replacement) root() string  { return filepath.Join(r.dir, r.id+datadir.Creating) }
func (r *replacement) ready() string { return filepath.Join(r.root(), readyName) }
func (r *replacement) aside() string { return filepath.Join(r.dir, datadir.AsidePrefix+r.id) }

// journal says how far a replacement is.
type journal struct {
	State    state          `json:"state"`
	New      []string       `json:"new"` // names that come
	Restored *wire.Restored `json:"restored,omitempty"`

	// Discard is set if the old contents are to be removed when all is done. Otherwise
	// they stay until the client discards them.
	Discard bool `json:"discard,omitempty"`
}

type state string

const (
	moving     state = "moving"     // old names go aside; whatever is in the data dir is old
	publishing state = "publishing" // all of them are aside; the new names are new
	done       state = "done"
)

const journalName = "promdump.json"

func (r *replacement) journal() string { return filepath.Join(r.aside(), journalName) }

func (r *replacement) write(j journal) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	tmp := r.journal() + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, r.owner.give(tmp), f.Sync(), f.Close(), r.step("write "+string(j.State))); err != nil {
		return err
	}
	if err := os.Rename(tmp, r.journal()); err != nil {
		return err
	}
	return syncDir(r.aside())
}

func (r *replacement) read() (j journal, err error) {
	b, err := os.ReadFile(r.journal())
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, fmt.Errorf("read %s: %w", r.journal(), err)
	}
	return j, nil
}

// before looks for an earlier try: it returns what was done, and undoes what was not.
func (r *replacement) before() (*wire.Restored, error) {
	j, err := r.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, r.clear()
	case err != nil:
		return nil, err
	case j.State == done:
		return j.Restored, os.RemoveAll(r.root())
	}
	if err := r.undo(j); err != nil {
		return nil, fmt.Errorf("put back what was there: the old contents are in %s: %w", r.aside(), err)
	}
	return nil, nil
}

// clear removes what is left of a replacement that was killed before it began, or after it
// was undone.
func (r *replacement) clear() error {
	err := os.Remove(r.journal() + ".tmp")
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(r.aside())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// swap replaces the contents, or puts back what was there.
func (r *replacement) swap() (_ *wire.Restored, err error) {
	entries, err := os.ReadDir(r.ready())
	if err != nil {
		return nil, gone(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	j := journal{State: moving, New: inOrder(names), Discard: r.offline}
	if len(j.New) == 0 {
		return nil, errors.New("nothing came that could take the place of what is there")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.aside(), 0o777); err != nil {
		return nil, err
	}
	if err := errors.Join(r.owner.give(r.aside()), r.write(j)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(r.aside()))
	}
	defer func() {
		if err == nil {
			return
		}
		if back := r.undo(j); back != nil {
			err = errors.Join(err, fmt.Errorf("the old contents are in %s, moving them back failed: %w", r.aside(), back))
		}
	}()
	result := &wire.Restored{Aside: filepath.Base(r.aside())}
	if !r.offline {
		result.Held = freeze(r.dir)
	}
	if result.Replaced, err = r.away(); err != nil {
		return nil, err
	}
	if err := errors.Join(syncDir(r.aside()), syncDir(r.dir), r.check()); err != nil {
		return nil, err
	}
	j.State = publishing
	if err := r.write(j); err != nil {
		return nil, err
	}
	for _, name := range j.New {
		if err := r.check(); err != nil {
			return nil, err
		}
		if err := r.move(name, r.ready(), r.dir); err != nil {
			return nil, err
		}
		if isULID(name) {
			result.Added = append(result.Added, name)
		}
	}
	if err := errors.Join(r.step("published"), r.check(), syncDir(r.dir)); err != nil {
		return nil, err
	}
	if late, err := r.late(j); err != nil || late != "" {
		return nil, errors.Join(err, fmt.Errorf("a server made %s meanwhile; run the restore again", late))
	}
	if err := r.write(journal{State: done, New: j.New, Restored: result, Discard: j.Discard}); err != nil {
		return nil, err
	}
	return result, nil
}

// late returns a name in the data directory that is not one of those that came.
func (r *replacement) late(j journal) (string, error) {
	names, err := r.own()
	for _, name := range names {
		if !slices.Contains(j.New, name) {
			return name, err
		}
	}
	return "", err
}

// away takes the old contents aside. What a server was just making has its name
// by the next look.
func (r *replacement) away() (moved []string, err error) {
	const looks = 10
	for range looks {
		names, err := r.own()
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return moved, nil
		}
		for _, name := range names {
			if err := r.check(); err != nil {
				return nil, err
			}
			err := r.move(name, r.dir, r.aside())
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return nil, err
			}
			moved = append(moved, name)
		}
	}
	return nil, errors.New("a server makes new files again and again; run the restore again")
}

// undo puts back what was there. It may be killed and begun again.
func (r *replacement) undo(j journal) error {
	if !r.offline {
		defer thaw(r.dir)
	}
	if err := os.MkdirAll(r.ready(), 0o777); err != nil {
		return err
	}
	if j.State == publishing {
		if err := r.write(j); err != nil {
			return err
		}
		for _, name := range j.New {
			if err := r.move(name, r.dir, r.ready()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := errors.Join(r.step("taken back"), syncDir(r.dir)); err != nil {
			return err
		}
		// From here on what is in the data dir is old, whatever its name.
		j.State = moving
		if err := r.write(j); err != nil {
			return err
		}
	}
	names, err := r.old()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(r.dir, name)); err == nil {
			// A server that could not be frozen made it meanwhile.
			if err := os.Rename(filepath.Join(r.dir, name), filepath.Join(r.ready(), "late-"+name)); err != nil {
				return err
			}
		}
		if err := r.move(name, r.aside(), r.dir); err != nil {
			return err
		}
	}
	if err := errors.Join(syncDir(r.dir), r.step("forget")); err != nil {
		return err
	}
	if err := os.Remove(r.journal()); err != nil {
		return err
	}
	return errors.Join(r.clear(), syncDir(r.dir))
}

func (r *replacement) move(name, from, to string) error {
	if err := r.step(name + " to " + filepath.Base(to)); err != nil {
		return err
	}
	return os.Rename(filepath.Join(from, name), filepath.Join(to, name))
}

// own returns the names in the data directory that are the TSDB's.
func (r *replacement) own() (names []string, err error) {
	entries, err := os.ReadDir(r.dir)
	for _, e := range entries {
		if datadir.IsTSDBName(e.Name()) && e.Name() != filepath.Base(r.root()) {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// old returns the names that are aside.
func (r *replacement) old() (names []string, err error) {
	entries, err := os.ReadDir(r.aside())
	for _, e := range entries {
		if e.Name() != journalName && e.Name() != journalName+".tmp" {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// discard removes what a replacement took away.
func (r *replacement) discard() (*wire.Discarded, error) {
	gone := filepath.Join(r.dir, r.id+datadir.Deleting)
	result := &wire.Discarded{}
	j, err := r.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case j.State != done:
		return nil, fmt.Errorf("the old contents in %s are the only ones: "+
			"their replacement did not come to its end", r.aside())
	default:
		// Under this name a server removes what we cannot.
		result.Dir = filepath.Base(r.aside())
		if err := errors.Join(r.step("discard"), os.Rename(r.aside(), gone), syncDir(r.dir), r.step("remove")); err != nil {
			return nil, err
		}
	}
	return result, os.RemoveAll(gone)
}

// inOrder sorts names for publishing: blocks first, and the WAL last. A WAL without its
// blocks would be taken for more than it is.
func inOrder(names []string) []string {
	var blocks, head []string
	for _, name := range names {
		if isULID(name) {
			blocks = append(blocks, name)
		}
	}
	for _, name := range datadir.HeadNames() {
		if slices.Contains(names, name) {
			head = append(head, name)
		}
	}
	return append(blocks, head...)
}

// asides lists what replacements took away, and whether they came to their end.
func asides(dir string) (all []wire.Aside, err error) {
	found, err := filepath.Glob(filepath.Join(dir, datadir.AsidePrefix+"*"))
	for _, path := range found {
		name := filepath.Base(path)
		j, jerr := (&replacement{dir: dir, id: name[len(datadir.AsidePrefix):]}).read()
		all = append(all, wire.Aside{Dir: name, Done: jerr == nil && j.State == done})
	}
	return all, err
}
