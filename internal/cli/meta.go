package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/wire"
)

// metaFlags are the meta command's flags as typed.
type metaFlags struct {
	output  string
	tempDir string
}

// metaConfig is what they mean.
type metaConfig struct {
	file    string // a dump, "-" for stdin; empty: the Data's
	print   func(io.Writer, metaView) error
	tempDir string
}

func (f metaFlags) compile(args []string, data Data) (metaConfig, error) {
	c := metaConfig{tempDir: f.tempDir}
	switch {
	case len(args) > 0 && data.Given():
		return c, usagef("give one of them", "both a data dir and the dump file %s are given", args[0])
	case len(args) > 0:
		c.file = args[0]
	case !data.Given() && data.Missing() != nil:
		return c, usagef("-d DIR names a data dir; a dump file is named without a flag", "neither a data dir nor a dump file is given")
	default:
		if err := data.Missing(); err != nil {
			return c, err
		}
	}
	switch f.output {
	case "table":
		c.print = func(w io.Writer, v metaView) error { return printMeta(w, v, false) }
	case "wide":
		c.print = func(w io.Writer, v metaView) error { return printMeta(w, v, true) }
	case "json":
		c.print = func(w io.Writer, v metaView) error {
			e := json.NewEncoder(w)
			e.SetIndent("", "  ")
			return e.Encode(v)
		}
	case "yaml":
		c.print = func(w io.Writer, v metaView) error {
			text, err := yaml.Marshal(v)
			if err == nil {
				_, err = w.Write(text)
			}
			return err
		}
	default:
		return c, usagef("", "-o %q is not table, json, yaml or wide", f.output)
	}
	return c, nil
}

func (a *app) metaCommand() *cobra.Command {
	var f metaFlags
	cmd := &cobra.Command{
		Use:   "meta [FILE]",
		Short: "Show what a data directory, server or dump file contains",
		Long: `Show the blocks and the head of a data directory (-d), a running server or a dump
file (FILE, or - for stdin), and for a dump file the selection that it was made with.
A server that is read over HTTP reports less: sizes are missing, and a value that the
server does not report is unknown.

The number of series is the sum over all blocks: a series in two blocks counts twice.
The latest time of the blocks is the exclusive end of the last one, as in its
meta.json.

A dump file is read to its end, and its checksums are verified.`,
		Example: `  promdump meta -d /prometheus
  promdump meta -o wide dump.tar.gz`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.run(func(ctx context.Context, args []string) error {
			c, err := f.compile(args, a.Data)
			if err != nil {
				return err
			}
			return a.runMeta(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Data.AddFlags(fs)
	fs.StringVarP(&f.output, "output", "o", "table",
		"Output format: `table|wide|json|yaml`; wide has a row for each block")
	fs.StringVar(&f.tempDir, "temp-dir", "", "Path to the `dir`ectory for temporary files: "+
		"the log files of a raw head in a dump file (default: the system's)")
	return cmd
}

func (a *app) runMeta(ctx context.Context, c metaConfig) error {
	if c.file != "" {
		v, err := a.dumpMeta(ctx, c.file, c.tempDir)
		if err != nil {
			return err
		}
		a.notes(v.Notes)
		return c.print(a.Out, v)
	}
	from, err := a.Data.Open(ctx, a.asked(c.tempDir))
	if err != nil {
		return err
	}
	a.notes(from.Notes)
	inv, err := from.Source.Inventory(ctx)
	if err != nil {
		return err
	}
	a.leftOut(inv.LeftOut)
	v := newMetaView(from.Source.String(), inv)
	if !inv.HeadUnknown {
		v.addHead(inv.Head)
	}
	a.notes(v.Notes)
	return c.print(a.Out, v)
}

// dumpMeta reads a dump to its end. What says something about it (the blocks'
// meta.json, a raw head's logs) goes into a temporary data dir, which then is
// asked like any other.
func (a *app) dumpMeta(ctx context.Context, name, tempDir string) (v metaView, err error) {
	in, shown, err := a.openDump(ctx, name)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	err = withTemp(tempDir, func(dir string) error {
		progress := a.progress("reading")
		defer progress.Done()
		total := int64(0)
		if fi, ok := in.(*os.File); ok {
			if st, err := fi.Stat(); err == nil && st.Mode().IsRegular() {
				total = st.Size()
			}
		}
		r, err := archive.NewReader(&counting{ctx: ctx, r: in, tell: func(n int64) { progress.Set(n, total, "") }})
		if err != nil {
			return fmt.Errorf("read %s: %w", shown, err)
		}
		defer r.Close()
		sizes, raw, err := sketch(r, dir)
		if err != nil {
			return fmt.Errorf("read %s: %w", shown, err)
		}
		inv := &wire.Inventory{}
		if len(sizes) > 0 || raw {
			if inv, err = local.New(dir, local.Options{Logger: a.logger(), Sketch: true}).Inventory(ctx); err != nil {
				return fmt.Errorf("read %s: %w", shown, err)
			}
		}
		for i := range inv.Blocks {
			inv.Blocks[i].Bytes = sizes[inv.Blocks[i].ULID]
		}
		v = newMetaView(shown, inv)
		v.Dump = newDumpView(r.Manifest())
		v.Notes = append(v.Notes, dumpNotes(r.Manifest())...)
		for _, b := range r.Manifest().Plan.LeftOut {
			v.LeftOut = append(v.LeftOut, newLeftOutView(b.ULID, b.MinTime, b.MaxTime, b.Reason, b.Partly))
		}
		if raw {
			v.addHead(inv.Head)
		}
		return nil
	})
	return v, err
}

// sketch unpacks what a data dir needs to be asked what it holds, without its
// samples. Names are safe: the reader refuses all but a few.
func sketch(r *archive.Reader, dir string) (sizes map[string]int64, raw bool, err error) {
	sizes = make(map[string]int64) // of blocks, in bytes
	for {
		e, err := r.Next()
		if err == io.EOF {
			return sizes, raw, nil
		}
		if err != nil {
			return nil, raw, err
		}
		top, rest, _ := strings.Cut(e.Name, "/")
		path := filepath.Join(dir, filepath.FromSlash(e.Name))
		switch top {
		case "wal", "wbl", "chunks_head":
			raw = true
			err = unpack(r, path)
		default:
			sizes[top] += e.Size
			switch rest {
			case "meta.json":
				err = unpack(r, path)
			}
		}
		if err != nil {
			return nil, raw, err
		}
	}
}

func unpack(r io.Reader, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("unpack: %w", err)
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// counting is a reader that tells how far it is, and ends with its context.
type counting struct {
	ctx  context.Context
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.tell(c.n)
	return n, err
}

func utc(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
