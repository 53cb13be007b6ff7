package block

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/tombstones"
)

// Names in a block directory.
const (
	metaName  = "meta.json"
	indexName = "index"
	chunksDir = "chunks"

	metaVersion = 1
)

// Built is a finished block in a staging directory. The caller owns the directory.
type Built struct {
	Dir   string // path; the last element is the block's ULID
	Meta  tsdb.BlockMeta
	Files []File // sorted by name
}

// File is a file of a block.
type File struct {
	Name string // relative to the block directory, with slashes
	Size int64  // in bytes
}

// ReadMeta reads the meta.json of the block in dir. It returns an error for a version other
// than 1 and for invalid JSON.
func ReadMeta(dir string) (*tsdb.BlockMeta, error) {
	data, err := os.ReadFile(filepath.Join(dir, metaName))
	if err != nil {
		return nil, fmt.Errorf("read block meta: %w", err)
	}
	var meta tsdb.BlockMeta
	if err := json.Unmarshal(data, &meta); err != nil {
		return nil, fmt.Errorf("read %s of block %s: %w", metaName, filepath.Base(dir), err)
	}
	if meta.Version != metaVersion {
		return nil, fmt.Errorf("read %s of block %s: unknown version %d", metaName, filepath.Base(dir), meta.Version)
	}
	return &meta, nil
}

// writeMeta writes meta.json and an empty tombstones file, as Prometheus does for every
// block.
func writeMeta(dir string, meta *tsdb.BlockMeta) error {
	data, err := json.MarshalIndent(meta, "", "\t")
	if err != nil {
		return fmt.Errorf("encode %s: %w", metaName, err)
	}
	if err := os.WriteFile(filepath.Join(dir, metaName), data, 0o666); err != nil {
		return fmt.Errorf("write block meta: %w", err)
	}
	if _, err := tombstones.WriteFile(slog.New(slog.DiscardHandler), dir, tombstones.NewMemTombstones()); err != nil {
		return fmt.Errorf("write tombstones: %w", err)
	}
	return nil
}

// listFiles returns the files of the block in dir, sorted by name.
func listFiles(dir string) ([]File, error) {
	var files []File
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		files = append(files, File{Name: filepath.ToSlash(name), Size: info.Size()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list files of block: %w", err)
	}
	return files, nil
}

// contentULID returns a ULID of the block's last millisecond and a part of the digest of its
// contents.
func contentULID(maxTime int64, digest []byte) (ulid.ULID, error) {
	var id ulid.ULID
	if err := id.SetTime(min(uint64(max(maxTime, 0)), ulid.MaxTime())); err != nil {
		return id, fmt.Errorf("name block: %w", err)
	}
	if err := id.SetEntropy(digest[:10]); err != nil {
		return id, fmt.Errorf("name block: %w", err)
	}
	return id, nil
}
