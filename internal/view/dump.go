package view

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	"github.com/prometheus/prometheus/tsdb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/block"
)

// Dump is an opened dump. Its blocks are mapped into memory, and stay in the cache until
// it is closed.
type Dump struct {
	Name      string // of the file, without directory and extensions
	File      string // as the user named it
	FileBytes int64
	Manifest  archive.Manifest
	Blocks    []Block
	MinTime   int64 // time of the first sample, in Unix milliseconds
	MaxTime   int64 // time of the last sample; less than MinTime if there are no samples

	entry *entry
}

// Block is a block of an opened dump.
type Block struct {
	*tsdb.Block
	FirstMs, LastMs int64 // times of its first and last sample, in Unix milliseconds

	// Origin is "whole" for a copy of the source's block, "built" for one that the dump
	// cut or built of the head, and "head" for one that was built of the dump's raw head.
	Origin string
}

// Open opens a dump. If the cache does not have it, Open unpacks and verifies it first.
// The caller must close the dump.
func (c *Cache) Open(ctx context.Context, in Input, hooks Hooks) (_ *Dump, err error) {
	e, err := c.open(ctx, in, hooks)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", in.Name, err)
	}
	e.once = in.Once
	d := &Dump{
		Name: shortName(in.Name), File: in.Name, FileBytes: e.about.FileSize, Manifest: e.about.Manifest,
		MinTime: math.MaxInt64, MaxTime: math.MinInt64, entry: e,
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	pool := chunkenc.NewPool()
	var findings []block.Finding
	for _, b := range e.about.Blocks {
		findings = append(findings, b.Findings...)
		opened, err := tsdb.OpenBlock(c.log, filepath.Join(e.data(), b.ULID), pool, tsdb.DefaultPostingsDecoderFactory)
		if err != nil {
			return nil, fmt.Errorf("open block %s of %s: %w", b.ULID, in.Name, err)
		}
		d.Blocks = append(d.Blocks, Block{Block: opened, FirstMs: b.MinTime, LastMs: b.MaxTime, Origin: b.Origin})
		d.MinTime, d.MaxTime = min(d.MinTime, b.MinTime), max(d.MaxTime, b.MaxTime)
	}
	for _, n := range block.Notes(findings) {
		hooks.note(n)
	}
	return d, nil
}

// Close waits until no query reads the blocks, unmaps them, and releases the dump in
// the cache.
func (d *Dump) Close() error {
	var err error
	for _, b := range d.Blocks {
		err = errors.Join(err, b.Close())
	}
	return errors.Join(err, d.entry.Close())
}

// shortName returns the name of a file without its directory and extensions.
func shortName(file string) string {
	name := filepath.Base(file)
	for _, end := range []string{".gz", ".zst", ".tgz", ".tar"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}
