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

// Errors for errors.Is.
var (
	// ErrNothingSelected reports that the source has no selected sample. [Write] has
	// written nothing.
	ErrNothingSelected = errors.New("nothing is selected")

	// ErrNotDump reports a file that is not a dump.
	ErrNotDump = archive.ErrNotDump

	// ErrIncomplete reports a dump without its end: it was truncated, or its writer did
	// not finish.
	ErrIncomplete = archive.ErrIncomplete

	// ErrDamaged reports a dump with a wrong digest, or with a block that Prometheus cannot
	// read.
	ErrDamaged = archive.ErrDamaged
)

// Source is a source of data for [Write], which opens it.
type Source struct {
	kind string
	open func(staging string, logger *slog.Logger) source.Source
}

// Dir returns the data directory of a Prometheus on this machine as a source. The Prometheus
// may be running. Reading does not change the directory. An invalid path is an error of
// [Write].
func Dir(path string) *Source {
	return &Source{"local", func(_ string, logger *slog.Logger) source.Source {
		return local.New(path, local.Options{Logger: logger})
	}}
}

// Server returns a running server as a source, read with Prometheus' remote read API. The URL
// is that of the server, including its path prefix. A user and password in it are used, but
// are in no dump, error or log message. The client provides credentials and TLS, and must have
// no timeout, because a response may take long; nil is a client without credentials. A Server
// supports neither [HeadRaw], [HeadNone] nor WholeBlocks.
func Server(url string, client *http.Client) (*Source, error) {
	u, err := remoteread.ParseURL(url)
	if err != nil {
		return nil, err
	}
	return &Source{"remote-read", func(staging string, logger *slog.Logger) source.Source {
		return remoteread.New(remoteread.Options{URL: u, Client: client, Staging: staging, Logger: logger})
	}}, nil
}

// Selection is a time range and a set of series.
type Selection struct {
	// From and To are inclusive, with millisecond precision. A zero From is the first
	// sample, a zero To the current time.
	From, To time.Time

	// Match are PromQL selectors. A series is selected if one of them selects it; without
	// selectors all series are.
	Match []string
}

// compile converts the selection. now is the time of a zero To.
func (s Selection) compile(now time.Time) (wire.Selection, error) {
	sel := wire.Selection{MaxTime: now.UnixMilli()}
	if !s.From.IsZero() {
		// Rounded up: a sample in the millisecond of From may be before From.
		sel.MinTime = s.From.Add(time.Millisecond - 1).UnixMilli()
	}
	if !s.To.IsZero() {
		sel.MaxTime = s.To.UnixMilli()
	}
	if sel.MinTime > sel.MaxTime {
		return sel, fmt.Errorf("empty time range: the end %s is before the start %s",
			term.Time(sel.MaxTime), term.Time(sel.MinTime))
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

// Head selects what a dump has of the head: the data that is not in a block yet.
type Head string

// The values of Head.
const (
	HeadBlocks Head = "block" // blocks with its selected samples; the default
	HeadRaw    Head = "raw"   // copies of its files, with all times and series
	HeadNone   Head = "none"  // nothing
)

// Compression is the compression of a dump.
type Compression string

// The values of Compression.
const (
	Gzip         Compression = "gzip" // the default, for tar -xzf
	Zstd         Compression = "zstd"
	Uncompressed Compression = "none"
)

// Options are the options of [Write]. The zero value dumps everything.
type Options struct {
	Selection
	Head        Head
	WholeBlocks bool // copies blocks that overlap the time range, without cutting them
	Compression Compression

	// TempDir is a directory for temporary blocks, which need their size on disk. It must
	// not be in the data directory. If it is empty, the system's directory is used.
	TempDir string

	Tool     string                  // name and version of the calling program, for the manifest; default promdump
	Progress func(read, total int64) // called with bytes of the source; total is an estimate; may be nil
	Logger   *slog.Logger            // nil discards messages
}

// Report describes a written dump.
type Report struct {
	Blocks  int
	Series  uint64   // distinct series, or a sum over the blocks if these cannot be counted; without a raw head
	Samples uint64   // without a raw head
	Bytes   int64    // size of the dump
	Notes   []string // what the dump lacks and what is odd about it, for the user
}

// Write dumps a selection of a source to w. The dump is complete only if Write returns no
// error and the caller closes w without one. After an error, w has an incomplete dump, which
// every reader rejects with [ErrIncomplete]. Write returns [ErrNothingSelected] if the source
// has no selected sample.
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
		return Report{}, fmt.Errorf("unknown head mode %q", o.Head)
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
		Request: wire.Request{
			Version: wire.Version, Selection: selection, Head: wire.HeadMode(o.Head), WholeBlocks: o.WholeBlocks,
		},
		Source: archive.Source{Kind: from.kind, Name: src.String()}, Selectors: o.Match,
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
