package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/wire"
)

// findTarget is the first of the directories that is a data dir, or else the
// first that is a directory: a data dir may be empty still.
func findTarget(dirs []string) (string, error) {
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

// inspect tells what a restore must know of the data dir. It changes nothing.
func inspect(dirs []string) (*wire.Target, error) {
	dir, err := findTarget(dirs)
	if err != nil {
		return nil, err
	}
	uid, _, err := ownerOf(dir)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", dir, err)
	}
	free, size, err := diskOf(dir)
	if err != nil {
		return nil, fmt.Errorf("free space of %s: %w", dir, err)
	}
	t := &wire.Target{
		Dir: dir, UID: uid, AgentUID: os.Getuid(), Free: free, Size: size, Writable: writable(dir),
	}
	if t.Aside, err = asides(dir); err != nil {
		return nil, err
	}
	if t.Own, err = own(dir, ""); err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	t.Servers = len(servers(dir))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", dir, err)
	}
	for _, e := range entries {
		switch name := e.Name(); {
		case isBlock(name):
			t.Blocks = append(t.Blocks, wire.TargetBlock{ULID: name, Meta: readMeta(filepath.Join(dir, name))})
		case name == "wal", name == "wbl", name == "chunks_head":
			if err := addHead(t, filepath.Join(dir, name)); err != nil {
				return nil, err
			}
		case name == "thanos.shipper.json":
			t.Thanos = true
		}
	}
	return t, nil
}

func isBlock(name string) bool {
	_, err := ulid.ParseStrict(name)
	return err == nil
}

const maxMeta = 16 << 20 // bytes

// readMeta is a block's meta.json, or nothing if there is none that is JSON.
func readMeta(dir string) json.RawMessage {
	name := filepath.Join(dir, "meta.json")
	if fi, err := os.Stat(name); err != nil || fi.Size() > maxMeta {
		return nil
	}
	b, err := os.ReadFile(name)
	if err != nil || !json.Valid(b) {
		return nil
	}
	return b
}

func addHead(t *wire.Target, dir string) error {
	return filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // a server truncates it while we look
		}
		if err != nil {
			return fmt.Errorf("look at the head: %w", err)
		}
		fi, err := d.Info()
		if err == nil && fi.Mode().IsRegular() && fi.Size() > 0 {
			t.HeadBytes += fi.Size()
			t.HeadTime = max(t.HeadTime, fi.ModTime().UnixMilli())
		}
		return nil
	})
}
