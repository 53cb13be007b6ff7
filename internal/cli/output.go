package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/fsutil"
	"github.com/promdump/promdump/internal/term"
)

// addForceFlag adds the flag that allows an existing file to be replaced.
func addForceFlag(fs *pflag.FlagSet, force *bool) {
	fs.BoolVarP(force, "force", "f", false, "If true, replace the file that -t names if it exists")
}

// output is the target of a dump's bytes: a file that has the name FILE.partial until it
// is complete, or a stream that cannot be taken back.
type output struct {
	to   io.Writer
	name string // for a person

	file  *os.File // nil: a stream of somebody else
	temp  string   // name of file until it is complete; empty: written in place
	final string

	force  bool // may replace the file final
	resume bool // append to what the file holds
	began  bool // something was written or removed
	synced *syncer
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

// existsError refuses to write over a file.
type existsError struct {
	name string // as typed
	kept string // where the complete output is; empty if none was written
}

func (e *existsError) Error() string {
	if e.kept != "" {
		return fmt.Sprintf("%s appeared meanwhile and is not overwritten; the complete output is in %s", e.name, e.kept)
	}
	return fmt.Sprintf("%s exists already and is not overwritten", e.name)
}

func (e *existsError) Hint() string {
	if e.kept != "" {
		return fmt.Sprintf("to replace the other file: mv %s %s", shellWord(e.kept), shellWord(e.name))
	}
	return "name another file with -t, or replace this one with --force"
}

func (e *existsError) Unwrap() error { return fs.ErrExist }

// checkOutput checks what can be checked before anything is opened. A file that exists
// is refused unless force is set.
func (a *app) checkOutput(name string, force bool) error {
	stream := a.Out
	if name != "-" {
		inherited, err := a.inherited(name)
		if err != nil {
			return err
		}
		if inherited == nil {
			return checkFile(name, force)
		}
		stream = inherited
	}
	if term.IsTerminal(stream) {
		return usagef("name a file with -t dump.tar.gz, or send stdout to a file or a pipe",
			"a dump is binary and stdout is a terminal")
	}
	return nil
}

func checkFile(name string, force bool) error {
	final := destination(name)
	fi, err := os.Stat(final)
	switch {
	case err == nil && fi.IsDir():
		return usagef(fmt.Sprintf("name a file in it: -t %s", filepath.Join(name, "dump.tar.gz")), "%s is a directory", name)
	case err == nil && fi.Mode().IsRegular() && !force:
		return &existsError{name: name}
	case err == nil:
		return nil
	}
	dir, err := os.Stat(filepath.Dir(final))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return hinted(fmt.Errorf("create %s: its directory does not exist: %w", name, fs.ErrNotExist),
			"mkdir -p %s", shellWord(filepath.Dir(final)))
	case err == nil && !dir.IsDir():
		return fmt.Errorf("create %s: %s is not a directory", name, filepath.Dir(final))
	}
	return nil
}

// destination follows symbolic links to the file that is or will be written: the link
// itself stays.
func destination(name string) string {
	const links = 40 // as Linux follows
	for range links {
		if resolved, err := filepath.EvalSymlinks(name); err == nil {
			return resolved
		}
		to, err := os.Readlink(name)
		if err != nil {
			return name
		}
		if !filepath.IsAbs(to) {
			dir := filepath.Dir(name)
			if resolved, err := filepath.EvalSymlinks(dir); err == nil {
				dir = resolved
			}
			to = filepath.Join(dir, to)
		}
		name = to
	}
	return name
}

// inherited returns the open stream for a name like /dev/stdout or /dev/fd/3. Opening
// such a name again would start at the beginning of a file that the shell has opened.
func (a *app) inherited(name string) (io.Writer, error) {
	clean := filepath.ToSlash(filepath.Clean(name))
	fd := map[string]string{"/dev/stdout": "1", "/dev/stderr": "2"}[clean]
	for _, dir := range []string{"/dev/fd/", "/proc/self/fd/"} {
		if n, ok := strings.CutPrefix(clean, dir); ok {
			fd = n
		}
	}
	n, err := strconv.ParseUint(fd, 10, 16)
	if err != nil || runtime.GOOS == "windows" {
		return nil, nil //nolint:nilerr // another name
	}
	switch n {
	case 1:
		return a.Out, nil
	case 2:
		return a.Err, nil
	}
	if a.given == nil {
		// Kept in a field: an unreferenced file would be closed by the garbage
		// collector.
		a.given = os.NewFile(uintptr(n), name)
	}
	if _, err := a.given.Stat(); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return a.given, nil
}

// openOutput opens the file, as FILE.partial beside its own name. What is in it stays
// until the first byte is written. A device or a named pipe is written directly. Nothing
// may be written in dataDir.
func (a *app) openOutput(name, dataDir string, force bool) (*output, error) {
	if name == "-" {
		widen(a.Out)
		return &output{to: a.Out, name: "stdout"}, nil
	}
	if to, err := a.inherited(name); to != nil || err != nil {
		widen(to)
		return &output{to: to, name: name}, err
	}
	final := destination(name)
	if fi, err := os.Stat(final); err == nil && !fi.Mode().IsRegular() {
		f, err := os.OpenFile(final, os.O_WRONLY, 0)
		if err != nil {
			return nil, fmt.Errorf("open output: %w", err)
		}
		if term.IsTerminal(f) {
			return nil, errors.Join(f.Close(),
				usagef("name a file with -t dump.tar.gz", "a dump is binary and %s is a terminal", name))
		}
		return &output{to: f, name: name, file: f}, nil
	}
	if err := outside(dataDir, filepath.Dir(final), "-t names a file outside of the data dir"); err != nil {
		return nil, err
	}
	f, err := openPartial(partial(final), os.O_RDWR|os.O_CREATE)
	if busy, ok := errors.AsType[*busyError](err); ok {
		return nil, busy
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, unnamed(err))
	}
	return &output{to: f, name: name, file: f, temp: partial(final), final: final, force: force, synced: newSyncer(f)}, nil
}

// unnamed removes the name of a temporary file from an error: the user does not know
// it.
func unnamed(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return e.Err
	}
	return err
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
	if err := o.begin(); err != nil {
		return 0, err
	}
	n, err := o.to.Write(p)
	if err == nil && o.synced != nil {
		err = o.synced.wrote(n)
	}
	return n, o.full(err)
}

// full says what to do where it is this disk that has no room, and not that of
// temporary files.
func (o *output) full(err error) error {
	if !fsutil.IsNoSpace(err) {
		return err
	}
	return hinted(err, "make room for %s, or -t names a file on another disk", o.name)
}

// stream tells whether what was written cannot be taken back.
func (o *output) stream() bool { return o.temp == "" }

// writer is where the dump goes. If it is a file of our own it can be cut back.
func (o *output) writer() io.Writer {
	if o.stream() {
		return o
	}
	return &outputFile{o}
}

// commit syncs the file and renames it to its final name. If another file has taken
// that name meanwhile, the file gets a free name, which the [existsError] contains.
func (o *output) commit() error {
	if o.file == nil {
		return nil
	}
	if o.temp == "" {
		return o.file.Close()
	}
	if err := o.synced.sync(); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", o.name, o.full(err)), o.release())
	}
	if runtime.GOOS == "windows" { // an open file cannot be renamed there
		if err := o.release(); err != nil {
			return err
		}
	}
	defer o.release() //nolint:errcheck // it is synced; until it has its name it stays locked
	var taken error
	if err := o.publish(); errors.Is(err, fs.ErrExist) && !o.force {
		taken, err = o.publishAside()
		if err != nil {
			return fmt.Errorf("rename the complete output to %s: %w; it is in %s", o.name, unnamed(err), o.temp)
		}
	} else if err != nil {
		return fmt.Errorf("rename the complete output to %s: %w; it is in %s", o.name, unnamed(err), o.temp)
	}
	if err := syncDir(filepath.Dir(o.final)); err != nil {
		return fmt.Errorf("sync directory of %s: %w", o.name, err)
	}
	return taken
}

// syncDir makes the names in a directory durable. Some filesystems cannot do that; the
// files are whole all the same.
func syncDir(name string) error {
	dir, err := os.Open(name)
	if err != nil {
		return err
	}
	_ = dir.Sync()
	return dir.Close()
}

func (o *output) publish() error {
	if o.force {
		return os.Rename(o.temp, o.final)
	}
	return renameNew(o.temp, o.final)
}

// publishAside renames a complete output to the first free name: an hour of reading
// must not be lost because a name is taken.
func (o *output) publishAside() (taken, err error) {
	for i := 1; ; i++ {
		aside := fmt.Sprintf("%s.%d", o.final, i)
		switch err := renameNew(o.temp, aside); {
		case err == nil:
			return &codedError{Failed, &existsError{name: o.name, kept: aside}}, nil
		case !errors.Is(err, fs.ErrExist):
			return nil, err
		}
	}
}

// renameNew renames a file and never replaces one, even if it is created at the same
// time.
func renameNew(from, to string) error {
	err := os.Link(from, to)
	if err == nil {
		return os.Remove(from)
	}
	if errors.Is(err, fs.ErrExist) {
		return err
	}
	// On a filesystem without hard links an empty file of our own reserves the name.
	placeholder, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	if err := errors.Join(placeholder.Close(), os.Rename(from, to)); err != nil {
		return errors.Join(err, os.Remove(to))
	}
	return nil
}
