package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source/local"
)

// localDir is the Data of promdump: a data dir on this machine.
type localDir struct {
	path   string
	gentle bool
}

func (l *localDir) AddFlags(fs *pflag.FlagSet) {
	fs.StringVarP(&l.path, "data-dir", "d", l.path, "Path to the data `dir`ectory of a Prometheus, running or not; "+
		"it is only read")
}

func (l *localDir) Given() bool { return l.path != "" }

func (l *localDir) Missing() error {
	if l.path == "" {
		return usagef("-d DIR names it", "no data dir is given")
	}
	return nil
}

func (l *localDir) Open(_ context.Context, asked Asked) (Opened, error) {
	if err := l.Missing(); err != nil {
		return Opened{}, err
	}
	if err := checkDataDir(l.path); err != nil {
		return Opened{}, err
	}
	abs, err := filepath.Abs(l.path)
	if err != nil {
		return Opened{}, fmt.Errorf("find data dir: %w", err)
	}
	if l.gentle {
		if err := local.Lower(); err != nil {
			asked.Logger.Debug("the priority cannot be lowered", "error", err)
		}
	}
	return Opened{Source: local.New(l.path, local.Options{Gentle: l.gentle, Logger: asked.Logger}), Kind: "local", Dir: abs}, nil
}

// checkDataDir says early and in words what is wrong with a data dir. It only
// lists names.
func checkDataDir(dir string) error {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &codedError{NoTarget, hinted(fmt.Errorf("there is no data dir %s", dir),
			"-d takes the directory that Prometheus got as --storage.tsdb.path")}
	case errors.Is(err, fs.ErrPermission):
		return hinted(fmt.Errorf("read data dir: %w", err), "run as the user that Prometheus runs as, or as root")
	case isFile(dir):
		return &codedError{NoTarget, hinted(fmt.Errorf("%s is a file, not a directory", dir),
			"a dump file is given without -d: promdump meta %s", shellWord(dir))}
	case err != nil:
		return &codedError{NoTarget, fmt.Errorf("read data dir: %w", err)}
	}
	if old, err := restore.Unfinished(dir); err != nil {
		return err
	} else if old != "" {
		return hinted(fmt.Errorf("%s is half replaced: a restore --replace was killed, and what was there is in %s", dir, old),
			"the next restore into it puts that back, also with --dry-run; stop its server first")
	}
	if datadir.Check(dir) == nil {
		return nil
	}
	what := "it is empty"
	if len(entries) > 0 {
		var names []string
		for _, e := range entries[:min(len(entries), 5)] {
			names = append(names, e.Name())
		}
		if len(entries) > len(names) {
			names = append(names, "…")
		}
		what = "it holds " + strings.Join(names, ", ")
	}
	err = fmt.Errorf("%s: %w (%s)", dir, datadir.ErrNotDataDir, what)
	if near := nearDataDir(dir, entries); near != "" {
		return hinted(err, "%s looks like one: -d %s", near, near)
	}
	return hinted(err, "-d takes the directory that Prometheus got as --storage.tsdb.path")
}

func isFile(name string) bool {
	fi, err := os.Stat(name)
	return err == nil && fi.Mode().IsRegular()
}

// nearDataDir looks for a data dir just below dir, and just above: people name the
// volume, or a block.
func nearDataDir(dir string, entries []fs.DirEntry) string {
	var candidates []string
	for _, e := range entries {
		if e.IsDir() || e.Type()&fs.ModeSymlink != 0 {
			candidates = append(candidates, filepath.Join(dir, e.Name()))
		}
	}
	if abs, err := filepath.Abs(dir); err == nil {
		candidates = append(candidates, filepath.Dir(abs))
	}
	for _, c := range candidates[max(0, len(candidates)-50):] {
		if datadir.Check(c) == nil {
			return c
		}
	}
	return ""
}
