package restore

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/tsdbtest"
)

func TestRestoreServesTheSame(t *testing.T) {
	src := tsdbtest.Random(t, t.TempDir(), 7, tsdbtest.Options{Series: 24, Duration: 9 * time.Hour})
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	onlyBlocks := t.TempDir()
	for _, e := range names(t, src.Dir) {
		if isBlockName(e) {
			if err := os.CopyFS(filepath.Join(onlyBlocks, e), os.DirFS(filepath.Join(src.Dir, e))); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := served(t, onlyBlocks)
	if len(want) == 0 {
		t.Fatal("the source serves nothing")
	}
	for _, elsewhere := range []bool{false, true} {
		dir := filepath.Join(t.TempDir(), "data") // does not exist
		spec := Spec{Dir: dir}
		if elsewhere {
			spec.Staging = t.TempDir()
		}
		dump := dumpOf(t, onlyBlocks, false)
		rep := mustRestore(t, dump, spec)
		if len(rep.Added) == 0 || len(rep.Skipped) > 0 {
			t.Fatalf("first restore: %d added, %d skipped", len(rep.Added), len(rep.Skipped))
		}
		if d := tsdbtest.Diff(want, served(t, dir)); d != "" {
			t.Fatal(d)
		}
		before := names(t, dir)
		again := mustRestore(t, dump, spec)
		if len(again.Added) > 0 || len(again.Skipped) != len(rep.Added) || again.Bytes != 0 {
			t.Errorf("second restore: %d added, %d skipped, %d bytes", len(again.Added), len(again.Skipped), again.Bytes)
		}
		if d := cmp.Diff(before, names(t, dir)); d != "" {
			t.Errorf("the second restore changed the data dir:\n%s", d)
		}
	}
}

// TestMetaIsAdopted: what would do harm goes, what is not known stays.
func TestMetaIsAdopted(t *testing.T) {
	src := t.TempDir()
	id := addBlocks(t, src, span{"a", noon, noon + hour})[0]
	name := filepath.Join(src, id, metaName)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`"version": 1`), []byte(`"version": 1, "future": {"big": 9007199254740993, "text": "<&>"}`), 1)
	b = bytes.Replace(b, []byte(`"level": 1,`), []byte(`"level": 1, "later": [1.50], "hints": ["from-out-of-order", "other"], "deletable": true,
		"parents": [{"ulid": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "minTime": 1, "maxTime": 2}],`), 1)
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	mustRestore(t, dumpOf(t, src, false), Spec{Dir: dir})
	b, err = os.ReadFile(filepath.Join(dir, id, metaName))
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Future     json.RawMessage
		Compaction map[string]json.RawMessage
	}
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	compact := func(raw json.RawMessage) string {
		var out bytes.Buffer
		if len(raw) == 0 {
			return ""
		}
		if err := json.Compact(&out, raw); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	got := map[string]string{"future": compact(m.Future)}
	for _, field := range []string{"later", "hints", "deletable", "parents"} {
		got[field] = compact(m.Compaction[field])
	}
	want := map[string]string{
		"future": `{"big":9007199254740993,"text":"<&>"}`, "later": "[1.50]",
		"hints":     `["from-out-of-order","other","from-stale-series"]`,
		"deletable": "", "parents": "",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	mustServe(t, dir, span{"a", noon, noon + hour})
}

// TestOwnHeadSurvives restores blocks that end later than what the target has in
// blocks. Without the hints the target loses its own WAL: at the next restart, or
// at the one after a compaction that merged them with its own blocks.
func TestOwnHeadSurvives(t *testing.T) {
	own := span{"own", noon, noon + 2*hour - 60_000}
	older := []span{{"older", noon - 4*hour, noon - 2*hour}, {"older", noon - 2*hour, noon}}
	// The second overlaps with the target's own newest block.
	theirs := []span{{"restored", noon + hour, noon + 3*hour}, {"restored", noon - hour, noon + hour}}
	dump, ids := blocksDump(t, theirs...)
	want := append(slices.Clone(older), own, span{"restored", noon - hour, noon + 3*hour})

	for name, tc := range map[string]struct {
		hints []string // nil: as restored
		lost  bool
	}{
		"as restored":            {},
		"no hint":                {hints: []string{}, lost: true},
		"only from-out-of-order": {hints: []string{fromOutOfOrder}, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			headDir(t, dir, own)
			addBlocks(t, dir, older...)
			mustRestore(t, dump, Spec{Dir: dir})
			if tc.hints != nil {
				for _, id := range ids {
					err := editMeta(filepath.Join(dir, id), func(_, c map[string]any) error {
						c["hints"] = tc.hints
						return nil
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			for range 2 {
				db := open(t, dir)
				if err := db.Compact(t.Context()); err != nil {
					t.Fatal(err)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
			if lost := diffSpans(t, served(t, dir), want) != ""; lost != tc.lost {
				t.Errorf("lost samples: %v, expected %v\n%s", lost, tc.lost, diffSpans(t, served(t, dir), want))
			}
		})
	}
}

func TestRestoreBesideARunningServer(t *testing.T) {
	dir := t.TempDir()
	db := open(t, dir)
	add(t, db, span{"own", noon, noon + hour})
	theirs := span{"restored", noon - hour, noon + hour}
	dump, ids := blocksDump(t, theirs)
	mustRestore(t, dump, Spec{Dir: dir})
	waitFor(t, func() bool { return len(db.Blocks()) == 1 })
	if got := db.Blocks()[0].Meta().ULID.String(); got != ids[0] {
		t.Errorf("the server loaded %s, expected %s", got, ids[0])
	}
	got := tsdbtest.Samples(t, db, tsdbtest.Everything())
	if d := diffSpans(t, got, []span{{"own", noon, noon + hour}, theirs}); d != "" {
		t.Error(d)
	}
}

// TestCompactedAway: the server would delete a block that went into another one,
// so it is not restored again.
func TestCompactedAway(t *testing.T) {
	spans := []span{{"a", noon, noon + 2*hour}, {"b", noon + hour, noon + 3*hour}} // they overlap
	dump, _ := blocksDump(t, spans...)
	dir := t.TempDir()
	mustRestore(t, dump, Spec{Dir: dir})
	db := open(t, dir)
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	rep := mustRestore(t, dump, Spec{Dir: dir})
	if len(rep.Added) != 0 || len(rep.Skipped) != 2 {
		t.Errorf("%d added, %d skipped", len(rep.Added), len(rep.Skipped))
	}
	mustServe(t, dir, spans...)
}

func TestRawHead(t *testing.T) {
	src := tsdbtest.Random(t, t.TempDir(), 11, tsdbtest.Options{Series: 24, Duration: 9 * time.Hour})
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	want := served(t, src.Dir)
	dump := dumpOf(t, src.Dir, true)

	t.Run("empty", func(t *testing.T) {
		dir := t.TempDir()
		rep := mustRestore(t, dump, Spec{Dir: dir})
		if rep.Head != HeadRaw {
			t.Errorf("head is %q", rep.Head)
		}
		if d := tsdbtest.Diff(want, served(t, dir)); d != "" {
			t.Error(d)
		}
	})
	t.Run("started once", func(t *testing.T) { // a WAL without a record is in the way
		dir := t.TempDir()
		if err := open(t, dir).Close(); err != nil {
			t.Fatal(err)
		}
		mustRestore(t, dump, Spec{Dir: dir})
		if d := tsdbtest.Diff(want, served(t, dir)); d != "" {
			t.Error(d)
		}
	})
	t.Run("beside data", func(t *testing.T) {
		dir := t.TempDir()
		own := span{"own_head", noon, noon + hour}
		headDir(t, dir, own)
		both := tsdbtest.Served{}
		for _, s := range []tsdbtest.Served{want, expect(own)} {
			for k, v := range s {
				both[k] = v
			}
		}
		rep := mustRestore(t, dump, Spec{Dir: dir, IgnoreRetention: true})
		if !slices.ContainsFunc(rep.Added, func(b PlannedBlock) bool { return b.FromHead }) {
			t.Error("no block was made of the head")
		}
		if d := tsdbtest.Diff(both, served(t, dir)); d != "" {
			t.Error(d)
		}
		again := mustRestore(t, dump, Spec{Dir: dir, IgnoreRetention: true})
		if len(again.Added) > 0 {
			t.Errorf("the second restore added %d blocks", len(again.Added))
		}
	})
	t.Run("running server with nothing yet", func(t *testing.T) {
		dir := t.TempDir()
		db := open(t, dir)
		p := planOf(t, dump, Spec{Dir: dir})
		if p.Head != HeadBlocks {
			t.Errorf("head is %q under a running server", p.Head)
		}
		_ = db
	})
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	headDir(t, dir, span{"old", noon, noon + hour})
	addBlocks(t, dir, span{"old", noon - hour, noon})
	for _, foreign := range []string{"notes.txt", "snapshots"} {
		if err := os.Mkdir(filepath.Join(dir, foreign), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	src := t.TempDir()
	want := []span{{"new", noon - hour, noon}, {"new_head", noon, noon + hour}}
	headDir(t, src, want[1])
	addBlocks(t, src, want[0])
	dump := dumpOf(t, src, true)

	db := open(t, dir)
	p := planOf(t, dump, Spec{Dir: dir, Replace: true})
	if len(p.Refusals) != 1 {
		t.Fatalf("a running server: %v", p.Refusals)
	}
	if _, err := p.Run(t.Context()); err == nil {
		t.Fatal("replaced under a running server")
	}
	p.Close()
	mustServe2(t, db, span{"old", noon - hour, noon + hour})
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}

	p = planOf(t, dump, Spec{Dir: dir, Replace: true})
	if slices.Contains(p.Replaced, "notes.txt") || slices.Contains(p.Replaced, "snapshots") || !slices.Contains(p.Replaced, "wal") {
		t.Errorf("would take away %v", p.Replaced)
	}
	// A server that starts between plan and run is seen.
	db = open(t, dir)
	if _, err := p.Run(t.Context()); err == nil {
		t.Fatal("replaced under a server that started meanwhile")
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	p.Close()

	rep := mustRestore(t, dump, Spec{Dir: dir, Replace: true})
	if rep.Head != HeadRaw || len(rep.Replaced) == 0 {
		t.Errorf("report: %+v", rep)
	}
	mustServe(t, dir, want...)
	for _, foreign := range []string{"notes.txt", "snapshots"} {
		if _, err := os.Stat(filepath.Join(dir, foreign)); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "lock")); err == nil {
		t.Error("our lock was left behind")
	}
}

func mustServe2(t *testing.T, db *tsdb.DB, spans ...span) {
	t.Helper()
	if d := diffSpans(t, tsdbtest.Samples(t, db, tsdbtest.Everything()), spans); d != "" {
		t.Fatal(d)
	}
}

// Of a head without a log no server and no dump knows the series; a restore adds
// what else there is.
func TestRawHeadWithoutLog(t *testing.T) {
	src := tsdbtest.Random(t, t.TempDir(), 11, tsdbtest.Options{Series: 24, Duration: 9 * time.Hour})
	if err := src.Close(); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(src.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries { // blocks too: the dump has nothing but head chunks
		if e.Name() != "chunks_head" {
			err = errors.Join(err, os.RemoveAll(filepath.Join(src.Dir, e.Name())))
		}
	}
	if err = errors.Join(err, os.Mkdir(filepath.Join(src.Dir, "wal"), 0o777)); err != nil {
		t.Fatal(err)
	}
	dump := dumpOf(t, src.Dir, true)
	dir := t.TempDir()
	mustRestore(t, dump, Spec{Dir: dir})
	if got := served(t, dir); len(got) > 0 {
		t.Errorf("%d series are served", len(got))
	}
}
