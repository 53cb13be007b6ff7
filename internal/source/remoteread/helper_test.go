package remoteread

import (
	"encoding/json"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb"
	"sigs.k8s.io/yaml"

	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

var quick = times{
	stall: 5 * time.Second, floor: time.Minute, sample: 30 * time.Minute,
	pause: []time.Duration{time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond, time.Millisecond},
}

// server is a database behind Prometheus' own remote read handler, with the parts
// of its API that are asked for.
type server struct {
	*httptest.Server
	external    map[string]string
	backEnds    int
	sampleLimit int
	bare        bool           // nothing but remote read
	silent      bool           // about which server it is
	identity    map[string]any // what runtimeinfo says

	// read, if set, is in front of remote read.
	read  func(w http.ResponseWriter, r *http.Request, next http.Handler)
	reads atomic.Int64
	mu    sync.Mutex
}

func serve(t testing.TB, db *tsdb.DB, q storage.SampleAndChunkQueryable, change func(*server)) *server {
	s := &server{sampleLimit: 5e7, identity: map[string]any{"startTime": time.Now(), "CWD": "/", "hostname": "host"}}
	if change != nil {
		change(s)
	}
	handler := remote.NewReadHandler(slog.New(slog.DiscardHandler), nil, q, func() config.Config {
		s.mu.Lock()
		defer s.mu.Unlock()
		return config.Config{GlobalConfig: config.GlobalConfig{ExternalLabels: labels.FromMap(s.external)}}
	}, s.sampleLimit, 10, 64<<10)
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/read", func(w http.ResponseWriter, r *http.Request) {
		s.reads.Add(1)
		if s.read != nil {
			s.read(w, r, handler)
			return
		}
		handler.ServeHTTP(w, r)
	})
	answer := func(path string, data func(r *http.Request) any) {
		mux.HandleFunc("GET /api/v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			if s.bare {
				http.NotFound(w, r)
				return
			}
			if err := json.NewEncoder(w).Encode(map[string]any{"status": "success", "data": data(r)}); err != nil {
				t.Error(err)
			}
		})
	}
	answer("status/tsdb", func(*http.Request) any {
		h := db.Head()
		return map[string]any{"headStats": map[string]any{"numSeries": h.NumSeries(), "minTime": h.MinTime(), "maxTime": h.MaxTime(), "chunkCount": 1}}
	})
	answer("status/tsdb/blocks", func(*http.Request) any {
		return map[string]any{"blocks": db.BlockMetas()}
	})
	answer("status/config", func(*http.Request) any {
		s.mu.Lock()
		defer s.mu.Unlock()
		c := map[string]any{"global": map[string]any{"external_labels": s.external}, "storage": map[string]any{"tsdb": map[string]any{"out_of_order_time_window": "1d"}}}
		for range s.backEnds {
			c["remote_read"] = []any{map[string]any{"url": "http://nowhere"}}
		}
		text, err := yaml.Marshal(c)
		if err != nil {
			t.Error(err)
		}
		return map[string]any{"yaml": string(text)}
	})
	if !s.silent {
		answer("status/runtimeinfo", func(*http.Request) any {
			s.mu.Lock()
			defer s.mu.Unlock()
			id := maps.Clone(s.identity)
			id["serverTime"] = time.Now()
			return id
		})
	}
	answer("status/flags", func(*http.Request) any { return map[string]string{"storage.tsdb.retention.time": "15d"} })
	answer("series", func(r *http.Request) any {
		matchers, err := parser.NewParser(parser.Options{}).ParseMetricSelector(r.FormValue("match[]"))
		if err != nil {
			t.Error(err)
			return nil
		}
		from, to := tsdbtest.Everything().MinTime, tsdbtest.Everything().MaxTime
		if v := r.FormValue("start"); v != "" {
			n, _ := strconv.ParseInt(v, 10, 64)
			from = n * 1000
		}
		if v := r.FormValue("end"); v != "" {
			n, _ := strconv.ParseInt(v, 10, 64)
			to = n * 1000
		}
		querier, err := db.Querier(from, to)
		if err != nil {
			t.Error(err)
			return nil
		}
		defer querier.Close()
		all := []map[string]string{}
		for set := querier.Select(r.Context(), false, &storage.SelectHints{Start: from, End: to, Func: "series"}, matchers...); set.Next(); {
			all = append(all, set.At().Labels().Map())
		}
		return all
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(s.Close)
	// The server's own complaints of handlers that panic are no news here.
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	return s
}

func (s *server) source(t testing.TB, change func(*Options)) *Source {
	u, err := ParseURL(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{URL: u, Client: s.Client(), Staging: t.TempDir(), times: quick, Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&o)
	}
	return New(o)
}

func openDB(t *testing.T, db *tsdbtest.TSDB) source.Source {
	return serve(t, db.DB(), db.DB(), nil).source(t, func(o *Options) {
		o.Note = func(s string) {
			// Windows at which this server panics are asked for in another way.
			if strings.Contains(s, "half") {
				t.Error(s)
			}
		}
	})
}

func refuses(req wire.Request) bool { return req.Head != wire.HeadBlock || req.WholeBlocks }
