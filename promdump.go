package promdump

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/remoteread"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/wire"
)

// Errors that callers tell apart, with errors.Is.
var (
	// ErrNothingSelected: the source holds nothing of what was selected. Nothing was
	// written.
	ErrNothingSelected = errors.New("nothing is selected")

	// ErrNotDump: the file never was a dump.
	ErrNotDump = archive.ErrNotDump

	// ErrIncomplete: the dump was cut, or its writer never finished.
	ErrIncomplete = archive.ErrIncomplete

	// ErrDamaged: a digest of the dump is wrong, or a block of it is not what
	// Prometheus can read.
	ErrDamaged = archive.ErrDamaged
)

// Source is where a dump's data comes from. It is opened when it is read.
type Source struct {
	kind string
	open func(staging string, logger *slog.Logger) source.Source
}

// Dir is the data dir of a Prometheus on this machine, running or not. It is only
// read.
func Dir(path string) *Source {
	return &Source{"local", func(_ string, logger *slog.Logger) source.Source {
		return local.New(path, local.Options{Logger: logger})
	}}
}

// Server is a running server that is asked by Prometheus' remote read API. The URL
// is the server's, with its path prefix; its user and password are used, and told
// nobody. The client has credentials and TLS, and no timeout, for an answer may take
// its time as long as it moves; nil: neither. A Server takes just [HeadBlocks], and
// no WholeBlocks.
func Server(url string, client *http.Client) (*Source, error) {
	u, err := remoteread.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return &Source{"remote-read", func(staging string, logger *slog.Logger) source.Source {
		return remoteread.New(remoteread.Options{URL: u, Client: client, Staging: staging, Logger: logger})
	}}, nil
}

// Selection is what is taken of a source.
type Selection struct {
	// From and To are both included, to the millisecond. Zero: from the first
	// sample, until now.
	From, To time.Time

	// Match are PromQL selectors. A series that one of them selects is taken; none
	// takes all.
	Match []string
}

func (s Selection) compile(now time.Time) (wire.Selection, error) {
	sel := wire.Selection{MaxTime: now.UnixMilli()}
	if !s.From.IsZero() {
		// No sample before it: a millisecond that has begun already is not included.
		sel.MinTime = s.From.Add(time.Millisecond - 1).UnixMilli()
	}
	if !s.To.IsZero() {
		sel.MaxTime = s.To.UnixMilli()
	}
	if sel.MinTime > sel.MaxTime {
		return sel, fmt.Errorf("the selection ends, at %s, before it begins, at %s", term.Time(sel.MaxTime), term.Time(sel.MinTime))
	}
	for _, m := range s.Match {
		list, err := dump.ParseSelector(m)
		if err != nil {
			return sel, fmt.Errorf("selector %s: %w", m, err)
		}
		sel.Matchers = append(sel.Matchers, list)
	}
	return sel, nil
}

// Head is what becomes of the data that is not in a block yet.
type Head string

// The ways to take the head.
const (
	HeadBlocks Head = "block" // its selected samples become blocks; the default
	HeadRaw    Head = "raw"   // its files as they are, of all times and series
	HeadNone   Head = "none"
)

// Compression is how a dump is compressed.
type Compression string

// The compressions of a dump.
const (
	Gzip         Compression = "gzip" // every tar -xzf opens it; the default
	Zstd         Compression = "zstd"
	Uncompressed Compression = "none"
)

// Options of Write. The zero value takes everything.
type Options struct {
	Selection
	Head        Head
	WholeBlocks bool // a block that the times cut is taken as it is
	Compression Compression

	// TempDir is for the blocks that are made on the way, which need their size on
	// disk; empty: the system's. It must not be in the data dir.
	TempDir string

	Tool     string                  // name and version of the program that dumps, for who opens the dump; empty: promdump
	Progress func(read, total int64) // bytes of the source; an estimate where blocks are cut
	Logger   *slog.Logger            // nil: silent
}

// Report is what was written.
type Report struct {
	Blocks  int
	Series  uint64   // distinct ones, a sum over the blocks where that cannot be found; without a raw head's
	Samples uint64   // without a raw head's
	Bytes   int64    // of the dump
	Notes   []string // what the user should know about the dump
}

// Write dumps a selection of a source. Only when it returns without an error is the
// dump whole; then what is left to do is to close w. After an error what was written
// is incomplete, and every reader says so.
func Write(ctx context.Context, w io.Writer, from *Source, o Options) (_ Report, err error) {
	now := time.Now()
	selection, err := o.compile(now)
	if err != nil {
		return Report{}, err
	}
	switch o.Head {
	case "":
		o.Head = HeadBlocks
	case HeadBlocks, HeadRaw, HeadNone:
	default:
		return Report{}, fmt.Errorf("there is no head mode %q", o.Head)
	}
	compression, err := archive.ParseCompression(string(o.Compression))
	if err != nil {
		return Report{}, err
	}
	if o.Tool == "" {
		o.Tool = "promdump"
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	staging, err := fsutil.MkdirTemp(o.TempDir, "")
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, staging.Remove()) }()
	src := from.open(staging.Path, o.Logger)
	report, err := dump.Write(ctx, src, dump.Spec{
		Request: wire.Request{Version: wire.Version, Selection: selection, Head: wire.HeadMode(o.Head), WholeBlocks: o.WholeBlocks},
		Source:  archive.Source{Kind: from.kind, Name: src.String()}, Selectors: o.Match,
		Compression: compression, Staging: staging.Path, Tool: o.Tool, Now: now, Logger: o.Logger,
		Progress: func(p dump.Progress) {
			if o.Progress != nil {
				o.Progress(p.Read, p.Total)
			}
		},
	}, w)
	if empty, ok := errors.AsType[*dump.EmptyError](err); ok {
		return Report{}, fmt.Errorf("%w: %w", ErrNothingSelected, empty)
	}
	if err != nil {
		return Report{}, err
	}
	out := Report{Blocks: report.Blocks, Series: report.Series, Samples: report.Samples, Bytes: report.BytesWritten}
	for _, b := range report.Plan.LeftOut {
		out.Notes = append(out.Notes, b.String())
	}
	out.Notes = append(out.Notes, report.Notes()...)
	return out, nil
}
