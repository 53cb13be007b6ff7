package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/prometheus/tsdb"
)

func TestRetention(t *testing.T) {
	const day = 24 * hour
	at := func(days int64) span { return span{"s", noon + days*day - hour, noon + days*day} }
	for _, tc := range []struct {
		name     string
		own, new []span
		spec     Spec
		refused  []string // a word of each reason
	}{
		{"all recent", []span{at(0)}, []span{at(-14)}, Spec{}, nil},
		{"to the millisecond", []span{at(0)}, []span{at(-15)}, Spec{}, []string{"restored blocks"}},
		{"alone it is the newest", nil, []span{at(-400)}, Spec{}, nil},
		{"spread", nil, []span{at(-400), at(0)}, Spec{}, []string{"1 of the 2 restored"}},
		{"it makes the own ones old", []span{at(-20), at(-19)}, []span{at(0)}, Spec{}, []string{"2 of the target's own"}},
		{"they were old before", []span{at(-20), at(0)}, []span{at(1)}, Spec{}, nil},
		{"given", []span{at(0)}, []span{at(-14)}, Spec{Retention: 10 * 24 * time.Hour}, []string{"retention of 10d"}},
		{"off", []span{at(0)}, []span{at(-400)}, Spec{Retention: -1}, nil},
		{"ignored", []span{at(0)}, []span{at(-400)}, Spec{IgnoreRetention: true}, nil},
		{"replaced", []span{at(0)}, []span{at(-400)}, Spec{Replace: true}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dump, _ := blocksDump(t, tc.new...)
			spec := tc.spec
			spec.Dir = t.TempDir()
			addBlocks(t, spec.Dir, tc.own...)
			p := planOf(t, dump, spec)
			if len(p.Refusals) != len(tc.refused) {
				t.Fatalf("refusals: %v", p.Refusals)
			}
			for i, word := range tc.refused {
				if r := p.Refusals[i]; !strings.Contains(r.Reason, word) || (r.Kind != OutOfTime && r.Kind != OutOfDefault) {
					t.Errorf("refusal: %+v", r)
				}
			}
			if len(p.Refusals) == 0 {
				return
			}
			before := names(t, spec.Dir)
			_, err := p.Run(t.Context())
			if _, ok := errors.AsType[*RefusedError](err); !ok {
				t.Errorf("run: %v", err)
			}
			if d := cmp.Diff(before, names(t, spec.Dir)); d != "" {
				t.Error(d)
			}
			// The judge: the library deletes as it was told to.
			opts := tsdb.DefaultOptions()
			opts.RetentionDuration = p.policy.Retention.Time.Milliseconds()
			p.Close()
			spec.IgnoreRetention = true
			mustRestore(t, dump, spec)
			db, err := tsdb.Open(spec.Dir, nil, nil, opts, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if len(db.Blocks()) >= len(tc.own)+len(tc.new) {
				t.Error("nothing was deleted")
			}
		})
	}
}

func TestThanos(t *testing.T) {
	dump, _ := blocksDump(t, span{"a", noon, noon + hour})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "thanos.shipper.json"), []byte("{}"), 0o644); err != nil {
		t.Fatal(err)
	}
	p := planOf(t, dump, Spec{Dir: dir})
	if d := cmp.Diff([]RefusalKind{Uploads}, kinds(p.Refusals)); d != "" {
		t.Fatal(d)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	mustRestore(t, dump, Spec{Dir: dir, AllowUpload: true})
}

func TestHopelessTargets(t *testing.T) {
	dump, ids := blocksDump(t, span{"a", noon, noon + hour})
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"not a data dir": dir, "a file": file, "no parent": filepath.Join(dir, "no", "data"),
	} {
		if _, err := restoreInto(t, dump, Spec{Dir: target}); err == nil {
			t.Errorf("%s: restored", name)
		}
	}
	if d := cmp.Diff([]string{"file"}, names(t, dir)); d != "" {
		t.Error(d)
	}

	broken := t.TempDir()
	if err := os.Mkdir(filepath.Join(broken, ids[0]), 0o755); err != nil {
		t.Fatal(err)
	}
	p := planOf(t, dump, Spec{Dir: broken})
	if len(p.Refusals) != 1 || !strings.Contains(p.Refusals[0].Reason, ids[0]) {
		t.Errorf("a block without meta.json: %v", p.Refusals)
	}
}

// api answers as a Prometheus does, out of a real TSDB. (e2e has a real server.)
func api(t *testing.T, db *tsdb.DB, reg *prometheus.Registry, flags map[string]string, config string, lists bool) string {
	mux := http.NewServeMux()
	data := func(path string, data func() any) {
		mux.HandleFunc("/prefix"+path, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"status":"success","data":`)
			if err := json.NewEncoder(w).Encode(data()); err != nil {
				t.Error(err)
			}
			fmt.Fprint(w, "}")
		})
	}
	data("/api/v1/status/flags", func() any { return flags })
	data("/api/v1/status/config", func() any { return map[string]string{"yaml": config} })
	data("/api/v1/status/buildinfo", func() any { return map[string]string{"version": "3.15.0"} })
	if lists {
		data("/api/v1/status/tsdb/blocks", func() any { return map[string]any{"blocks": db.BlockMetas()} })
	}
	mux.Handle("/prefix/metrics", promhttp.HandlerFor(reg, promhttp.HandlerOpts{}))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL + "/prefix/"
}

func TestWait(t *testing.T) {
	for _, lists := range []bool{true, false} {
		t.Run(fmt.Sprintf("lists blocks %v", lists), func(t *testing.T) {
			dir := t.TempDir()
			reg := prometheus.NewRegistry()
			opts := tsdb.DefaultOptions()
			opts.BlockReloadInterval = time.Second
			opts.RetentionDuration = 20 * 24 * hour
			db, err := tsdb.Open(dir, nil, reg, opts, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			url := api(t, db, reg, map[string]string{"storage.tsdb.retention.time": "20d"}, "", lists)
			dump, _ := blocksDump(t, span{"a", noon, noon + hour}, span{"b", noon - 18*24*hour, noon - 18*24*hour + hour})
			p := planOf(t, dump, Spec{Dir: dir, WaitURL: url, WaitTimeout: 20 * time.Second})
			if p.policy.Retention.Time != 20*24*time.Hour || p.policy.Version != "3.15.0" {
				t.Errorf("the server says %+v", p.policy)
			}
			p.server.every = 50 * time.Millisecond
			rep, err := p.Run(t.Context())
			if err != nil || !rep.Served || len(db.Blocks()) != 2 {
				t.Errorf("%+v, %v; the server has %d blocks", rep, err, len(db.Blocks()))
			}
		})
	}
	t.Run("in vain", func(t *testing.T) {
		other := open(t, t.TempDir()) // a server on another data dir
		url := api(t, other, prometheus.NewRegistry(), map[string]string{"storage.tsdb.retention.time": "15d"}, "", true)
		dump, ids := blocksDump(t, span{"a", noon, noon + hour})
		dir := t.TempDir()
		rep, err := restoreInto(t, dump, Spec{Dir: dir, WaitURL: url, WaitTimeout: 300 * time.Millisecond})
		if err == nil || !strings.Contains(err.Error(), "0 of 1") || len(rep.Added) != 1 || rep.Served {
			t.Errorf("%+v, %v", rep, err)
		}
		if !slices.Contains(names(t, dir), ids[0]) {
			t.Error("the block is gone again")
		}
	})
	t.Run("unreachable", func(t *testing.T) {
		dump, _ := blocksDump(t, span{"a", noon, noon + hour})
		dir := t.TempDir()
		_, err := restoreInto(t, dump, Spec{Dir: dir, WaitURL: "http://user:secret@127.0.0.1:1/"})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
		if left := names(t, dir); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
}

func TestRetentionOfServer(t *testing.T) {
	const day = 24 * time.Hour
	for _, tc := range []struct {
		flags  map[string]string
		config string
		want   Retention
	}{
		{map[string]string{"storage.tsdb.retention.time": "0s", "storage.tsdb.retention.size": "0B"}, "", Retention{Time: 15 * day, Size: "", From: "the server's flags"}},
		{map[string]string{"storage.tsdb.retention": "3d", "storage.tsdb.retention.time": "0s"}, "", Retention{Time: 3 * day, Size: "", From: "the server's flags"}},
		{map[string]string{"storage.tsdb.retention.time": "0s", "storage.tsdb.retention.size": "10GB"}, "", Retention{Time: 0, Size: "10GB", From: "the server's flags"}},
		{map[string]string{"storage.tsdb.retention.time": "5d"}, "global: {}\nstorage:\n  tsdb:\n    retention:\n      time: 1w\n      size: 1GiB\n", Retention{Time: 7 * day, Size: "1GiB", From: "the server's config"}},
		{map[string]string{"storage.tsdb.retention.time": "5d"}, "storage: {tsdb: {retention: {percentage: 80}}}", Retention{Time: 0, Size: "80% of the disk", From: "the server's config"}},
	} {
		s, err := newServer(api(t, nil, prometheus.NewRegistry(), tc.flags, tc.config, false), nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.retention(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(tc.want, got); d != "" {
			t.Errorf("%v %q:\n%s", tc.flags, tc.config, d)
		}
	}
}
