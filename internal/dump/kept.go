package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/wire"
)

// Kept is what an unfinished dump has: the whole blocks in it. Cut ones and those
// of the head are made again.
type Kept struct {
	Manifest archive.Manifest
	Blocks   []KeptBlock
	open     func() (io.ReadCloser, error)
}

// KeptBlock is a block that the unfinished dump has all files of.
type KeptBlock struct {
	Planned archive.PlannedBlock
	Sources []string // ULIDs of what it was compacted of
}

// ReadKept reads an unfinished dump. open gives its bytes from the start; it is
// called again when they are copied.
func ReadKept(open func() (io.ReadCloser, error)) (_ *Kept, err error) {
	k := &Kept{open: open}
	bytes := map[string]int64{}
	sources := map[string][]string{}
	err = k.entries(func(r *archive.Reader, e archive.Entry) error {
		k.Manifest = r.Manifest()
		ulid, name, _ := strings.Cut(e.Name, "/")
		if name != "meta.json" {
			_, err := io.Copy(io.Discard, r)
			if err == nil {
				bytes[ulid] += e.Size
			}
			return err
		}
		text, err := io.ReadAll(r) // the reader bounds it
		if err != nil {
			return err
		}
		bytes[ulid] += e.Size
		var meta struct{ Compaction struct{ Sources []string } }
		if err := json.Unmarshal(text, &meta); err != nil {
			return fmt.Errorf("read %s: %w", e.Name, err)
		}
		sources[ulid] = meta.Compaction.Sources
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, b := range k.Manifest.Plan.Blocks {
		if b.Action == string(wire.Whole) && sources[b.ULID] != nil && bytes[b.ULID] == b.Bytes {
			k.Blocks = append(k.Blocks, KeptBlock{Planned: b, Sources: sources[b.ULID]})
		}
	}
	return k, nil
}

// entries goes over what the unfinished dump has, as far as it goes.
func (k *Kept) entries(f func(*archive.Reader, archive.Entry) error) (err error) {
	in, err := k.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	r, err := archive.NewReader(in)
	if err != nil {
		return err
	}
	defer r.Close()
	k.Manifest = r.Manifest()
	for {
		e, err := r.Next()
		if err == nil {
			err = f(r, e)
		}
		if err == io.EOF || errors.Is(err, archive.ErrIncomplete) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (k *Kept) have() (all []wire.Block) {
	for _, b := range k.Blocks {
		all = append(all, wire.Block{ULID: b.Planned.ULID, Sources: b.Sources})
	}
	return all
}

// copyKept begins the dump with what is there already.
func (a *assembler) copyKept() error {
	if a.spec.Kept == nil {
		return nil
	}
	kept := map[string]archive.PlannedBlock{}
	for _, b := range a.spec.Kept.Blocks {
		kept[b.Planned.ULID] = b.Planned
		a.report.Blocks++
		a.report.Series += b.Planned.Series
		a.report.Samples += b.Planned.Samples
	}
	err := a.spec.Kept.entries(func(r *archive.Reader, e archive.Entry) error {
		ulid, _, _ := strings.Cut(e.Name, "/")
		if _, ok := kept[ulid]; !ok {
			return nil
		}
		body, done := a.counted(e.Name, &cancelling{a.ctx, r}, func(ulid string) uint64 { return kept[ulid].Series })
		defer done()
		return a.out.File(e.Name, e.Size, body)
	})
	if err != nil {
		return fmt.Errorf("go on with the unfinished dump: %w", err)
	}
	return nil
}
