package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/datadir"
)

// Target is the data dir as it was found.
type Target struct {
	Dir       string // absolute
	Exists    bool   // false: it is made when the dump is unpacked
	Empty     bool   // no block, no head
	Blocks    []TargetBlock
	HeadBytes int64     // of WAL, out-of-order WAL and head chunks
	HeadTime  time.Time // about the newest sample in the head; zero: not known or no head
	Live      bool      // a server holds the lock
	Free      int64     // bytes for this user on its filesystem; -1: not known
	Size      int64     // bytes of its filesystem
	UID, GID  int       // owner; -1: not known
	Thanos    bool      // a Thanos sidecar ships its blocks
	Retention Retention
	Version   string // of the server at WaitURL
}

// TargetBlock is a block of the target.
type TargetBlock struct {
	ULID    string
	MinTime time.Time // included
	MaxTime time.Time // excluded

	origin origin
	Broken bool // without a readable meta.json; the fields above are empty
}

const (
	lockName   = "lock"
	thanosName = "thanos.shipper.json"
	tmpSuffix  = datadir.Creating
	delSuffix  = datadir.Deleting
)

// inspect reads what the target holds and changes nothing, also not the lock.
func inspect(dir string) (Target, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return Target{}, err
	}
	t := Target{Dir: abs, Empty: true}
	near := abs // what stands for the data dir in questions to the filesystem
	fi, err := os.Stat(abs)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		near = filepath.Dir(abs)
		if fi, err = os.Stat(near); err != nil {
			return Target{}, fmt.Errorf("data dir %s does not exist, nor does its parent: %w", abs, err)
		}
	case err != nil:
		return Target{}, fmt.Errorf("look at data dir: %w", err)
	default:
		t.Exists = true
	}
	if !fi.IsDir() {
		return Target{}, fmt.Errorf("%s is not a directory", near)
	}
	t.UID, t.GID = ownerOf(fi)
	if t.Free, t.Size, err = freeSpace(near); err != nil {
		return Target{}, fmt.Errorf("free space of %s: %w", near, err)
	}
	if t.Exists {
		if err := t.list(); err != nil {
			return Target{}, err
		}
	}
	return t, nil
}

func (t *Target) list() error {
	entries, err := os.ReadDir(t.Dir)
	if err != nil {
		return fmt.Errorf("list data dir: %w", err)
	}
	known := false
	var foreign []string
	for _, e := range entries {
		name := e.Name()
		switch {
		case name == lockName:
			known = true
			if t.Live, err = locked(filepath.Join(t.Dir, name)); err != nil {
				return fmt.Errorf("test the lock of the data dir: %w", err)
			}
		case name == thanosName:
			known, t.Thanos = true, true
		case isBlockName(name) && e.IsDir():
			known, t.Empty = true, false
			b := TargetBlock{ULID: name}
			if m, err := readMeta(filepath.Join(t.Dir, name)); err != nil {
				b.Broken = true
			} else {
				b.MinTime, b.MaxTime, b.origin = ms(m.MinTime), ms(m.MaxTime), m.origin()
			}
			t.Blocks = append(t.Blocks, b)
		case isHeadName(name) && e.IsDir():
			known = true
			if err := t.addHead(name); err != nil {
				return err
			}
		case datadir.IsTSDBName(name):
			known = true
		case name != "lost+found": // a fresh volume
			foreign = append(foreign, name)
		}
	}
	if !known && len(foreign) > 0 {
		return refused(Refusal{
			Reason: fmt.Sprintf("%s is not a data dir: it holds %s and nothing of Prometheus", t.Dir, some(foreign)),
			Hint:   "name a data dir, an empty directory, or one that does not exist yet",
		})
	}
	t.Empty = t.Empty && t.HeadBytes == 0
	return nil
}

// addHead counts a directory of the head. A server that was started once has WAL
// segments of zero bytes: nothing is lost with those.
func (t *Target) addHead(name string) error {
	return walk(filepath.Join(t.Dir, name), func(_ string, fi os.FileInfo) error {
		if fi.Mode().IsRegular() && fi.Size() > 0 {
			t.HeadBytes += fi.Size()
			if fi.ModTime().After(t.HeadTime) {
				t.HeadTime = fi.ModTime().UTC()
			}
		}
		return nil
	})
}

func (t *Target) block(id string) *TargetBlock {
	i := slices.IndexFunc(t.Blocks, func(b TargetBlock) bool { return b.ULID == id })
	if i < 0 {
		return nil
	}
	return &t.Blocks[i]
}

// origins are those of all blocks that can be read.
func (t *Target) origins() (all []origin) {
	for _, b := range t.Blocks {
		if !b.Broken {
			all = append(all, b.origin)
		}
	}
	return all
}

func isBlockName(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}

func isHeadName(name string) bool { return slices.Contains(datadir.HeadNames(), name) }

func some(names []string) string {
	if len(names) > 3 {
		return strings.Join(names[:3], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}
