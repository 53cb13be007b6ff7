package agentbin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
)

const releases = "https://github.com/promdump/promdump/releases/download/"

// place is where an archive of agents comes from and where it stays.
type place struct {
	url  *url.URL
	file string
}

// want is what proves that it is the right one: the program's digest or, where
// this program knows none, the archive's.
type want struct {
	program, archive *[32]byte
}

func download(ctx context.Context, arch string, o Options) (*Agent, error) {
	p, err := locate(o)
	if err != nil {
		return nil, err
	}
	var w want
	var notes []string
	if len(o.Digests) > 0 {
		digest, ok := o.Digests[arch]
		if !ok {
			return nil, fail("agents are there for: "+strings.Join(slices.Sorted(maps.Keys(o.Digests)), ", ")+"; `make agents` builds others", "this program knows no agent for %s", arch)
		}
		w.program = &digest
	} else {
		digest, from, err := digestBeside(ctx, p, o)
		if err != nil {
			return nil, err
		}
		w.archive = digest
		notes = []string{fmt.Sprintf("this program was built without digests of agents: the agent is what %s says, and nothing else vouches for it", from)}
	}
	a, err := cached(arch, p, w, o)
	if err == nil && a == nil {
		a, err = fresh(ctx, arch, p, w, o)
	}
	if err != nil {
		return nil, err
	}
	a.Notes = notes
	o.Logger.Debug("agent", "arch", arch, "from", a.From, "bytes", a.Size)
	return a, nil
}

func locate(o Options) (place, error) {
	version := release(o.Version)
	name := "promdump-" + version + ".tar.gz"
	text := o.URL
	if text == "" {
		if version == "" {
			return place{}, fail(hintBuild, "no agent was built into this program, and %q is no release to download it from", o.Version)
		}
		text = releases + version
	}
	u, err := url.Parse(text)
	if err != nil {
		return place{}, fail(hintURL, "the URL of the agents: %w", bare(err))
	}
	if u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return place{}, fail(hintURL, "the URL of the agents is %q: it must begin with https:// or http://", show(u))
	}
	if !strings.HasSuffix(u.Path, ".tar.gz") {
		if version == "" {
			return place{}, fail("name the archive itself: "+show(u.JoinPath("promdump-VERSION.tar.gz")), "which release's agents are meant is not known, since %q is none", o.Version)
		}
		u = u.JoinPath(name)
	}
	if version == "" {
		sum := sha256.Sum256([]byte(u.String()))
		name = "promdump-agents-" + hex.EncodeToString(sum[:8]) + ".tar.gz"
	}
	return place{u, filepath.Join(o.Dir, name)}, nil
}

// digestBeside asks for the digest of an archive where the archive is.
func digestBeside(ctx context.Context, p place, o Options) (*[32]byte, string, error) {
	u := *p.url
	u.Path, u.RawPath = u.Path+".sha256", ""
	if u.Scheme != "https" {
		return nil, "", fail("give an https:// URL, or use a kubectl-promdump of a release or of `make build`", "this program was built without digests of agents, so it takes none from %s", show(p.url))
	}
	var text bytes.Buffer
	if err := fetch(ctx, o, &u, &text, 64<<10); err != nil {
		return nil, "", err
	}
	sums, err := parseSums(text.String())
	if err != nil {
		return nil, "", fail(hintURL, "read %s: %w", show(&u), err)
	}
	base := p.url.Path[strings.LastIndexByte(p.url.Path, '/')+1:]
	digest, ok := sums[base]
	if !ok {
		digest, ok = sums[""]
	}
	if !ok {
		return nil, "", fail(hintURL, "read %s: it has no digest of %s", show(&u), base)
	}
	return &digest, show(&u), nil
}

// cached is the agent of an archive that was downloaded before. None is no error,
// nor is one that cannot be read or has a wrong digest: another is downloaded.
func cached(arch string, p place, w want, o Options) (*Agent, error) {
	if o.Force {
		return nil, nil
	}
	f, err := os.OpenFile(p.file, os.O_RDONLY|openFlags, 0)
	if err != nil {
		o.Logger.Debug("no archive of agents from before", "reason", err)
		return nil, nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a file")
	}
	if err != nil {
		o.Logger.Debug("archive of agents from before", "file", p.file, "reason", err)
		return nil, nil
	}
	program, err := verified(f, arch, w)
	if errors.Is(err, errNotThere) && w.archive != nil {
		return nil, noAgent(arch, p) // the right archive: another would be the same
	}
	if err != nil {
		o.Logger.Debug("archive of agents from before is not used", "file", p.file, "reason", err)
		return nil, nil
	}
	return packed(arch, program, p.file)
}

// fresh downloads the archive and keeps it if it is the right one.
func fresh(ctx context.Context, arch string, p place, w want, o Options) (_ *Agent, err error) {
	removeStale(o.Dir)
	f, err := os.CreateTemp(o.Dir, stalePattern)
	if err != nil {
		return nil, fail(hintTemp, "make a file for the agents: %w", err)
	}
	defer func() {
		_ = f.Close() // of what is kept the error was seen
		_ = os.Remove(f.Name())
	}()
	if err := fetch(ctx, o, p.url, f, maxArchive); err != nil {
		return nil, err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fail(hintTemp, "read what was downloaded: %w", err)
	}
	program, err := verified(f, arch, w)
	switch {
	case errors.Is(err, errNotThere):
		return nil, noAgent(arch, p)
	case errors.Is(err, ErrDigest):
		return nil, fail(hintRefused, "the agents of %s: %w", show(p.url), err)
	case err != nil:
		return nil, fail(hintAgain, "the agents of %s are damaged or something else: %w", show(p.url), err)
	}
	if err := keep(f, p.file); err != nil {
		// Who may not replace another user's file downloads again the next time.
		o.Logger.Debug("archive of agents is not kept", "file", p.file, "reason", err)
	}
	return packed(arch, program, show(p.url))
}

const (
	stalePattern = ".promdump-agents-*.tmp"
	staleAfter   = time.Hour // without a byte more
)

// removeStale removes downloads whose processes were killed.
func removeStale(dir string) {
	names, _ := filepath.Glob(filepath.Join(cmp.Or(dir, os.TempDir()), stalePattern)) // the pattern is right
	for _, name := range names {
		if fi, err := os.Lstat(name); err == nil && fi.Mode().IsRegular() && time.Since(fi.ModTime()) > staleAfter {
			_ = os.Remove(name) // fails if it is another user's
		}
	}
}

func keep(f *os.File, name string) error {
	// For other users too: they check what they use.
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// verified takes the agent out of an archive and proves it. What was proven is
// what is returned: the file is read once, since another may write to it.
func verified(r io.Reader, arch string, w want) ([]byte, error) {
	h := sha256.New()
	in := io.TeeReader(&limited{r: r, left: maxArchive}, h)
	program, err := readArchive(in, ProgramName(arch))
	if w.archive != nil {
		if err != nil && !errors.Is(err, errNotThere) {
			return nil, err // says more than the digest: it was cut, or is no archive
		}
		if got := [32]byte(h.Sum(nil)); got != *w.archive {
			return nil, fmt.Errorf("%w: the archive has %x instead of %x", ErrDigest, got, *w.archive)
		}
	}
	if err != nil {
		return nil, err
	}
	if w.program != nil {
		if got := sha256.Sum256(program); got != *w.program {
			return nil, fmt.Errorf("%w: %s has %x instead of %x", ErrDigest, ProgramName(arch), got, *w.program)
		}
	}
	return program, nil
}

func noAgent(arch string, p place) error {
	return fail(hintURL, "%s has no agent for %s", show(p.url), arch)
}

func packed(arch string, program []byte, from string) (*Agent, error) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(program); err != nil {
		return nil, fail("", "compress %s: %w", ProgramName(arch), err)
	}
	if err := z.Close(); err != nil {
		return nil, fail("", "compress %s: %w", ProgramName(arch), err)
	}
	return &Agent{OS: "linux", Arch: arch, Digest: sha256.Sum256(program), Gzip: b.Bytes(), Size: int64(len(program)), From: from}, nil
}
