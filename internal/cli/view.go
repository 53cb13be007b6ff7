package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/query"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/view"
	"github.com/promdump/promdump/internal/wire"
)

// viewFlags are what the commands that look into dumps have in common, as typed.
type viewFlags struct {
	span                spanFlags
	match               []string
	cacheDir, cacheSize string
	label               string
	samples             int
	memory              string
	timeout, lookback   string
	tempDir             string
}

// viewConfig is what they mean.
type viewConfig struct {
	files     []string                          // none: the Data
	span      span                              // the range to read from Data
	spanned   bool                              // the user gave times
	spanOf    func(now time.Time) (span, error) // for dump files: now is the end of the dump
	matchers  [][]wire.Matcher
	selectors []string
	cacheDir  string
	cacheSize int64
	label     string
	limits    query.Limits
	tempDir   string
	now       time.Time
}

const (
	defaultCacheSize = "20GiB"
	defaultMaxMemory = "1GiB"
)

func (f *viewFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.cacheDir, "cache-dir", "", "Path to the `dir`ectory that caches unpacked dumps "+
		"(default: promdump in the user's cache directory)")
	fs.StringVar(&f.cacheSize, "cache-size", defaultCacheSize, "Maximum `size` of the cache; 0 keeps nothing")
	fs.StringVar(&f.label, "label-from-name", "", "Add a label with the name of the dump file to each series; "+
		"the label's `name` is dump unless you give another one with =")
	fs.Lookup("label-from-name").NoOptDefVal = "dump"
	fs.IntVar(&f.samples, "max-samples", 0, "Maximum `number` of samples that a query may hold at once (default 50000000)")
	fs.StringVar(&f.memory, "max-memory", defaultMaxMemory,
		"Maximum `size` of memory, without the dump's mapped pages; queries that need more are refused")
	fs.StringVar(&f.timeout, "query-timeout", "", "Maximum `duration` of a query (default 2m)")
	fs.StringVar(&f.lookback, "lookback", "", "Maximum `duration` that a query looks back for a sample (default 5m)")
	fs.StringVar(&f.tempDir, "temp-dir", "", "Path to the `dir`ectory for temporary files (default: the system's)")
}

func (f viewFlags) compile(files []string, data Data, everything bool, now time.Time) (viewConfig, error) {
	c := viewConfig{files: files, cacheDir: f.cacheDir, label: f.label, selectors: f.match, tempDir: f.tempDir, now: now}
	switch {
	case len(files) > 0 && data.Given():
		return c, usagef("give one of them", "both a data dir and the dump file %s are given", files[0])
	case len(files) == 0 && !data.Given():
		return c, usagef("-d DIR names a data dir; dump files are named without a flag", "neither a data dir nor a dump file is given")
	}
	for i, a := range files {
		for _, b := range files[:i] {
			if a == b {
				return c, usagef("name it once", "%s is given twice", a)
			}
		}
	}
	var err error
	c.spanned = f.span != (spanFlags{})
	switch {
	case len(files) > 0:
		c.spanOf = f.span.compile
		// The range is known only when the dump is open.
		if _, err := c.spanOf(now); err != nil && !isEmptySpan(err) {
			return c, err
		}
	case c.spanned || !everything:
		if c.span, err = f.span.compile(now); err != nil {
			return c, err
		}
	default:
		c.span = span{minMs: 0, maxMs: floorMs(now)}
	}
	if c.matchers, err = compileMatch(f.match); err != nil {
		return c, err
	}
	if c.cacheSize, err = typedBytes("--cache-size", f.cacheSize); err != nil {
		return c, err
	}
	if f.label != "" && !validLabel(f.label) {
		return c, usagef("a name is like dump or replica_file", "--label-from-name %q is no name of a label", f.label)
	}
	if f.samples < 0 {
		return c, usagef("leave it out for the default", "--max-samples %d is less than nothing", f.samples)
	}
	c.limits.Samples = f.samples
	if f.memory != "" {
		if c.limits.Memory, err = typedBytes("--max-memory", f.memory); err != nil {
			return c, err
		}
		if c.limits.Memory < query.MinMemory {
			return c, usagef("use 128MiB or more", "--max-memory %q is too small", f.memory)
		}
	}
	for _, d := range []struct {
		flag, value string
		to          *time.Duration
	}{{"--query-timeout", f.timeout, &c.limits.Timeout}, {"--lookback", f.lookback, &c.limits.Lookback}} {
		if d.value == "" {
			continue
		}
		if *d.to, err = typedDuration(d.flag, d.value); err != nil {
			return c, err
		}
	}
	return c, nil
}

// request returns the request to read from Data.
func (c viewConfig) request() wire.Request {
	return wire.Request{
		Version:   wire.Version,
		Selection: wire.Selection{MinTime: c.span.minMs, MaxTime: c.span.maxMs, Matchers: c.matchers},
		Head:      wire.HeadBlock,
	}
}

func validLabel(s string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
	return strings.Trim(s[:1], letters) == "" && strings.Trim(s, letters+"0123456789") == "" && !strings.HasPrefix(s, "__")
}

// typedBytes reads a size, like 20GiB, 500MB or a bare number of bytes.
func typedBytes(flag, value string) (int64, error) {
	units := []struct {
		end string
		n   float64
	}{
		{"kib", 1 << 10}, {"mib", 1 << 20}, {"gib", 1 << 30}, {"tib", 1 << 40},
		{"kb", 1e3}, {"mb", 1e6}, {"gb", 1e9}, {"tb", 1e12}, {"b", 1}, {"", 1},
	}
	s := strings.ToLower(strings.TrimSpace(value))
	for _, u := range units {
		if number, ok := strings.CutSuffix(s, u.end); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
			if err != nil || !(n >= 0) || n*u.n > 1<<62 {
				break
			}
			return int64(n * u.n), nil
		}
	}
	return 0, usagef("sizes are like 500MiB, 20GiB, 0", "%s %q is no size that can be understood", flag, value)
}

// cacheDirOf is where dumps are kept unpacked.
func (c viewConfig) cacheDirOf() string {
	if c.cacheDir != "" {
		return c.cacheDir
	}
	base, err := os.UserCacheDir()
	if err != nil {
		// No home: as a service, or in a container.
		base = filepath.Join(os.TempDir(), fmt.Sprintf("promdump-cache-%d", os.Getuid()))
	}
	return filepath.Join(base, "promdump")
}

// openView opens the dumps, or dumps the data dir first and opens that.
func (a *app) openView(ctx context.Context, c viewConfig) (_ *view.View, err error) {
	var from Opened
	if len(c.files) == 0 {
		// Before the cache makes its directory: none may be made in a data dir.
		if from, err = a.dataToOpen(ctx, c); err != nil {
			return nil, err
		}
	}
	cache, err := view.OpenCache(c.cacheDirOf(), c.cacheSize, a.logger())
	if err != nil {
		return nil, err
	}
	var dumps []*view.Dump
	defer func() {
		if err != nil {
			for _, d := range dumps {
				err = errors.Join(err, d.Close())
			}
		}
	}()
	for _, file := range c.files {
		d, err := a.openOne(ctx, cache, file)
		if err != nil {
			return nil, err
		}
		dumps = append(dumps, d)
	}
	if len(c.files) == 0 {
		d, err := a.openData(ctx, cache, from, c)
		if err != nil {
			return nil, err
		}
		dumps = append(dumps, d)
	}
	v, err := view.New(ctx, c.label, dumps...)
	if err != nil {
		return nil, err
	}
	return v, c.restrict(v)
}

// restrict limits the view of dump files to what the times and --match select. Data
// needs no limit: no more was read.
func (c viewConfig) restrict(v *view.View) error {
	if len(c.files) == 0 || !c.spanned && len(c.selectors) == 0 {
		return nil
	}
	minMs, maxMs := v.MinTime, v.MaxTime
	if c.spanned && !v.Empty() {
		s, err := c.spanOf(time.UnixMilli(v.MaxTime))
		if isEmptySpan(err) || err == nil && (s.maxMs < v.MinTime || s.minMs > v.MaxTime) {
			return nothingThere(v.MinTime, v.MaxTime)
		}
		if err != nil {
			return err
		}
		minMs, maxMs = s.minMs, s.maxMs
	}
	var lists [][]*labels.Matcher
	for _, s := range c.selectors {
		list, err := query.NewParser().ParseMetricSelector(s)
		if err != nil {
			return usagef("", "--match %s: %w", s, err)
		}
		lists = append(lists, list)
	}
	v.Restrict(minMs, maxMs, lists)
	return nil
}

// nothingThere returns the error for a range that has no samples.
func nothingThere(minMs, maxMs int64) error {
	return usagef(fmt.Sprintf("select all of it with --min-time %s --max-time %s", shownTime(minMs), shownTime(maxMs)),
		"no samples in the selected range: the dump has samples from %s to %s", term.Time(minMs), term.Time(maxMs))
}

func (a *app) openOne(ctx context.Context, cache *view.Cache, file string) (_ *view.Dump, err error) {
	in, shown, err := a.openDump(ctx, file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	progress := a.progress("unpacking")
	defer progress.Done()
	input := view.Input{Name: shown, R: in}
	if file != "-" {
		input.Path = file
	}
	d, err := cache.Open(ctx, input, view.Hooks{
		Progress: func(done, total int64) { progress.Set(done, total, "") },
		Note:     func(s string) { a.notes([]string{s}) },
	})
	if err != nil {
		return nil, err
	}
	a.notes(dumpNotes(d.Manifest))
	return d, nil
}

func (a *app) dataToOpen(ctx context.Context, c viewConfig) (Opened, error) {
	from, err := a.Data.Open(ctx, a.asked(c.tempDir))
	if err != nil {
		return Opened{}, err
	}
	a.notes(from.Notes)
	return from, errors.Join(outside(from.Dir, c.temp(), "--temp-dir names a place outside of the data dir"),
		outside(from.Dir, c.cacheDirOf(), "--cache-dir names a place outside of the data dir"))
}

func (c viewConfig) temp() string {
	if c.tempDir == "" {
		return os.TempDir()
	}
	return c.tempDir
}

// openData dumps what the Data names straight into the cache, which forgets it
// again: a living server has more to say the next time.
func (a *app) openData(ctx context.Context, cache *view.Cache, from Opened, c viewConfig) (*view.Dump, error) {
	var opened *view.Dump
	err := withTemp(c.temp(), func(staging string) error {
		progress := a.progress("reading")
		defer progress.Done()
		r, w := io.Pipe()
		written := make(chan error, 1)
		go func() {
			report, err := dump.Write(ctx, from.Source, dump.Spec{
				Request: c.request(), Source: archive.Source{Kind: from.Kind, Name: from.Source.String()}, Selectors: c.selectors,
				Compression: archive.None, Staging: staging, Tool: "promdump " + version(), Now: c.now, Logger: a.logger(),
				Progress: func(p dump.Progress) { progress.Set(p.Read, p.Total, "") },
			}, w)
			if err == nil {
				a.leftOut(report.Plan.LeftOut)
				a.notes(report.Notes())
			} else if empty, ok := errors.AsType[*dump.EmptyError](err); ok {
				err = a.explainEmpty(empty, from.kind(), emptiness{c.request(), c.selectors})
			}
			written <- err
			_ = w.CloseWithError(err) // always nil
		}()
		var err error
		opened, err = cache.Open(ctx, view.Input{Name: from.Source.String(), R: r, Once: true}, view.Hooks{
			Note: func(s string) { a.notes([]string{s}) },
		})
		_ = r.CloseWithError(errors.New("nobody reads any more")) // always nil
		if failed := <-written; failed != nil {
			// Its own story, not what the reader made of it.
			if opened != nil {
				return errors.Join(failed, opened.Close())
			}
			if err == nil || !isPipeClosed(failed) {
				return failed
			}
		}
		return err
	})
	return opened, err
}

func isPipeClosed(err error) bool {
	return errors.Is(err, io.ErrClosedPipe) || strings.Contains(err.Error(), "nobody reads any more")
}
