package remoteread

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/promdump/promdump/internal/promapi"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

const page = "<!DOCTYPE html>\n<html><body>Größe? Log in.</body></html>"

// otherShapes are answers of success without what was asked for.
var otherShapes = map[string]string{
	"nothing": "", "null": "null", "object": "{}", "list": "[]", "text": "ok", "page": page, "cut": `{"status":"success","data":{"head`,
	"no data": `{"status":"success"}`, "null data": `{"status":"success","data":null}`, "empty data": `{"status":"success","data":{}}`,
	"text data": `{"status":"success","data":"x"}`, "error": `{"status":"error","error":"not here"}`, "no status": `{"data":{"yaml":"global: {}","blocks":null}}`,
	"wrong types": `{"status":"success","data":{"headStats":{"numSeries":"1","minTime":"x","maxTime":[]},"blocks":{},"yaml":7,"startTime":0}}`,
	"null fields": `{"status":"success","data":{"headStats":null,"blocks":[{}],"yaml":null,"startTime":null}}`,
	"other yaml":  `{"status":"success","data":{"yaml":"","headStats":{},"blocks":[null],"startTime":""}}`,
	"VictoriaMetrics": `{"isPartial":false,"status":"success","data":{"totalSeries":0,"totalLabelValuePairs":0,` +
		`"seriesCountByMetricName":[],"seriesCountByLabelName":[],"labelValueCountByLabelName":[]}}`,
	"Thanos": `{"status":"success","data":[{"tenant":"default","headStats":{"numSeries":0,"minTime":0,"maxTime":0}}]}`,
	"Mimir":  `{"status":"success","data":{"yaml":"target: all\nmultitenancy_enabled: true\n"}}`,
}

// A server whose answers succeed without what was asked for has unknown blocks, head and
// labels, not none: what it has is dumped all the same.
func TestOtherShapes(t *testing.T) {
	db := replicaDB(t, 1)
	req := wire.Request{Head: wire.HeadBlock, Selection: wire.Selection{MinTime: replicaStart, MaxTime: replicaStart + windowLength - 1}}
	want := tsdbtest.Samples(t, db, req.Selection)
	paths := []string{promapi.HeadPath, promapi.BlocksPath, promapi.ConfigPath, promapi.FlagsPath, promapi.RuntimePath, promapi.SeriesPath}
	for name, body := range otherShapes {
		from := []string{""} // all of them
		if strings.Contains("object, page, null data, empty data, null fields", name) {
			from = append(from, paths...)
		}
		for _, path := range from {
			s := serve(t, db, db, func(s *server) { s.external = map[string]string{"cluster": "eu"} })
			next := s.Config.Handler
			s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Method == http.MethodGet && (path == "" || r.URL.Path == path) {
					_, _ = io.WriteString(w, body) // the client may have gone
					return
				}
				next.ServeHTTP(w, r)
			})
			dir, _, _, err := sourcetest.Dump(t, s.source(t, func(o *Options) {
				o.KeepExternalLabels = true // they are not known in some cases
			}), req)
			if err != nil {
				t.Errorf("%s from %q: %v", name, path, err)
				continue
			}
			got := tsdbtest.Served{}
			for key, samples := range tsdbtest.SamplesDir(t, dir, tsdbtest.Everything()) {
				got[strings.Replace(strings.Replace(key, `cluster="eu", `, "", 1), `, cluster="eu"`, "", 1)] = samples
			}
			if d := tsdbtest.Diff(want, got); d != "" {
				t.Errorf("%s from %q:\n%.300s", name, path, d)
			}
			inv, err := s.source(t, nil).Inventory(t.Context())
			_, unknown := errors.AsType[*UnknownError](err)
			switch {
			case path == "" && !unknown:
				t.Errorf("%s from all: %+v, %v", name, inv, err)
			case path != "" && (err != nil || inv.HeadUnknown != (path == promapi.HeadPath) || inv.BlocksUnknown != (path == promapi.BlocksPath)):
				t.Errorf("%s from %q: %+v, %v", name, path, inv, err)
			}
		}
	}
}

// A remote read that is answered with something else is refused at once, whatever the
// content type says.
func TestOtherAnswers(t *testing.T) {
	db := replicaDB(t, 1)
	req := wire.Request{Head: wire.HeadBlock, Selection: wire.Selection{MinTime: replicaStart, MaxTime: replicaStart + windowLength - 1}}
	for _, content := range []string{"", "text/html; charset=utf-8", "application/json", "text/plain", "application/x-streamed-protobuf", "application/x-protobuf"} {
		for _, body := range []string{"", page, strings.Repeat(page, 100), "{}", "\n{\"status\":\"success\",\"data\":{}}\n", "{\n"} {
			if strings.Contains(content, "protobuf") && body == "" {
				continue // no series, or damaged
			}
			s := serve(t, db, db, func(s *server) {
				s.read = func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
					w.Header()["Content-Type"] = nil // not guessed
					if content != "" {
						w.Header().Set("Content-Type", content)
					}
					_, _ = io.WriteString(w, body) // the client may have gone
				}
			})
			_, _, file, err := sourcetest.Dump(t, s.source(t, nil), req)
			if _, ok := errors.AsType[*AnswerError](err); !ok || len(file) > 0 || s.reads.Load() > 3 {
				t.Errorf("%q, %.20q: %d bytes after %d reads, %v", content, body, len(file), s.reads.Load(), err)
			}
		}
	}
}
