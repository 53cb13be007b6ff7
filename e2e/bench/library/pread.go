package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/tsdb/index"
)

type piece struct{ from, to int64 }

type pieces struct {
	path string
	list []piece
}

// pread reads the bytes that a selection needs and no others: of each index the
// symbols, the table of the postings, the list, and the entries of its series; of
// the chunk files their chunks. Which these are is not in the time.
func pread(ctx context.Context, dir, namespace string) error {
	indexes, err := filepath.Glob(filepath.Join(dir, "*", "index"))
	if err != nil {
		return err
	}
	var all []pieces
	for _, path := range indexes {
		of, err := needed(ctx, path, namespace)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, of...)
	}
	var a answer
	var buf []byte
	start := time.Now()
	for _, p := range all {
		f, err := os.Open(p.path)
		if err != nil {
			return err
		}
		defer f.Close()
		for _, at := range p.list {
			buf = slices.Grow(buf[:0], int(at.to-at.from))[:at.to-at.from]
			n, err := f.ReadAt(buf, at.from)
			if err != nil {
				return err
			}
			a.Bytes += int64(n)
		}
	}
	a.Seconds = time.Since(start).Seconds()
	return json.NewEncoder(os.Stdout).Encode(a)
}

func needed(ctx context.Context, path, namespace string) ([]pieces, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	toc, err := index.NewTOCFromByteSlice(bytesOf(b))
	if err != nil {
		return nil, err
	}
	r, err := index.NewFileReader(path, index.DecodePostingsRaw)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	list, err := r.Postings(ctx, "namespace", namespace)
	if err != nil {
		return nil, err
	}
	ranges, err := r.PostingsRanges()
	if err != nil {
		return nil, err
	}
	of := ranges[labels.Label{Name: "namespace", Value: namespace}]
	at := pieces{path: path, list: []piece{
		{int64(toc.Symbols), int64(toc.Series)},
		{int64(toc.PostingsTable), int64(len(b))},
		{of.Start, of.End},
	}}
	files := map[int]*pieces{}
	var builder labels.ScratchBuilder
	for list.Next() {
		// Series begin at multiples of 16; their number is that multiple.
		from := int64(list.At()) * 16
		size, n := binary.Uvarint(b[from:])
		at.list = append(at.list, piece{from, from + int64(n) + int64(size) + 4})
		var metas []chunks.Meta
		if err := r.Series(list.At(), &builder, &metas); err != nil {
			return nil, err
		}
		for _, m := range metas {
			file, offset := chunks.BlockChunkRef(m.Ref).Unpack()
			p := files[file]
			if p == nil {
				p = &pieces{path: filepath.Join(filepath.Dir(path), "chunks", fmt.Sprintf("%06d", file+1))}
				files[file] = p
			}
			p.list = append(p.list, piece{int64(offset), 0})
		}
	}
	if err := list.Err(); err != nil {
		return nil, err
	}
	out := []pieces{at}
	for _, p := range files {
		if err := p.ends(); err != nil {
			return nil, err
		}
		out = append(out, *p)
	}
	for i := range out {
		out[i].merge()
	}
	return out, nil
}

// ends finds out where the chunks end: an index says only where they begin.
func (p *pieces) ends() error {
	f, err := os.Open(p.path)
	if err != nil {
		return err
	}
	defer f.Close()
	head := make([]byte, binary.MaxVarintLen32)
	for i, at := range p.list {
		if _, err := f.ReadAt(head, at.from); err != nil {
			return err
		}
		size, n := binary.Uvarint(head)
		p.list[i].to = at.from + int64(n) + 1 + int64(size) + 4 // length, encoding, data, checksum
	}
	return nil
}

// merge makes one read of what lies together, but for what pads a series to 16.
func (p *pieces) merge() {
	slices.SortFunc(p.list, func(a, b piece) int { return cmp.Compare(a.from, b.from) })
	out := p.list[:1]
	for _, at := range p.list[1:] {
		last := &out[len(out)-1]
		if at.from-last.to < 16 {
			last.to = max(last.to, at.to)
			continue
		}
		out = append(out, at)
	}
	p.list = out
}

type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }
