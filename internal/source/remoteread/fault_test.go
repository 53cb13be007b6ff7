package remoteread

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/snappy"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// all asks for four windows of the TSDB.
func all(db *tsdbtest.TSDB) wire.Request {
	return wire.Request{Head: wire.HeadBlock, Selection: wire.Selection{
		MinTime: db.MaxTime - 3*windowLength - 12345, MaxTime: db.MaxTime,
		Matchers: [][]wire.Matcher{{{Type: "!=", Name: "namespace", Value: "ns-2"}}},
	}}
}

// answer is what the handler would answer.
func answer(r *http.Request, next http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	next.ServeHTTP(rec, r)
	return rec
}

func decodeRequest(t *testing.T, r *http.Request) *prompb.ReadRequest {
	packed, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	plain, err := snappy.Decode(nil, packed)
	if err != nil {
		t.Error(err)
	}
	req := &prompb.ReadRequest{}
	if err := req.Unmarshal(plain); err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(packed))
	return req
}

func replaceRequest(t *testing.T, r *http.Request, req *prompb.ReadRequest) {
	plain, err := req.Marshal()
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(snappy.Encode(nil, plain)))
}

// isWindow tells requests for windows from those before them.
func isWindow(t *testing.T, r *http.Request) bool {
	qs := decodeRequest(t, r).Queries
	return len(qs) > 1 && !slices.EqualFunc(qs[0].Matchers, qs[1].Matchers, func(a, b *prompb.LabelMatcher) bool { return a.String() == b.String() })
}

type notes struct {
	mu  sync.Mutex
	all []string
}

func (n *notes) note(s string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.all = append(n.all, s)
}

func (n *notes) has(text string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return strings.Contains(strings.Join(n.all, "\n"), text)
}

// Whatever happens on the way: what comes is the same dump, to the byte, or equal by
// samples where windows were asked for in pieces; or no dump at all.
func TestFaults(t *testing.T) {
	db := tsdbtest.Random(t, t.TempDir(), 0, tsdbtest.Options{})
	req := all(db)
	_, _, want, err := sourcetest.Dump(t, serve(t, db.DB(), db.DB(), nil).source(t, nil), req)
	if err != nil || len(want) < 100_000 {
		t.Fatalf("%d bytes, %v", len(want), err)
	}
	wantSamples := tsdbtest.Samples(t, db.DB(), req.Selection)
	var told notes
	dump := func(t *testing.T, read func(w http.ResponseWriter, r *http.Request, next http.Handler)) (string, []byte, error) {
		told = notes{}
		s := serve(t, db.DB(), db.DB(), func(s *server) { s.read = read })
		dir, _, file, err := sourcetest.Dump(t, s.source(t, func(o *Options) { o.Note = told.note }), req)
		return dir, file, err
	}
	same := func(t *testing.T, file []byte, err error) {
		t.Helper()
		if err != nil || !bytes.Equal(want, file) {
			t.Errorf("%d bytes, want %d: %v", len(file), len(want), err)
		}
	}
	equal := func(t *testing.T, dir string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if d := tsdbtest.Diff(wantSamples, tsdbtest.SamplesDir(t, dir, tsdbtest.Everything())); d != "" {
			t.Error(d)
		}
	}
	none := func(t *testing.T, file []byte, err error, says string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%d bytes, %v, want an error that says %q", len(file), err, says)
		}
	}

	// The connection goes, or a proxy ends the answer properly where it was cut.
	for _, clean := range []bool{false, true} {
		whole := func(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
			w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
			w.Write(rec.Body.Bytes())
		}
		cut := func(w http.ResponseWriter, rec *httptest.ResponseRecorder, n int) {
			w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
			w.Write(rec.Body.Bytes()[:n])
			if !clean {
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}
		t.Run(fmt.Sprintf("cut, clean %v", clean), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 4))
			for range 6 {
				var mu sync.Mutex
				seen := map[int64]bool{}
				_, file, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
					window, q := isWindow(t, r), decodeRequest(t, r).Queries[0]
					rec := answer(r, next)
					mu.Lock()
					defer mu.Unlock()
					if !window || seen[q.StartTimestampMs] || rec.Body.Len() == 0 {
						whole(w, rec)
						return
					}
					seen[q.StartTimestampMs] = true
					at := rng.IntN(rec.Body.Len())
					if rng.IntN(3) == 0 { // at a frame's end
						at = boundary(rec.Body.Bytes(), at)
					}
					cut(w, rec, at)
				})
				same(t, file, err)
				if len(seen) < 4 {
					t.Errorf("%d answers were cut", len(seen))
				}
			}
			_, file, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				window := isWindow(t, r)
				rec := answer(r, next)
				if !window {
					whole(w, rec)
					return
				}
				cut(w, rec, boundary(rec.Body.Bytes(), rec.Body.Len()/2))
			})
			says := "unexpected EOF"
			if clean {
				says = "ends without its last query"
			}
			none(t, file, err, says)
		})
	}

	t.Run("error text", func(t *testing.T) {
		const text = "querier: cannot populate chunk 8 from block 01ABC: segment index 0 out of range\n"
		broken := func(n int) func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			var mu sync.Mutex
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				window := isWindow(t, r)
				rec := answer(r, next)
				w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
				mu.Lock()
				defer mu.Unlock()
				body := rec.Body.Bytes()
				if window && n > 0 {
					n--
					body = append(slices.Clone(body[:boundary(body, len(body)*n/4%len(body))]), text...)
				}
				w.Write(body)
			}
		}
		_, file, err := dump(t, broken(3))
		same(t, file, err)
		_, file, err = dump(t, broken(1000))
		none(t, file, err, "cannot populate chunk 8")
	})

	t.Run("damaged", func(t *testing.T) {
		var mu sync.Mutex
		n := 0
		_, file, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			rec := answer(r, next)
			w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
			mu.Lock()
			defer mu.Unlock()
			if n++; n%2 == 0 && rec.Body.Len() > 0 {
				rec.Body.Bytes()[n*7919%rec.Body.Len()] ^= 4
			}
			w.Write(rec.Body.Bytes())
		})
		same(t, file, err)
	})

	t.Run("too much", func(t *testing.T) {
		for _, most := range []int64{40, 20} { // minutes
			dir, _, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				q := decodeRequest(t, r).Queries
				if isWindow(t, r) && q[0].EndTimestampMs-q[0].StartTimestampMs > most*60_000 {
					http.Error(w, "exceeded sample limit (5)", http.StatusBadRequest)
					return
				}
				next.ServeHTTP(w, r)
			})
			equal(t, dir, err)
			if !told.has("asking for half of it") {
				t.Errorf("%q", told.all)
			}
		}
		_, file, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if isWindow(t, r) {
				http.Error(w, "the query hit the max number of series limit", http.StatusUnprocessableEntity)
				return
			}
			next.ServeHTTP(w, r)
		})
		none(t, file, err, "max number of series")
	})

	t.Run("slow down", func(t *testing.T) {
		var mu sync.Mutex
		n := 0
		_, file, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			mu.Lock()
			n++
			wait := n == 3
			mu.Unlock()
			if wait {
				w.Header().Set("Retry-After", "1")
				http.Error(w, "slow down", http.StatusTooManyRequests)
				return
			}
			next.ServeHTTP(w, r)
		})
		same(t, file, err)
		if !told.has("slow down: asking again in 1s") {
			t.Errorf("%q", told.all)
		}
	})

	t.Run("samples", func(t *testing.T) {
		// The protocol's encoding of a sample has no negative zero.
		for name, samples := range wantSamples {
			wantSamples[name] = slices.Clone(samples)
			for i, s := range samples {
				if s.Value == 1<<63 && s.Kind == chunkenc.ValFloat {
					wantSamples[name][i].Value = 0
				}
			}
		}
		defer func() { wantSamples = tsdbtest.Samples(t, db.DB(), req.Selection) }()
		dir, _, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			req := decodeRequest(t, r)
			req.AcceptedResponseTypes = nil
			replaceRequest(t, r, req)
			next.ServeHTTP(w, r)
		})
		equal(t, dir, err)
		if !told.has("the server sends samples") {
			t.Errorf("%q", told.all)
		}
	})

	t.Run("in no order, and twice", func(t *testing.T) {
		dir, _, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			window := isWindow(t, r)
			rec := answer(r, next)
			w.Header().Set("Content-Type", rec.Header().Get("Content-Type"))
			list := splitFrames(rec.Body.Bytes())
			if window {
				body := slices.Clone(list[:len(list)-1]) // the last one is of the last query
				if len(list) > 3 {
					body = append(body, body[:3]...)
					rand.New(rand.NewPCG(1, 1)).Shuffle(len(body), func(i, j int) { body[i], body[j] = body[j], body[i] })
				}
				list = append(body, list[len(list)-1])
			}
			w.Write(bytes.Join(list, nil))
		})
		equal(t, dir, err)
	})

	t.Run("no end at all", func(t *testing.T) {
		old := func(share int, numbered bool) func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			return func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				window := isWindow(t, r)
				if !numbered { // a server that answers one query at a time
					if req := decodeRequest(t, r); len(req.Queries) > 1 {
						req.Queries = req.Queries[:1]
						replaceRequest(t, r, req)
					}
					window = true
				}
				rec := answer(r, next)
				conn, _, err := w.(http.Hijacker).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				body := rec.Body.Bytes()
				if window {
					body = body[:boundary(body, len(body)*share/100)]
				}
				fmt.Fprintf(conn, "HTTP/1.0 200 OK\r\nContent-Type: %s\r\n\r\n%s", rec.Header().Get("Content-Type"), body)
			}
		}
		_, file, err := dump(t, old(100, true))
		same(t, file, err)
		_, file, err = dump(t, old(50, true))
		none(t, file, err, "ends without its last query")
		_, file, err = dump(t, old(100, false))
		none(t, file, err, "neither a length nor HTTP's chunks")
	})

	t.Run("one query at a time", func(t *testing.T) {
		dir, _, err := dump(t, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			if len(decodeRequest(t, r).Queries) > 1 {
				http.Error(w, "one query, please", http.StatusBadRequest)
				return
			}
			next.ServeHTTP(w, r)
		})
		equal(t, dir, err)
	})

	for what, c := range map[string]struct {
		code int
		says string
		read func(w http.ResponseWriter, r *http.Request)
	}{
		"login": {11, "401", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "who?", http.StatusUnauthorized) }},
		"none":  {10, "404", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }},
		"redirect": {10, "302", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://elsewhere/", http.StatusFound)
		}},
	} {
		t.Run(what, func(t *testing.T) {
			_, file, err := dump(t, func(w http.ResponseWriter, r *http.Request, _ http.Handler) { c.read(w, r) })
			none(t, file, err, c.says)
			if e, ok := errors.AsType[*ServerError](err); !ok || e.ExitCode() != c.code || e.Hint() == "" {
				t.Errorf("%#v", err)
			}
		})
	}
}

// splitFrames gives the frames of an answer.
func splitFrames(b []byte) (all [][]byte) {
	for len(b) > 0 {
		size, n := binary.Uvarint(b)
		end := n + 4 + int(size)
		all = append(all, b[:end:end])
		b = b[end:]
	}
	return all
}

// boundary is the end of the last whole frame before at.
func boundary(b []byte, at int) int {
	n := 0
	for _, f := range splitFrames(b) {
		if n+len(f) > at {
			break
		}
		n += len(f)
	}
	return n
}
