package agent

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

// replacement puts what lies ready in the place of all that a data dir holds:
//
//	<ID>.tmp-for-creation/     what lies ready; a server that starts removes it
//	promdump-replaced-<ID>/    the old contents, which it leaves alone, and
//	    promdump.json          how far it is: see journal
//
// No rename moves more than one name, so an agent that is killed in between leaves
// a mixture. The next one with the same ID puts back what was there: the client
// starts it as soon as the stream breaks.
//
// A server that is at work has the old files open, and would go on by their names:
// its next WAL segment, checkpoint or snapshot would land among the new ones, its
// truncation would delete some of them. So it is kept from opening any file
// before the first rename, see hold.
type replacement struct {
	dir, id string
	owner   [2]int

	// step is called before every rename; tests kill the agent there.
	step func(name string) error
}

func (s *replacement) ready() string { return filepath.Join(s.dir, s.id+creating) }
func (s *replacement) aside() string { return filepath.Join(s.dir, datadir.AsidePrefix+s.id) }

// journal says how far a replacement is.
type journal struct {
	State    state          `json:"state"`
	New      []string       `json:"new"` // names that come
	Restored *wire.Restored `json:"restored,omitempty"`
}

type state string

const (
	moving     state = "moving"     // old names go aside; whatever is in the data dir is old
	publishing state = "publishing" // all of them are aside; the new names are new
	done       state = "done"
)

const journalName = "promdump.json"

func (s *replacement) write(j journal) error {
	b, err := json.Marshal(j)
	if err != nil {
		return err
	}
	name := filepath.Join(s.aside(), journalName)
	f, err := os.OpenFile(name+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Chown(s.owner[0], s.owner[1]), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return err
	}
	return syncDir(s.aside())
}

func (s *replacement) read() (j journal, err error) {
	b, err := os.ReadFile(filepath.Join(s.aside(), journalName))
	if err != nil {
		return j, err
	}
	if err := json.Unmarshal(b, &j); err != nil {
		return j, fmt.Errorf("read %s: %w", filepath.Join(s.aside(), journalName), err)
	}
	return j, nil
}

// before looks for an earlier try: what was done is told, what was not is undone.
func (s *replacement) before() (*wire.Restored, error) {
	j, err := s.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It was killed before it began, or after it had undone all.
		err := os.Remove(filepath.Join(s.aside(), journalName+".tmp"))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			err = os.Remove(s.aside())
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return nil, nil
	case err != nil:
		return nil, err
	case j.State == done:
		return j.Restored, os.RemoveAll(s.ready())
	}
	if err := s.undo(j); err != nil {
		return nil, fmt.Errorf("put back what was there: the old contents are in %s: %w", s.aside(), err)
	}
	return nil, nil
}

func (s *replacement) at(name string) error {
	if s.step == nil {
		return nil
	}
	return s.step(name)
}

// swap does it, or puts back what was there.
func (s *replacement) swap() (_ *wire.Restored, err error) {
	j := journal{State: moving}
	if j.New, err = newNames(s.ready()); err != nil {
		return nil, err
	}
	if len(j.New) == 0 {
		return nil, errors.New("nothing came that could take the place of what is there")
	}
	if err := os.Mkdir(s.aside(), 0o777); err != nil {
		return nil, err
	}
	if err := errors.Join(os.Chown(s.aside(), s.owner[0], s.owner[1]), s.write(j)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.aside()))
	}
	defer func() {
		if err == nil {
			return
		}
		if back := s.undo(j); back != nil {
			err = errors.Join(err, fmt.Errorf("the old contents are in %s, moving them back failed: %w", s.aside(), back))
		}
	}()
	result := &wire.Restored{Aside: filepath.Base(s.aside()), Held: hold(s.dir)}
	if result.Replaced, err = s.away(); err != nil {
		return nil, err
	}
	if err := errors.Join(syncDir(s.aside()), syncDir(s.dir)); err != nil {
		return nil, err
	}
	if err := s.at("publish"); err != nil {
		return nil, err
	}
	j.State = publishing
	if err := s.write(j); err != nil {
		return nil, err
	}
	for _, name := range j.New {
		if err := s.move(name, s.ready(), s.dir); err != nil {
			return nil, err
		}
		if isBlock(name) {
			result.Added = append(result.Added, name)
		}
	}
	if err := errors.Join(s.at("published"), syncDir(s.dir)); err != nil {
		return nil, err
	}
	now, err := s.own()
	if err != nil {
		return nil, err
	}
	for _, name := range now {
		if !slices.Contains(j.New, name) {
			return nil, fmt.Errorf("a server made %s meanwhile; run the restore again", name)
		}
	}
	if err := s.write(journal{State: done, New: j.New, Restored: result}); err != nil {
		return nil, err
	}
	return result, nil
}

// away takes the old contents aside. What a server was just making has its name
// by the next look.
func (s *replacement) away() (moved []string, err error) {
	const looks = 10
	for range looks {
		names, err := s.own()
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return moved, nil
		}
		for _, name := range names {
			err := s.move(name, s.dir, s.aside())
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
func (s *replacement) undo(j journal) error {
	defer release(s.dir)
	if err := os.Mkdir(s.ready(), 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if j.State == publishing {
		if err := s.write(journal{State: publishing, New: j.New}); err != nil {
			return err
		}
		for _, name := range j.New {
			if err := s.move(name, s.dir, s.ready()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := errors.Join(s.at("taken back"), syncDir(s.dir)); err != nil {
			return err
		}
		// From here on what is in the data dir is old, whatever its name.
		if err := s.write(journal{State: moving, New: j.New}); err != nil {
			return err
		}
	}
	names, err := s.old()
	if err != nil {
		return err
	}
	for _, name := range names {
		if _, err := os.Lstat(filepath.Join(s.dir, name)); err == nil {
			// A server that could not be held made it meanwhile.
			if err := os.Rename(filepath.Join(s.dir, name), filepath.Join(s.ready(), "late-"+name)); err != nil {
				return err
			}
		}
		if err := s.move(name, s.aside(), s.dir); err != nil {
			return err
		}
	}
	if err := syncDir(s.dir); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(s.aside(), journalName)); err != nil {
		return err
	}
	return errors.Join(os.Remove(s.aside()), syncDir(s.dir))
}

func (s *replacement) move(name, from, to string) error {
	if err := s.at(name + " to " + filepath.Base(to)); err != nil {
		return err
	}
	return os.Rename(filepath.Join(from, name), filepath.Join(to, name))
}

// own are the names in the data dir that are the TSDB's.
func (s *replacement) own() ([]string, error) { return own(s.dir, filepath.Base(s.ready())) }

func own(dir, but string) (names []string, err error) {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if datadir.IsTSDBName(e.Name()) && e.Name() != but {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// old are the names that are aside.
func (s *replacement) old() (names []string, err error) {
	entries, err := os.ReadDir(s.aside())
	for _, e := range entries {
		if e.Name() != journalName {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// newNames are those that lie ready, blocks first: a WAL without its blocks would
// be taken for more than it is.
func newNames(ready string) ([]string, error) {
	entries, err := os.ReadDir(ready)
	if err != nil {
		return nil, err
	}
	var blocks, head []string
	for _, e := range entries {
		if isBlock(e.Name()) {
			blocks = append(blocks, e.Name())
		}
	}
	for _, name := range datadir.HeadNames() {
		if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name }) {
			head = append(head, name)
		}
	}
	return append(blocks, head...), nil
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

// discard removes what a replacement took away.
func discard(dir, id string) (*wire.Discarded, error) {
	s := &replacement{dir: dir, id: id}
	gone := filepath.Join(dir, id+datadir.Deleting)
	result := &wire.Discarded{}
	j, err := s.read()
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case j.State != done:
		return nil, fmt.Errorf("the old contents in %s are the only ones: their replacement did not come to its end", s.aside())
	default:
		// Under this name a server removes what we cannot.
		result.Dir = filepath.Base(s.aside())
		if err := errors.Join(os.Rename(s.aside(), gone), syncDir(dir)); err != nil {
			return nil, err
		}
	}
	return result, os.RemoveAll(gone)
}

func discardIn(call wire.Call, w *wire.Writer) error {
	dir, err := replacing(call.Dirs, call.Replace.ID)
	if err != nil {
		return err
	}
	lock, err := lockDir(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	result, err := discard(dir, call.Replace.ID)
	if err != nil {
		return err
	}
	return w.Answer(result)
}

// replacing finds the data dir of a replacement. In the middle of one it may not
// look like a data dir.
func replacing(dirs []string, id string) (string, error) {
	if !isBlock(id) {
		return "", fmt.Errorf("%q is no ID of a replacement", id)
	}
	for _, dir := range dirs {
		if fi, err := os.Stat(filepath.Join(dir, datadir.AsidePrefix+id)); err == nil && fi.IsDir() {
			return dir, nil
		}
	}
	return findTarget(dirs)
}
