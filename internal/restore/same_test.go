package restore

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"

	"github.com/promdump/promdump/internal/tsdbtest"
)

// openLevels opens dir as a server that merges blocks of two hours into such of six, and
// those into such of eighteen.
func openLevels(t *testing.T, dir string, reg prometheus.Registerer) *tsdb.DB {
	t.Helper()
	opts := tsdb.DefaultOptions()
	opts.RetentionDuration = 0
	opts.MaxBlockDuration = 18 * hour
	opts.BlockReloadInterval = time.Second
	db, err := tsdb.Open(dir, nil, reg, opts, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// levels are adjoining blocks of two hours, enough for two compactions.
func levels() (spans []span) {
	for at := noon - 48*hour; at < noon; at += 2 * hour {
		spans = append(spans, span{"a", at, at + 2*hour})
	}
	return spans
}

// mergeTwice makes the server merge what it has until blocks are of the third level.
func mergeTwice(t *testing.T, db *tsdb.DB) {
	t.Helper()
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range db.Blocks() {
		if b.Meta().Compaction.Level >= 3 {
			return
		}
	}
	t.Fatalf("no block was merged twice: %v", db.BlockMetas())
}

// A block that was merged, and merged again, is there: it is served, and a restore of the
// same dump adds nothing.
func TestMergedTwice(t *testing.T) {
	spans := levels()
	dump, ids := blocksDump(t, spans...)
	dir := t.TempDir()
	reg := prometheus.NewRegistry()
	db := openLevels(t, dir, reg)
	rep := mustRestore(t, dump, Spec{Dir: dir})
	mergeTwice(t, db)
	mustServe2(t, db, spans...)

	for _, lists := range []bool{true, false} {
		u := apiOf(t, db, reg, lists)
		s, err := newServer(u, nil)
		if err != nil {
			t.Fatal(err)
		}
		s.every = 20 * time.Millisecond
		if err := s.wait(t.Context(), rep.Added, 20*time.Second, func(Progress) {}); err != nil {
			t.Errorf("lists %v: %v", lists, err)
		}
	}

	before := names(t, dir)
	again := mustRestore(t, dump, Spec{Dir: dir})
	if len(again.Added) > 0 || len(again.Skipped) != len(ids) {
		t.Errorf("%d added, %d skipped: %+v", len(again.Added), len(again.Skipped), again.Added)
	}
	if after := names(t, dir); !slices.Equal(before, after) {
		t.Errorf("the data dir changed from %v to %v", before, after)
	}
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustServe2(t, db, spans...)
}

// Where samples were deleted since, the dump brings them back.
func TestMergedAndDeleted(t *testing.T) {
	spans := levels()
	dump, _ := blocksDump(t, spans...)
	dir := t.TempDir()
	db := openLevels(t, dir, nil)
	mustRestore(t, dump, Spec{Dir: dir})
	mergeTwice(t, db)
	ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Delete(t.Context(), noon-48*hour, noon, ms...); err != nil {
		t.Fatal(err)
	}
	if err := db.CleanTombstones(); err != nil {
		t.Fatal(err)
	}
	if got := tsdbtest.Samples(t, db, tsdbtest.Everything()).Count(); got > 0 {
		t.Fatalf("%d samples are left", got)
	}
	mustRestore(t, dump, Spec{Dir: dir})
	if err := db.Compact(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustServe2(t, db, spans...)
}

// What names say, and what they do not.
func TestHolders(t *testing.T) {
	b := func(ulid string, samples uint64, sources ...string) origin {
		return origin{ulid: ulid, sources: sources, samples: samples}
	}
	part := func(o origin) origin { o.part = true; return o }
	deletions := func(o origin) origin { o.deletions = true; return o }
	for what, c := range map[string]struct {
		block origin
		in    []origin
		want  []string
	}{
		"nothing there":              {b("X", 5, "X"), nil, nil},
		"itself":                     {b("X", 5, "a", "b"), []origin{b("X", 1)}, []string{"X"}},
		"merged":                     {b("X", 5, "X"), []origin{{ulid: "W", parents: []string{"X", "Y"}}}, []string{"W"}},
		"merged twice":               {b("X", 5, "X"), []origin{b("V", 9, "v"), b("W", 20, "X", "Y", "Z")}, []string{"W"}},
		"its parts":                  {b("X", 5, "a", "b"), []origin{b("a", 2, "a"), b("b", 3, "b")}, []string{"a", "b"}},
		"one of its parts":           {b("X", 5, "a", "b"), []origin{b("a", 2, "a")}, nil},
		"it is a cut of a block":     {b("CUT", 2, "CUT"), []origin{b("X", 5, "X")}, nil},
		"a cut of it is there":       {b("X", 5, "X"), []origin{b("CUT", 2, "CUT")}, nil},
		"fewer samples":              {b("X", 5, "X"), []origin{b("W", 4, "X", "Y")}, nil},
		"fewer, as it has deletions": {deletions(b("X", 5, "X")), []origin{b("W", 4, "X", "Y")}, []string{"W"}},
		"an unknown number":          {b("X", 5, "X"), []origin{b("W", 0, "X", "Y")}, []string{"W"}},
		"no sources":                 {b("X", 5), []origin{b("W", 5)}, nil},
		"a share of the series":      {part(b("X", 5, "X")), []origin{b("W", 20, "X", "Y")}, nil},
		"a share is there":           {b("X", 5, "X"), []origin{part(b("W", 20, "X", "Y"))}, nil},
	} {
		if got := holders(c.block, c.in); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", what, got, c.want)
		}
	}
	for section, want := range map[string]bool{
		``: false, `null`: false, `{"labels":{"cluster":"eu"},"downsample":{"resolution":0}}`: false,
		`{"downsample":{"resolution":300000}}`: true, `{"labels":{"__compactor_shard_id__":"1_of_4"}}`: true,
		`{"extensions":{"partition_info":{"partition_count":2}}}`: true, `{"labels":7}`: true,
	} {
		if got := isPart(json.RawMessage(section)); got != want {
			t.Errorf("%s: %v", section, got)
		}
	}
}

// Two shares of one block, as Mimir's compactor makes them, are both restored.
func TestShares(t *testing.T) {
	shares := []span{{"a", noon, noon + 2*hour}, {"b", noon, noon + 2*hour}}
	src := t.TempDir()
	ids := addBlocks(t, src, shares...)
	for i, id := range ids {
		name := filepath.Join(src, id, metaName)
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.Replace(string(text), `"version": 1`, fmt.Sprintf(`"version": 1, "thanos": {"labels": {"__compactor_shard_id__": "%d_of_2"}}`, i+1), 1)
		changed = strings.Replace(changed, `"`+id+"\"\n", `"`+ids[0]+"\"\n", 1) // the only source of both
		if changed == string(text) {
			t.Fatal("nothing was changed")
		}
		if err := os.WriteFile(name, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, id := range ids {
		one := t.TempDir()
		if err := os.CopyFS(filepath.Join(one, id), os.DirFS(filepath.Join(src, id))); err != nil {
			t.Fatal(err)
		}
		mustRestore(t, dumpOf(t, one, false), Spec{Dir: dir})
	}
	mustServe(t, dir, shares...)
}

// apiOf answers as a Prometheus on a database.
func apiOf(t *testing.T, db *tsdb.DB, reg *prometheus.Registry, lists bool) string {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(path string, data func(*http.Request) any) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data(r)}); err != nil {
				t.Error(err)
			}
		})
	}
	answer("/api/v1/status/flags", func(*http.Request) any { return map[string]string{"storage.tsdb.retention.time": "10y"} })
	answer("/api/v1/status/config", func(*http.Request) any { return map[string]string{"yaml": "global: {}"} })
	start := time.Now().Add(-time.Hour)
	answer("/api/v1/status/runtimeinfo", func(*http.Request) any {
		return map[string]any{"startTime": start, "serverTime": time.Now(), "hostname": "host"}
	})
	if lists {
		answer("/api/v1/status/tsdb/blocks", func(*http.Request) any { return map[string]any{"blocks": db.BlockMetas()} })
	}
	answer("/api/v1/query", func(r *http.Request) any {
		selector, ok := strings.CutSuffix(r.FormValue("query"), "[1s]")
		ms, err := parser.NewParser(parser.Options{}).ParseMetricSelector(selector)
		var at float64
		if _, serr := fmt.Sscan(r.FormValue("time"), &at); err != nil || serr != nil || !ok {
			t.Errorf("%v, %v: %s", err, serr, r.Form)
			return nil
		}
		q, err := db.Querier(int64(at*1000)-999, int64(at*1000))
		if err != nil {
			t.Error(err)
			return nil
		}
		defer q.Close()
		result := []any{}
		for set := q.Select(r.Context(), true, &storage.SelectHints{Start: int64(at*1000) - 999, End: int64(at * 1000)}, ms...); set.Next(); {
			var values []any
			for it := set.At().Iterator(nil); it.Next() != 0; {
				values = append(values, []any{float64(it.AtT()) / 1000, "1"})
			}
			result = append(result, map[string]any{"metric": set.At().Labels().Map(), "values": values})
		}
		return map[string]any{"resultType": "matrix", "result": result}
	})
	mux.Handle("/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}
