package view

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/prometheus/prometheus/tsdb/index"

	"github.com/promdump/promdump/internal/archive"
)

// maxIndex is the size of the largest index that EachIndex reads into memory, in bytes.
const maxIndex = 256 << 20

// EachIndex calls f with the index of each block of a dump file, without unpacking or
// verifying the dump. It reads the cache in cacheDir if the dump is there, else the
// file from its start. It stops without an error when ctx ends or f returns io.EOF. An
// index is closed when f returns. Nothing is written.
func EachIndex(ctx context.Context, cacheDir, file string, f func(*index.Reader) error) error {
	dir, free := cached(cacheDir, file)
	defer free()
	if dir != "" {
		return EachIndexOfDir(ctx, dir, f)
	}
	in, err := os.Open(file)
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := archive.NewReader(&counted{ctx: ctx, r: in})
	if err != nil {
		return err
	}
	defer r.Close()
	for ctx.Err() == nil {
		e, err := r.Next()
		if err == io.EOF || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if !strings.HasSuffix(e.Name, "/index") || e.Size > maxIndex {
			continue
		}
		text, err := io.ReadAll(r)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		x, err := index.NewReader(bytesOf(text), index.DecodePostingsRaw)
		if err != nil {
			return fmt.Errorf("read %s: %w", e.Name, err)
		}
		if err := f(x); err != nil {
			return end(err)
		}
	}
	return nil
}

// EachIndexOfDir calls f with the index of each block in a data dir, as [EachIndex]
// does.
func EachIndexOfDir(ctx context.Context, dir string, f func(*index.Reader) error) error {
	files, err := filepath.Glob(filepath.Join(dir, strings.Repeat("?", 26), "index"))
	if err != nil {
		return err
	}
	for _, file := range files {
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the context has ended
		}
		x, err := index.NewFileReader(file, index.DecodePostingsRaw)
		if err != nil {
			continue // try the other blocks
		}
		if err := errors.Join(f(x), x.Close()); err != nil {
			return end(err)
		}
	}
	return nil
}

func end(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// cached returns the directory with the unpacked blocks of a file, or "" if the cache
// does not have it. The directory stays until free is called.
func cached(cacheDir, file string) (dir string, free func()) {
	c := &Cache{dir: filepath.Join(cacheDir, cacheVersion), log: slog.New(slog.DiscardHandler), now: time.Now}
	fi, err := os.Stat(file)
	if err != nil {
		return "", func() {}
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", func() {}
	}
	id, ok := identify(path, fi)
	if !ok {
		return "", func() {}
	}
	key := c.recall(id)
	if key == "" {
		return "", func() {}
	}
	e := c.take(key)
	if e == nil {
		return "", func() {}
	}
	return e.data(), func() { _ = e.Close() }
}

// bytesOf is an index in memory, as an index.ByteSlice.
type bytesOf []byte

func (b bytesOf) Len() int                    { return len(b) }
func (b bytesOf) Range(start, end int) []byte { return b[start:end] }
