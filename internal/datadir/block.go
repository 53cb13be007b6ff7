package datadir

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxMeta bounds what is read of a meta.json, in bytes. The largest ones list
// the sources of a block of many months: some hundred kilobytes.
const maxMeta = 16 << 20

// Meta is what we need of a block's meta.json.
type Meta struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"` // Unix milliseconds, included
	MaxTime int64  `json:"maxTime"` // Unix milliseconds, excluded
	Version int    `json:"version"`
	Stats   struct {
		Samples    uint64 `json:"numSamples"`
		Series     uint64 `json:"numSeries"`
		Chunks     uint64 `json:"numChunks"`
		Tombstones uint64 `json:"numTombstones"`
	} `json:"stats"`
	Compaction Compaction `json:"compaction"`
}

// Compaction says how a block came to be.
type Compaction struct {
	Level   int      `json:"level"`
	Sources []string `json:"sources"`
	Hints   []string `json:"hints"`
}

// fromElsewhere tells whether the block has other samples than the in-order
// ones of a head (tsdb/block.go: FromOutOfOrder, FromStaleSeries,
// FromSelectedSeries): such a block says nothing about where the head begins.
func (c Compaction) fromElsewhere() bool {
	return slices.ContainsFunc(c.Hints, func(h string) bool {
		return h == "from-out-of-order" || h == "from-stale-series" || h == "from-selected-series"
	})
}

// ParseMeta reads a meta.json.
func ParseMeta(b []byte) (Meta, error) {
	var m Meta
	if err := json.Unmarshal(b, &m); err != nil {
		return Meta{}, fmt.Errorf("parse meta.json: %w", err)
	}
	switch {
	case m.Version != 1:
		return Meta{}, fmt.Errorf("meta.json has version %d; this promdump reads version 1", m.Version)
	case !isULID(m.ULID):
		return Meta{}, fmt.Errorf("meta.json names no ULID: %q", m.ULID)
	case m.MinTime > m.MaxTime:
		return Meta{}, fmt.Errorf("meta.json has a range that ends before it begins: %d to %d", m.MinTime, m.MaxTime)
	}
	return m, nil
}

// Block is a persisted block. Its files are open if the block was wanted.
type Block struct {
	Meta  Meta
	Bytes int64   // of all its files
	Files []*File // meta.json, chunks in order, index, tombstones
}

// File is the block's file with this name relative to the block, or nil.
func (b *Block) File(name string) *File {
	for _, f := range b.Files {
		if f.Name == b.Meta.ULID+"/"+name {
			return f
		}
	}
	return nil
}

// Chunks are the block's chunk files, in the order that chunk references count
// them.
func (b *Block) Chunks() []*File {
	var files []*File
	for _, f := range b.Files {
		if strings.HasPrefix(f.Name, b.Meta.ULID+"/chunks/") {
			files = append(files, f)
		}
	}
	return files
}

// Close closes the block's files before the data dir is closed: as long as they
// are open, a block that Prometheus deletes keeps its space on the disk.
func (b *Block) Close() error {
	files := b.Files
	b.Files = nil
	return closeAll(files)
}

// brokenError is about what is in a block, not about getting at it.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }
func (e *brokenError) Unwrap() error { return e.err }

func openBlock(dir, name string, wanted func(Meta) bool) (_ *Block, err error) {
	b := &Block{}
	defer func() {
		if err != nil {
			err = errors.Join(err, closeAll(b.Files))
		}
	}()
	meta, err := openFile(dir, name+"/meta.json")
	if errors.Is(err, errChanged) && exists(filepath.Join(dir, name)) {
		return nil, &brokenError{errors.New("it has no meta.json")}
	}
	if err != nil {
		return nil, err
	}
	b.Files = append(b.Files, meta)
	buf, err := io.ReadAll(io.LimitReader(meta.Body(), maxMeta))
	if err != nil {
		return nil, fmt.Errorf("read meta.json: %w", err)
	}
	if b.Meta, err = ParseMeta(buf); err != nil {
		return nil, &brokenError{err}
	}
	if b.Meta.ULID != name {
		return nil, &brokenError{fmt.Errorf("meta.json names another block: %s", b.Meta.ULID)}
	}
	chunks, err := segments(dir, name+"/chunks")
	if err != nil {
		return nil, err
	}
	rest := append(chunks, name+"/index")
	if exists(filepath.Join(dir, name, "tombstones")) {
		rest = append(rest, name+"/tombstones")
	}
	open := wanted == nil || wanted(b.Meta)
	b.Bytes = meta.Size
	for _, n := range rest {
		if open {
			f, err := openFile(dir, n)
			if err != nil {
				return nil, err
			}
			b.Files = append(b.Files, f)
			b.Bytes += f.Size
			continue
		}
		st, err := os.Stat(filepath.Join(dir, filepath.FromSlash(n)))
		if err != nil {
			return nil, changed(err)
		}
		b.Bytes += st.Size()
	}
	if !open {
		err := closeAll(b.Files)
		b.Files = nil
		return b, err
	}
	return b, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// changed marks a file that is gone as a change of the data dir.
func changed(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", errChanged, err)
	}
	return err
}
