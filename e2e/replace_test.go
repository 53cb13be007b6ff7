//go:build linux

package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/prometheus/prompb"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/tsdbtest"
)

// inPlace runs the agent as a pod would, on this machine.
func inPlace(t *testing.T, dir string) *pod.Source {
	t.Helper()
	file := filepath.Join(t.TempDir(), "agent")
	cmd := exec.Command("go", "build", "-o", file, "./cmd/promdump-agent")
	cmd.Dir, cmd.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v\n%s", err, out)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	return pod.New(pod.Options{
		Name: "here", Dirs: []string{dir},
		Agent: func(context.Context, string) ([]byte, int64, error) { return packed.Bytes(), int64(len(b)), nil },
		Exec: func(ctx context.Context, command []string, s pod.Streams) error {
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = s.In, s.Out, s.Err
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "TMPDIR=" + temp}
			return cmd.Run()
		},
	})
}

// A server whose data dir was replaced writes nothing into it any more, not even
// the snapshot that it would make as it ends; and the next one serves exactly what
// took its place.
func TestReplacedUnderServer(t *testing.T) {
	args := []string{"--enable-feature=memory-snapshot-on-shutdown", "--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y", "--storage.tsdb.wal-segment-size=10MB"}
	old := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Duration: 9 * time.Hour, Series: 24})
	comes := tsdbtest.Random(t, t.TempDir(), 4, tsdbtest.Options{Duration: 9 * time.Hour, Series: 24})
	for _, d := range []*tsdbtest.TSDB{old, comes} {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := tsdbtest.CopyDir(copied, comes.Dir); err != nil {
		t.Fatal(err)
	}
	reference := start(t, copied, serverOptions{args: args})
	want := reference.export(tsdbtest.Everything())
	reference.stop()

	files, err := pod.Uploads(blockDirs(t, comes.Dir)...)
	if err != nil {
		t.Fatal(err)
	}
	var headDirs []string
	for _, name := range datadir.HeadNames() {
		if _, err := os.Stat(filepath.Join(comes.Dir, name)); err == nil {
			headDirs = append(headDirs, filepath.Join(comes.Dir, name))
		}
	}
	head, err := pod.Uploads(headDirs...)
	if err != nil || len(head) == 0 {
		t.Fatalf("%d files of the head, %v", len(head), err)
	}
	server := start(t, old.Dir, serverOptions{args: args})
	src := inPlace(t, old.Dir)
	if seen, err := src.Inspect(t.Context()); err != nil || seen.Servers != 1 {
		t.Errorf("inspect: %+v, %v", seen, err)
	}
	late := func(i int) error {
		var all []prompb.TimeSeries
		random := rand.NewChaCha8([32]byte{byte(i)})
		for j := range 2000 {
			value := make([]byte, 500) // no compression makes less of it
			random.Read(value)
			all = append(all, prompb.TimeSeries{
				Labels:  label("__name__", "late", "n", fmt.Sprintf("%d-%x", j, value)),
				Samples: []prompb.Sample{{Timestamp: old.MaxTime + int64(i+1)*1000, Value: 1}},
			})
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		return server.write(ctx, all...)
	}
	if err := late(0); err != nil {
		t.Fatal(err)
	}
	id := ulid.Make().String()
	done, err := src.Replace(t.Context(), id, append(files, head...), func(int64) {})
	if err != nil || done.Held != 1 {
		t.Fatalf("%+v, %v", done, err)
	}
	// It still takes samples over the connection that it has, until it would need
	// another segment for them.
	for i := 1; i < 20; i++ {
		if err := late(i); err != nil {
			t.Logf("write %d: %v", i, err)
			break
		}
	}
	server.stop()
	wanted := map[string]bool{}
	for _, f := range append(files, head...) {
		wanted[f.Name] = true
		a, err1 := os.ReadFile(f.Path)
		b, err2 := os.ReadFile(filepath.Join(old.Dir, f.Name))
		if err1 != nil || err2 != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: %v, %v, or other bytes", f.Name, err1, err2)
		}
	}
	err = filepath.WalkDir(old.Dir, func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(old.Dir, path)
		if top, _, _ := strings.Cut(name, "/"); datadir.IsTSDBName(top) && !wanted[name] {
			t.Errorf("the server left %s", name)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if err := src.Discard(t.Context(), id); err != nil {
		t.Error(err)
	}
	next := start(t, old.Dir, serverOptions{args: args})
	if diff := tsdbtest.Diff(want, next.export(tsdbtest.Everything())); diff != "" {
		t.Errorf("it serves something else (-sent +served):\n%.2000s", diff)
	}
}

// blockDirs are the directories of the blocks in a data dir.
func blockDirs(t *testing.T, dir string) (all []string) {
	t.Helper()
	for _, meta := range blocks(t, dir) {
		all = append(all, filepath.Dir(meta))
	}
	slices.Sort(all)
	return all
}
