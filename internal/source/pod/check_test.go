package pod

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// A failed check keeps everything out of the container.
func TestCheckKeepsOut(t *testing.T) {
	c := newContainer(t)
	short := errors.New("short")
	_, err := c.source(t.TempDir(), func(o *Options) {
		o.times.limit = 0
		o.Check = func(context.Context) (bool, error) { return false, short }
	}).Inventory(t.Context())
	if !errors.Is(err, short) || c.started.Load() != 0 {
		t.Errorf("%v after %d commands", err, c.started.Load())
	}
}

// Where memory is tight the agent's file goes to a disk, though a directory in memory
// comes first, and to memory where there is nothing else.
func TestTightPlaces(t *testing.T) {
	memory, err := os.MkdirTemp("/dev/shm", "promdump-test-")
	if err != nil {
		t.Skipf("SKIPPED, proves nothing here: no /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	place := regexp.MustCompile(`file=(\S+)/\.promdump-agent`)
	for _, tight := range []bool{false, true} {
		c := newContainer(t)
		c.temp = memory // its TMPDIR
		var log bytes.Buffer
		_, err := c.source(tsdb.Dir, func(o *Options) {
			o.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			o.Check = func(context.Context) (bool, error) { return tight, nil }
		}).Inventory(t.Context())
		m := place.FindStringSubmatch(log.String())
		if err != nil || m == nil || (m[1] == memory) == tight || strings.HasPrefix(m[1], "/dev/shm") == tight {
			t.Errorf("tight %v: %v in %v", tight, err, m)
		}
		c.nothingLeft()
	}
}

// Without a shell, directories in memory come last.
func TestTightPlacesByTar(t *testing.T) {
	s := New(Options{Dirs: []string{"/data/tsdb"}, Volumes: []string{"/data", "/cache", "/mem"}, InMemory: []string{"/mem"}})
	for tight, want := range map[bool]string{
		false: "/tmp /var/tmp /dev/shm /run /cache /mem /data /data/tsdb",
		true:  "/tmp /var/tmp /cache /data /data/tsdb /dev/shm /run /mem",
	} {
		if got := strings.Join(s.places(tight), " "); got != want {
			t.Errorf("tight %v: %s, want %s", tight, got, want)
		}
	}
}

type restartedError struct{ error }

func (e *restartedError) Stops() bool { return true }

// A container that was restarted gets no second stream, whether the cluster knows that or
// the check before the upload finds out.
func TestNoStreamIntoARestartedContainer(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	for _, known := range []string{"before the next stream", "by the check"} {
		c := newContainer(t)
		c.cut = func(int) int64 { return 500 }
		asked, checked := 0, 0
		dead := &restartedError{errors.New("restarted")}
		src := c.source(tsdb.Dir, func(o *Options) {
			o.Alive = func(context.Context) error {
				asked++
				if known == "before the next stream" && asked == 1 {
					return dead
				}
				return nil
			}
			o.Check = func(context.Context) (bool, error) {
				if checked++; known == "by the check" && checked == 2 {
					return false, dead
				}
				return false, nil
			}
		})
		_, _, _, err := sourcetest.Dump(t, src, wire.Request{Head: wire.HeadNone, Selection: tsdbtest.Everything()})
		if _, lost := errors.AsType[*LostError](err); !errors.Is(err, dead) || lost || c.started.Load() != 1 {
			t.Errorf("%s: %v after %d streams", known, err, c.started.Load())
		}
	}
}

// Nothing keeps a replacement that was begun from being settled.
func TestSettling(t *testing.T) {
	if Settling(t.Context()) || !Settling(WithSettling(t.Context())) {
		t.Error("the mark is lost")
	}
	dir := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true}).Dir
	var marks []bool
	c := newContainer(t)
	src := c.source(dir, func(o *Options) {
		o.Check = func(ctx context.Context) (bool, error) {
			marks = append(marks, Settling(ctx))
			return false, nil
		}
	})
	if _, err := src.Inspect(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := src.Settle(t.Context(), "01ARZ3NDEKTSV4RRFFQ69G5FAV"); err != nil {
		t.Error(err)
	}
	if err := src.Discard(t.Context(), "01ARZ3NDEKTSV4RRFFQ69G5FAV"); err != nil {
		t.Error(err)
	}
	if !slices.Equal(marks, []bool{false, true, true}) {
		t.Errorf("marks %v", marks)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".promdump*")); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
