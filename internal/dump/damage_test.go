package dump_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/dump"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// damages are what power cuts, full disks and people do to the files of a head.
var damages = map[string]func(*rand.Rand, string) error{
	"flip": func(r *rand.Rand, path string) error {
		return change(path, func(b []byte) []byte {
			b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			return b
		})
	},
	"zeros": func(r *rand.Rand, path string) error {
		return change(path, func(b []byte) []byte {
			from := r.IntN(len(b))
			clear(b[from:min(len(b), from+r.IntN(40_000))])
			return b
		})
	},
	"cut": func(r *rand.Rand, path string) error {
		return change(path, func(b []byte) []byte { return b[:r.IntN(len(b))] })
	},
	"remove": func(_ *rand.Rand, path string) error { return os.Remove(path) },
	"repair": func(_ *rand.Rand, path string) error { return os.Rename(path, path+".repair") },
	"garbage": func(r *rand.Rand, path string) error {
		return change(path, func(b []byte) []byte {
			for range r.IntN(60) {
				b = append(b, byte(r.Uint32()))
			}
			return b
		})
	},
}

func change(path string, f func([]byte) []byte) error {
	b, err := os.ReadFile(path)
	if err != nil || len(b) == 0 {
		return err
	}
	return os.WriteFile(path, f(b), 0o666)
}

// damage damages a head in a few places, and says how.
func damage(t *testing.T, r *rand.Rand, dir string) string {
	t.Helper()
	var said []string
	for range 1 + r.IntN(3) {
		var files []string
		for _, pattern := range []string{"wal/0*", "wal/0*", "wal/checkpoint.*/0*", "wbl/0*", "chunks_head/0*"} {
			found, err := filepath.Glob(filepath.Join(dir, pattern))
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, found...)
		}
		kinds := slices.Sorted(maps.Keys(damages))
		kind, file := kinds[r.IntN(len(kinds))], files[r.IntN(len(files))]
		if err := damages[kind](r, file); err != nil {
			t.Fatal(err)
		}
		said = append(said, kind+" "+strings.TrimPrefix(file, dir+"/"))
	}
	return strings.Join(said, ", ")
}

// Whatever happened to the files of a head: all that a Prometheus which starts on
// them serves is in the dump, and nothing that was never in the head.
func TestDamagedHeads(t *testing.T) {
	src := tsdbtest.Random(t, filepath.Join(t.TempDir(), "data"), 5, tsdbtest.Options{
		Series: 24, Interval: 2 * time.Minute, Duration: 9 * time.Hour, WALSegmentSize: 32 << 10,
	})
	crashed := filepath.Join(t.TempDir(), "crashed")
	if err := src.Crash(crashed); err != nil {
		t.Fatal(err)
	}
	truth := tsdbtest.SamplesDir(t, crashed, tsdbtest.Everything())
	maps.DeleteFunc(truth, func(series string, _ []tsdbtest.Sample) bool { return isDeleted(src, series) })
	refused, lessServed, reported := 0, 0, 0
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 11))
		dir := filepath.Join(t.TempDir(), "damaged")
		if err := tsdbtest.CopyDir(dir, crashed); err != nil {
			t.Fatal(err)
		}
		how := damage(t, r, dir)
		served, opens := serve(t, dir)
		if !opens {
			refused++
		}
		got, report := dumped(t, dir)
		if len(report.Head.Damage) > 0 {
			reported++
		}
		// A deletion may be lost with the log: for the dump, for the server, or for both.
		for _, of := range []tsdbtest.Served{served, got} {
			maps.DeleteFunc(of, func(series string, _ []tsdbtest.Sample) bool { return isDeleted(src, series) })
		}
		if opens && served.Count() < truth.Count() {
			lessServed++
		}
		if diff := tsdbtest.Missing(served, got); diff != "" {
			t.Errorf("seed %d (%s): a Prometheus serves what is not in the dump:\n%s", seed, how, diff)
		}
		if diff := tsdbtest.Missing(got, truth); diff != "" {
			t.Errorf("seed %d (%s): the dump has what never was there:\n%s", seed, how, diff)
		}
		if tsdbtest.Missing(truth, got) != "" && len(report.Head.Damage) == 0 && !looksTorn(crashed, how) {
			t.Errorf("seed %d (%s): %d of %d samples, and nothing is reported", seed, how, got.Count(), truth.Count())
		}
	}
	if refused < 5 || lessServed < 2 || reported < 15 {
		t.Errorf("a Prometheus refused %d heads and served less of %d, %d were reported: too few to test anything", refused, lessServed, reported)
	}
}

func isDeleted(src *tsdbtest.TSDB, series string) bool {
	return slices.ContainsFunc(src.HeadDeletions, func(d tsdbtest.Deletion) bool { return strings.Contains(series, fmt.Sprintf("i=%q", d.I)) })
}

// looksTorn reports whether damage touches the newest file of a log, where it may
// look as if the server had not written more.
func looksTorn(dir, how string) bool {
	for _, log := range []string{"wal", "wbl", "chunks_head"} {
		files, _ := filepath.Glob(filepath.Join(dir, log, "0*"))
		// The WBL and the head chunks may begin anywhere: servers drop their first files.
		if log != "wal" && len(files) > 0 && strings.Contains(how, "remove "+log+"/"+filepath.Base(files[0])) {
			return true
		}
		for _, f := range slices.Backward(files) {
			if strings.Contains(how, log+"/"+filepath.Base(f)) {
				return true
			}
			if st, err := os.Stat(f); err == nil && st.Size() > 0 {
				break // a server that starts makes an empty one
			}
		}
	}
	return false
}

// A server that repaired its log serves the m-mapped chunks of what it cut off, and
// goes on.
func TestRepairedHeads(t *testing.T) {
	src := tsdbtest.Random(t, filepath.Join(t.TempDir(), "data"), 6, tsdbtest.Options{
		Series: 24, Interval: 2 * time.Minute, Duration: 9 * time.Hour, WALSegmentSize: 32 << 10,
	})
	crashed := filepath.Join(t.TempDir(), "crashed")
	if err := src.Crash(crashed); err != nil {
		t.Fatal(err)
	}
	repaired := 0
	for seed := range uint64(15) {
		r := rand.New(rand.NewPCG(seed, 12))
		dir := filepath.Join(t.TempDir(), "repaired")
		if err := tsdbtest.CopyDir(dir, crashed); err != nil {
			t.Fatal(err)
		}
		how := damage(t, r, dir)
		again, ok := repair(t, dir, src.MaxTime)
		if !ok {
			continue
		}
		repaired++
		served, opens := serve(t, again)
		if !opens {
			t.Fatalf("seed %d (%s): Prometheus does not start on what it repaired", seed, how)
		}
		got, _ := dumped(t, again)
		maps.DeleteFunc(served, func(series string, _ []tsdbtest.Sample) bool { return isDeleted(src, series) })
		if diff := tsdbtest.Missing(served, got); diff != "" {
			t.Errorf("seed %d (%s): a Prometheus serves what is not in the dump:\n%s", seed, how, diff)
		}
	}
	if repaired < 5 {
		t.Errorf("only %d heads were repaired", repaired)
	}
}

// repair starts a database on dir, lets it scrape on, and kills it.
func repair(t *testing.T, dir string, from int64) (killed string, ok bool) {
	t.Helper()
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	o.WALSegmentSize = 32 << 10
	db, err := tsdb.Open(dir, slog.New(slog.DiscardHandler), nil, o, nil)
	if err != nil {
		return "", false
	}
	defer db.Close()
	db.DisableCompactions()
	for i := range int64(150) {
		app := db.Appender(t.Context())
		for s := range 5 {
			if _, err := app.Append(0, labels.FromStrings("__name__", "after", "s", fmt.Sprint(s)), from+i*15_000, float64(i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := app.Commit(); err != nil {
			t.Fatal(err)
		}
	}
	db.ForceHeadMMap()
	killed = filepath.Join(t.TempDir(), "killed")
	if err := tsdbtest.CopyDir(killed, dir); err != nil {
		t.Fatal(err)
	}
	return killed, true
}

// serve is what a Prometheus serves that starts on a copy of dir; opens is false
// if it does not start.
func serve(t *testing.T, dir string) (served tsdbtest.Served, opens bool) {
	t.Helper()
	private := filepath.Join(t.TempDir(), "served")
	if err := tsdbtest.CopyDir(private, dir); err != nil {
		t.Fatal(err)
	}
	o := tsdb.DefaultOptions()
	o.RetentionDuration = 0
	db, err := tsdb.Open(private, slog.New(slog.DiscardHandler), nil, o, nil)
	if err != nil {
		return nil, false
	}
	defer db.Close()
	return tsdbtest.Samples(t, db, tsdbtest.Everything()), true
}

// dumped dumps dir and reads what the dump serves. An empty dump serves nothing.
func dumped(t *testing.T, dir string) (tsdbtest.Served, dump.Report) {
	t.Helper()
	req := wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}
	out, report, _, err := sourcetest.Dump(t, local.New(dir, local.Options{}), req)
	if empty, ok := errors.AsType[*dump.EmptyError](err); ok {
		return nil, dump.Report{Plan: empty.Plan, Head: empty.Head}
	}
	if err != nil {
		t.Fatal(err)
	}
	return tsdbtest.SamplesDir(t, out, tsdbtest.Everything()), report
}
