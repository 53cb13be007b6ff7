package apply

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

const (
	lockName   = "lock"
	thanosName = "thanos.shipper.json"
	metaName   = "meta.json"
)

// Find returns the first of the directories that is a data directory, or else the first
// that is a directory: a data directory may be empty still.
func Find(dirs []string) (string, error) {
	var all error
	for _, dir := range dirs {
		err := datadir.Check(dir)
		if err == nil {
			return dir, nil
		}
		all = errors.Join(all, err)
	}
	for _, dir := range dirs {
		if fi, err := os.Stat(dir); err == nil && fi.IsDir() {
			return dir, nil
		}
	}
	return "", all
}

// Inspect returns what a restore must know of a data directory, and changes nothing, also
// not its lock. The directory need not exist if its parent does.
func Inspect(dir string) (*wire.Target, error) {
	t := &wire.Target{Dir: dir, AgentUID: os.Geteuid()}
	near := dir // what stands for the directory in questions to the filesystem
	fi, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		near = filepath.Dir(dir)
		if fi, err = os.Stat(near); err != nil {
			return nil, fmt.Errorf("data dir %s does not exist, nor does its parent: %w", dir, err)
		}
	case err != nil:
		return nil, fmt.Errorf("read data dir: %w", err)
	default:
		t.Exists = true
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("%s is not a directory", near)
	}
	t.UID, _ = ownerOf(fi)
	t.Writable = writable(near)
	if t.Free, t.Size, err = Disk(near); err != nil {
		return nil, fmt.Errorf("free space of %s: %w", near, err)
	}
	if !t.Exists {
		return t, nil
	}
	t.Servers = len(Servers(dir))
	t.Live = t.Servers > 0
	if t.Aside, err = asides(dir); err != nil {
		return nil, err
	}
	return t, list(t)
}

// list fills in what the names in a data directory say.
func list(t *wire.Target) error {
	entries, err := os.ReadDir(t.Dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", t.Dir, err)
	}
	known := false
	for _, e := range entries {
		name := e.Name()
		path := filepath.Join(t.Dir, name)
		if datadir.IsTSDBName(name) {
			known = true
			t.Own = append(t.Own, name)
		}
		switch {
		case name == lockName:
			known = true
			held, err := locked(path)
			if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
				return fmt.Errorf("test the lock of %s: %w", t.Dir, err)
			}
			t.Live = t.Live || held
		case name == thanosName:
			known, t.Thanos = true, true
		case isULID(name) && e.IsDir():
			t.Blocks = append(t.Blocks, wire.TargetBlock{ULID: name, Meta: readMeta(path)})
		case isHead(name) && e.IsDir():
			if err := addHead(t, path); err != nil {
				return err
			}
		case strings.HasPrefix(name, datadir.AsidePrefix): // half-way, nothing else may be left
			known = true
		case datadir.IsTSDBName(name), name == "lost+found": // of a fresh volume
		default:
			t.Foreign = append(t.Foreign, name)
		}
	}
	if known {
		t.Foreign = nil
	}
	return nil
}

func isULID(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}

func isHead(name string) bool { return slices.Contains(datadir.HeadNames(), name) }

const maxMeta = 16 << 20 // bytes

// readMeta returns a block's meta.json, or nil if there is none that is JSON.
func readMeta(dir string) json.RawMessage {
	name := filepath.Join(dir, metaName)
	if fi, err := os.Stat(name); err != nil || fi.Size() > maxMeta {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil || !json.Valid(b) {
		return nil
	}
	return b
}

// addHead counts a directory of the head. A server that was started once has WAL segments
// of zero bytes: nothing is lost with those.
func addHead(t *wire.Target, dir string) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a server truncates it meanwhile
		}
		if err != nil {
			return fmt.Errorf("read the head: %w", err)
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
			t.HeadBytes += fi.Size()
			t.HeadTime = max(t.HeadTime, fi.ModTime().UnixMilli())
		}
		return nil
	})
}
