package cli

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/term"
)

// target of a dump's bytes: a file that appears when it is complete, or a stream
// that cannot be taken back.
type output struct {
	to   io.Writer
	name string // for a person

	file  *os.File // nil: a stream of somebody else
	temp  string   // name of file until it is complete; empty: written in place
	final string
}

// compressionOf is what the name of a file asks for, gzip if nothing.
func compressionOf(name string) archive.Compression {
	name = strings.ToLower(filepath.Base(name))
	switch {
	case strings.HasSuffix(name, ".zst"), strings.HasSuffix(name, ".tzst"):
		return archive.Zstd
	case strings.HasSuffix(name, ".tar"):
		return archive.None
	}
	return archive.Gzip
}

// checkOutput refuses what can be known to be wrong before anything is opened.
func (a *app) checkOutput(name string) error {
	if name == "-" {
		if term.IsTerminal(a.Out) {
			return usagef("name a file with -t dump.tar.gz, or send stdout to a file or a pipe", "a dump is binary and stdout is a terminal")
		}
		return nil
	}
	if fi, err := os.Stat(name); err == nil && fi.IsDir() {
		return usagef(fmt.Sprintf("name a file in it: -t %s", filepath.Join(name, "dump.tar.gz")), "%s is a directory", name)
	}
	return nil
}

// openOutput makes the file under a temporary name beside its own, so that it can
// be renamed. What is no regular file (a device, a named pipe) is written as it is.
// dataDir is where nothing may be written.
func (a *app) openOutput(name, dataDir string) (*output, error) {
	if name == "-" {
		widen(a.Out)
		return &output{to: a.Out, name: "stdout"}, nil
	}
	final := name
	if resolved, err := filepath.EvalSymlinks(name); err == nil {
		final = resolved // a link stays a link
	}
	if fi, err := os.Stat(final); err == nil && !fi.Mode().IsRegular() {
		f, err := os.OpenFile(final, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("open output: %w", err)
		}
		if term.IsTerminal(f) {
			return nil, errors.Join(usagef("name a file with -t dump.tar.gz", "a dump is binary and %s is a terminal", name), f.Close())
		}
		return &output{to: f, name: name, file: f}, nil
	}
	if err := outside(dataDir, filepath.Dir(final), "-t names a file outside of the data dir"); err != nil {
		return nil, err
	}
	temp := filepath.Join(filepath.Dir(final), "."+filepath.Base(final)+"."+rand.Text()[:8]+".tmp")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return nil, fmt.Errorf("make output file: %w", err)
	}
	return &output{to: f, name: name, file: f, temp: temp, final: final}, nil
}

// outside refuses to write into a data dir that is to be read.
func outside(dataDir, dir, hint string) error {
	if dataDir == "" {
		return nil
	}
	in, err := os.Stat(dataDir)
	if err != nil {
		return fmt.Errorf("look at data dir: %w", err)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("find %s: %w", dir, err)
	}
	if resolved, err := filepath.EvalSymlinks(abs); err == nil {
		abs = resolved
	}
	for {
		if fi, err := os.Stat(abs); err == nil && os.SameFile(fi, in) {
			return usagef(hint, "%s is in the data dir %s, where nothing is written", dir, dataDir)
		}
		up := filepath.Dir(abs)
		if up == abs {
			return nil
		}
		abs = up
	}
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.to.Write(p)
	return n, o.full(err)
}

// full says what to do where it is this disk that has no room, and not that of
// temporary files.
func (o *output) full(err error) error {
	if !isNoSpace(err) {
		return err
	}
	return hinted(err, "make room for %s, or -t names a file on another disk", o.name)
}

// stream tells whether what was written cannot be taken back.
func (o *output) stream() bool { return o.temp == "" }

// commit makes the file durable and gives it its name.
func (o *output) commit() error {
	if o.file == nil {
		return nil
	}
	if o.temp == "" {
		return o.file.Close()
	}
	if err := errors.Join(o.file.Sync(), o.file.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", o.name, o.full(err)), os.Remove(o.temp))
	}
	if err := os.Rename(o.temp, o.final); err != nil {
		return errors.Join(fmt.Errorf("rename the complete dump: %w", err), os.Remove(o.temp))
	}
	dir, err := os.Open(filepath.Dir(o.final))
	if err != nil {
		return fmt.Errorf("sync directory of %s: %w", o.name, err)
	}
	// Some filesystems cannot sync a directory; the dump is whole all the same.
	_ = dir.Sync()
	return dir.Close()
}

// partial is the name of a dump that could not be finished.
func partial(name string) string { return name + ".partial" }

// keep leaves what was written under another name.
func (o *output) keep() error {
	if err := o.file.Close(); err != nil {
		return errors.Join(err, os.Remove(o.temp))
	}
	return os.Rename(o.temp, partial(o.final))
}

// abort removes what was written, where that can be done.
func (o *output) abort() error {
	if o.file == nil {
		return nil
	}
	err := o.file.Close()
	if o.temp != "" {
		err = errors.Join(err, os.Remove(o.temp))
	}
	return err
}
