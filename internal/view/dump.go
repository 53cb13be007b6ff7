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

// Dump is an opened dump: its blocks are mapped into memory, and nobody removes
// them until it is closed.
type Dump struct {
	Name      string // of the file, without directory and endings
	File      string // as it was given
	FileBytes int64
	Manifest  archive.Manifest
	Blocks    []Block
	MinTime   int64 // of the first and the last sample, Unix milliseconds
	MaxTime   int64 // without samples it is less than MinTime

	entry *entry
}

// Block is a block of an opened dump.
type Block struct {
	*tsdb.Block
	FirstMs, LastMs int64  // of its samples
	Origin          string // "whole": as the source had it; "built": cut, or made of the head; "head": made of the raw head just now
}

// Open unpacks and verifies a dump unless the cache has it, and opens it. It must
// be closed.
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

// Close unmaps the blocks, once no query reads them any more.
func (d *Dump) Close() error {
	var err error
	for _, b := range d.Blocks {
		err = errors.Join(err, b.Close())
	}
	return errors.Join(err, d.entry.Close())
}

// shortName names a dump by its file.
func shortName(file string) string {
	name := filepath.Base(file)
	for _, end := range []string{".gz", ".zst", ".tgz", ".tar"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}
