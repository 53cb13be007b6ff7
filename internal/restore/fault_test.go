//go:build linux

package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// TestDamagedDump: whatever is wrong with a dump, the data dir stays as it was.
func TestDamagedDump(t *testing.T) {
	src := t.TempDir()
	addBlocks(t, src, span{"a", noon, noon + hour}, span{"b", noon, noon + hour})
	dump := dumpOf(t, src, false)
	dir := t.TempDir()
	headDir(t, dir, span{"own", noon, noon + hour})
	before := names(t, dir)

	try := func(name string, damaged []byte, want ...error) {
		t.Helper()
		_, err := restoreInto(t, damaged, Spec{Dir: dir})
		if err == nil {
			t.Fatalf("%s: restored", name)
		}
		if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
			t.Fatalf("%s: %v", name, err)
		}
		if d := cmp.Diff(before, names(t, dir)); d != "" {
			t.Fatalf("%s: the data dir changed:\n%s", name, d)
		}
	}
	for n := 0; n < len(dump); n += 512 { // uncompressed: every entry begins and ends at one of these
		try(fmt.Sprintf("cut at %d", n), dump[:n], archive.ErrIncomplete, archive.ErrNotDump)
	}
	for n := 700; n < len(dump)-1024; n += 2111 {
		flipped := bytes.Clone(dump)
		flipped[n] ^= 0x10
		// Padding is not covered by a digest, but must be zeros.
		try(fmt.Sprintf("flipped at %d", n), flipped, archive.ErrDamaged, archive.ErrIncomplete)
	}
	missing := filepath.Join(t.TempDir(), "data")
	if _, err := restoreInto(t, dump[:len(dump)/2], Spec{Dir: missing}); !errors.Is(err, archive.ErrIncomplete) {
		t.Errorf("into a new data dir: %v", err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the data dir that was made for nothing is still there")
	}
}

// damagedDump is a dump as its writer wrote it, but its second block, of series b, is
// damaged.
func damagedDump(t *testing.T, file string, damage func([]byte) []byte) []byte {
	t.Helper()
	src := t.TempDir()
	ids := addBlocks(t, src, span{"a", noon, noon + hour}, span{"b", noon, noon + hour})
	name := filepath.Join(src, ids[1], filepath.FromSlash(file))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, damage(b), 0o644); err != nil {
		t.Fatal(err)
	}
	return dumpOf(t, src, false)
}

func flip(b []byte) []byte { b[len(b)/2] ^= 0xff; return b }

// A block that a server cannot load keeps the server from loading any other.
func TestBlockThatCannotBeLoaded(t *testing.T) {
	for file, damage := range map[string]func([]byte) []byte{
		"index":         func(b []byte) []byte { return b[:len(b)-5] },
		metaName:        flip,
		"chunks/000001": func(b []byte) []byte { return b[:4] },
	} {
		dir := t.TempDir()
		_, err := restoreInto(t, damagedDump(t, file, damage), Spec{Dir: dir})
		if v, ok := errors.AsType[*VerifyError](err); !ok || len(v.Findings) == 0 {
			t.Errorf("%s damaged: %v", file, err)
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("%s damaged: the data dir has %v", file, left)
		}
	}
}

// A damaged chunk fails the queries that read it and no others, so it does not stand
// in the way of the rest.
func TestDamagedChunk(t *testing.T) {
	dump := damagedDump(t, "chunks/000001", flip)
	for _, elsewhere := range []bool{false, true} { // staged on the target's filesystem, and copied
		spec := Spec{Dir: t.TempDir()}
		if elsewhere {
			spec.Staging = t.TempDir()
		}
		p := planOf(t, dump, spec)
		if len(p.Refusals) > 0 || !slices.ContainsFunc(p.Notes, func(n string) bool {
			return strings.Contains(n, "damaged") && strings.Contains(n, `__name__="b"`) && strings.Contains(n, "checksum")
		}) {
			t.Errorf("refusals %v, notes %q", p.Refusals, p.Notes)
		}
		if _, err := p.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		only := tsdbtest.Everything()
		only.Matchers = [][]wire.Matcher{{{Type: "=", Name: "__name__", Value: "a"}}}
		if diff := tsdbtest.Diff(expect(span{"a", noon, noon + hour}), tsdbtest.SamplesDir(t, spec.Dir, only)); diff != "" {
			t.Error(diff)
		}
	}
}

// faultCase is a restore that is stopped at every border between two steps.
type faultCase struct {
	name     string
	replace  bool
	whole    bool   // all is put in place, or nothing
	old, new []span // what is served before and after
	dump     []byte
	setup    func(t *testing.T, dir string)
}

func faultCases(t *testing.T) []faultCase {
	theirs := []span{{"a", noon - 2*hour, noon}, {"b", noon - 2*hour, noon}}
	own := []span{{"own", noon, noon + hour}}
	src := t.TempDir()
	addBlocks(t, src, theirs...)
	blocks := dumpOf(t, src, false)
	headDir(t, src, span{"c", noon, noon + hour})
	raw := dumpOf(t, src, true)
	all := append(slices.Clone(theirs), span{"c", noon, noon + hour})
	withData := func(t *testing.T, dir string) { headDir(t, dir, own...) }
	return []faultCase{
		{"beside", false, false, own, append(slices.Clone(theirs), own...), blocks, withData},
		{"replace", true, true, own, all, raw, withData},
		{"raw into empty", false, true, nil, all, raw, func(*testing.T, string) {}},
	}
}

// check tells what a server makes of a data dir in which a restore was stopped.
func (tc faultCase) check(t *testing.T, dir string, done bool) {
	t.Helper()
	if done {
		mustServe(t, dir, tc.new...)
		return
	}
	got := served(t, dir) // fails when a server does not start
	allowed := expect(append(slices.Clone(tc.old), tc.new...)...)
	for series, samples := range got {
		if !slices.Equal(allowed[series], samples) {
			t.Errorf("%s is served in part or wrong: %d samples, expected %d", series, len(samples), len(allowed[series]))
		}
	}
}

func TestStoppedAtEveryStep(t *testing.T) {
	for _, tc := range faultCases(t) {
		t.Run(tc.name, func(t *testing.T) {
			for n := 0; ; n++ {
				dir := t.TempDir()
				tc.setup(t, dir)
				ctx, cancel := context.WithCancel(t.Context())
				p := planOf(t, tc.dump, Spec{Dir: dir, Replace: tc.replace})
				steps, at := 0, ""
				p.step = func(name string) error {
					if steps == n {
						at = name
						cancel()
					}
					steps++
					return nil
				}
				rep, err := p.Run(ctx)
				cancel()
				if err := p.Close(); err != nil {
					t.Fatal(err)
				}
				noLeftovers(t, dir)
				if err == nil { // also where it was stopped after all was in place
					tc.check(t, dir, true)
					if at == "" {
						return
					}
					continue
				}
				if !errors.Is(err, context.Canceled) {
					t.Fatalf("stopped at %q: %v", at, err)
				}
				if (tc.replace || p.Head == HeadRaw) && diffSpans(t, served(t, dir), tc.old) != "" {
					t.Fatalf("stopped at %q: the old contents are not back", at)
				}
				if rep != nil {
					for _, b := range rep.Added {
						if _, err := readMeta(filepath.Join(dir, b.ULID)); err != nil {
							t.Errorf("stopped at %q: reported, but %v", at, err)
						}
					}
				}
				tc.check(t, dir, false)
				mustRestore(t, tc.dump, Spec{Dir: dir, Replace: tc.replace})
				tc.check(t, dir, true)
			}
		})
	}
}

// TestKilledAtEveryStep does the same with SIGKILL, in a process of its own.
func TestKilledAtEveryStep(t *testing.T) {
	for _, tc := range faultCases(t) {
		t.Run(tc.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "dump")
			if err := os.WriteFile(file, tc.dump, 0o644); err != nil {
				t.Fatal(err)
			}
			for n := 0; ; n++ {
				dir := t.TempDir()
				tc.setup(t, dir)
				child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKilledChild$")
				child.Env = append(os.Environ(), "RESTORE_DIR="+dir, "RESTORE_DUMP="+file,
					"RESTORE_REPLACE="+strconv.FormatBool(tc.replace), "RESTORE_KILL_AT="+strconv.Itoa(n))
				out, err := child.CombinedOutput()
				if err == nil {
					tc.check(t, dir, true)
					if n < 4 {
						t.Errorf("only %d steps", n)
					}
					return
				}
				if status, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || status.Signal() != syscall.SIGKILL {
					t.Fatalf("the child ended with %v:\n%s", err, out)
				}
				tc.settled(t, dir, n)
			}
		})
	}
}

// settled runs the next command in a data dir in which a restore was killed. It finds the
// old contents or the new ones, whole, and says which.
func (tc faultCase) settled(t *testing.T, dir string, n int) {
	t.Helper()
	half, err := Unfinished(dir)
	if err != nil {
		t.Fatal(err)
	}
	if half == "" {
		tc.check(t, dir, false)
	}
	p := planOf(t, tc.dump, Spec{Dir: dir, Replace: tc.replace})
	if left, err := Unfinished(dir); err != nil || left != "" {
		t.Fatalf("killed at step %d: the old contents are still in %s, %v", n, left, err)
	}
	if said := len(p.Settled) == 1 && !p.Settled[0].Done; half != "" && !said {
		t.Errorf("killed at step %d: half-way, and it says %+v", n, p.Settled)
	}
	is := served(t, dir)
	old, comes := diffSpans(t, is, tc.old) == "", diffSpans(t, is, tc.new) == ""
	switch {
	case !tc.whole:
		tc.check(t, dir, false)
	case !old && !comes:
		t.Errorf("killed at step %d: neither the old nor the new is there", n)
	case len(p.Settled) > 0 && p.Settled[0].Done != comes:
		t.Errorf("killed at step %d: the new is there: %v, and it says %+v", n, comes, p.Settled)
	}
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	tc.check(t, dir, true)
	noLeftovers(t, dir)
}

// TestKilledChild is the process that is killed.
func TestKilledChild(t *testing.T) {
	dir := os.Getenv("RESTORE_DIR")
	if dir == "" {
		return
	}
	at, err := strconv.Atoi(os.Getenv("RESTORE_KILL_AT"))
	if err != nil {
		t.Fatal(err)
	}
	dump, err := os.Open(os.Getenv("RESTORE_DUMP"))
	if err != nil {
		t.Fatal(err)
	}
	defer dump.Close()
	p, err := Prepare(t.Context(), Spec{Dir: dir, Dump: dump, Replace: os.Getenv("RESTORE_REPLACE") == "true"})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	steps := 0
	p.step = func(string) error {
		if steps == at {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		steps++
		return nil
	}
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestReplaceRollsBack: publishing fails when the old contents are aside already.
func TestReplaceRollsBack(t *testing.T) {
	tc := faultCases(t)[1]
	dir := t.TempDir()
	tc.setup(t, dir)
	p := planOf(t, tc.dump, Spec{Dir: dir, Replace: true})
	before := names(t, dir)
	broken := errors.New("injected")
	wals := 0
	p.step = func(name string) error {
		if !strings.HasPrefix(name, "wal to ") {
			return nil
		}
		if wals++; wals == 2 { // first the old one goes aside; the new one is the last of all
			return broken
		}
		return nil
	}
	rep, err := p.Run(t.Context())
	if !errors.Is(err, broken) || len(rep.Added) > 0 || rep.Head != NoHead || rep.Bytes != 0 {
		t.Errorf("%v, %+v", err, rep)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	after := names(t, dir)
	inStaging := func(name string) bool { return strings.Contains(name, datadir.Creating) }
	if d := cmp.Diff(slices.DeleteFunc(before, inStaging), after); d != "" {
		t.Error(d)
	}
	mustServe(t, dir, tc.old...)
}

func TestLeftoversAndNeighbours(t *testing.T) {
	dump, ids := blocksDump(t, span{"a", noon, noon + hour})
	dir := t.TempDir()
	// What Prometheus itself is making just now is left alone.
	theirs := filepath.Join(dir, "01ARZ3NDEKTSV4RRFFQ69G5FAV"+datadir.Creating)
	ours := filepath.Join(dir, "01ARZ3NDEKTSV4RRFFQ69G5FAW"+datadir.Creating)
	for _, name := range []string{theirs, ours, filepath.Join(dir, ids[0]+datadir.Creating, "chunks"), filepath.Join(dir, "wal")} {
		if err := os.MkdirAll(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(ours, "promdump"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p := planOf(t, dump, Spec{Dir: dir})
	if _, err := os.Stat(ours); err == nil {
		t.Error("the staging of a killed restore is still there")
	}
	if _, err := restoreInto(t, dump, Spec{Dir: dir}); err == nil || !strings.Contains(err.Error(), "another restore") {
		t.Errorf("beside another restore: %v", err)
	}
	if _, err := p.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(theirs); err != nil {
		t.Error(err)
	}
	mustServe(t, dir, span{"a", noon, noon + hour})
}

// tmpfs mounts a filesystem of so many bytes.
func tmpfs(t *testing.T, size int) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a filesystem")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("mount is not permitted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func TestDiskFull(t *testing.T) {
	src := t.TempDir()
	addBlocks(t, src, span{"a", noon - 60*24*hour, noon}, span{"b", noon - 60*24*hour, noon}) // about 200 KiB
	dump := dumpOf(t, src, false)
	disk := tmpfs(t, 64<<10)
	dir := filepath.Join(disk, "data")
	isEmpty := func(what string) {
		t.Helper()
		if left := names(t, disk); len(left) > 0 {
			t.Errorf("%s: left on the full disk: %v", what, left)
		}
	}
	if len(dump) < 128<<10 {
		t.Fatalf("the dump has only %d bytes", len(dump))
	}

	file, err := os.Create(filepath.Join(t.TempDir(), "dump"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Write(dump); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	_, err = Prepare(t.Context(), Spec{Dir: dir, Dump: file})
	if r, ok := errors.AsType[*RefusedError](err); !ok || r.Refusals[0].Kind != LittleSpace {
		t.Errorf("a file that is too big: %v", err)
	}
	if pos, _ := file.Seek(0, io.SeekCurrent); pos != 0 {
		t.Errorf("%d bytes were read of a file that is too big", pos)
	}
	isEmpty("known size")

	_, err = restoreInto(t, dump, Spec{Dir: dir, IgnoreSpace: true})
	if r, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(r.Error(), "full") {
		t.Errorf("a disk that becomes full: %v", err)
	}
	isEmpty("full on the way")

	// Staging elsewhere: what has to be copied is known before.
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Dir: dir, Staging: t.TempDir()}
	p := planOf(t, dump, spec)
	if got := kinds(p.Refusals); !slices.Contains(got, LittleSpace) {
		t.Errorf("refusals: %v", p.Refusals)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	spec.IgnoreSpace = true
	_, err = restoreInto(t, dump, spec)
	if r, ok := errors.AsType[*RefusedError](err); !ok || !strings.Contains(r.Error(), "full") {
		t.Errorf("a disk that becomes full while copying: %v", err)
	}
	if left := names(t, dir); len(left) > 0 {
		t.Errorf("left on the full disk: %v", left)
	}
}
