package remoteread

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"
	"github.com/prometheus/prometheus/tsdb/chunkenc"

	"github.com/promdump/promdump/internal/wire"
)

type noFlush struct{}

func (noFlush) Flush() {}

func frameOf(t testing.TB, w io.Writer, series int, query int64, data []byte) bool {
	m := &prompb.ChunkedReadResponse{QueryIndex: query, ChunkedSeries: []*prompb.ChunkedSeries{{
		Labels: []prompb.Label{{Name: "__name__", Value: "big"}, {Name: "i", Value: fmt.Sprintf("%08d", series)}},
		Chunks: []prompb.Chunk{{MinTimeMs: 1000, MaxTimeMs: 2000, Type: prompb.Chunk_XOR, Data: data}},
	}}}
	b, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	_, err = remote.NewChunkedWriter(w, noFlush{}).Write(b)
	return err == nil // else who reads has gone
}

// A stream is whole up to the end of a frame, and cut anywhere else.
func TestFramesCutAnywhere(t *testing.T) {
	var b bytes.Buffer
	ends := map[int]bool{0: true}
	for i := range 3 {
		frameOf(t, &b, i, 0, bytes.Repeat([]byte{1}, 150*i))
		ends[b.Len()] = true
	}
	for n := range b.Len() + 1 {
		f := newFrames(bytes.NewReader(b.Bytes()[:n]))
		var m prompb.ChunkedReadResponse
		var err error
		for err == nil {
			err = f.next(&m)
		}
		if whole := err == io.EOF; whole != ends[n] {
			t.Errorf("%d of %d bytes: %v", n, b.Len(), err)
		}
	}
}

// Bytes from outside: never a panic, and what was taken can be told.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	frameOf(f, &b, 1, 0, []byte{0, 1, 2})
	frameOf(f, &b, 0, 0, []byte{0, 1, 3})
	frameOf(f, &b, 7, 1, []byte{0, 1, 2})
	f.Add(b.Bytes(), false)
	f.Add(append(b.Bytes(), "an error\n"...), false)
	f.Add([]byte("\xff\xff\xff\xff\x0f1234"), true)
	var plain bytes.Buffer
	frameOf(f, &plain, 1, 0, []byte{0, 1, 2})
	f.Fuzz(func(t *testing.T, data []byte, sums bool) {
		if sums { // a checksum that fits lets the payload through
			var b bytes.Buffer
			if _, err := remote.NewChunkedWriter(&b, noFlush{}).Write(data); err != nil {
				t.Fatal(err)
			}
			data = b.Bytes()
		}
		fetch := &fetcher{pool: &pool{Source: New(Options{})}, queries: []query{{strip: map[string]string{"i": "1"}}}}
		s, err := newSpool(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		w := &window{spools: []*spool{s}}
		defer w.remove()
		if err := fetch.takeFrames(bytes.NewReader(data), span{0, 1 << 40}, s); err != nil {
			return
		}
		if err := s.finish(); err != nil {
			t.Fatal(err)
		}
		if _, _, err := w.tell(func(wire.Message) error { return nil }); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzSamples: the same of an answer with samples.
func FuzzSamples(f *testing.F) {
	b, err := (&prompb.TimeSeries{
		Labels: []prompb.Label{{Name: "a", Value: "b"}}, Samples: []prompb.Sample{{Timestamp: 3, Value: 1}, {Timestamp: 2}},
		Histograms: []prompb.Histogram{{Timestamp: 5, Schema: 3, PositiveSpans: []prompb.BucketSpan{{Length: 2}}, PositiveDeltas: []int64{1, 2}, Count: &prompb.Histogram_CountInt{CountInt: 4}}},
	}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, data []byte) {
		var ts prompb.TimeSeries
		if ts.Unmarshal(data) != nil {
			return
		}
		body, err := encode(nil, &ts, span{0, 1 << 40})
		if err != nil {
			return
		}
		if _, err := chunksOf(nil, body); err != nil {
			t.Fatal(err)
		}
	})
}

// A window may be any size: what is held of it does not grow with it.
func TestMemory(t *testing.T) {
	chunk := chunkenc.NewXORChunk()
	app, err := chunk.Appender()
	if err != nil {
		t.Fatal(err)
	}
	app.Append(0, 1000, 1)
	app.Append(0, 2000, 1)
	data := append(bytes.Clone(chunk.Bytes()), make([]byte, 32<<10)...)
	for _, sorted := range []bool{true, false} {
		peaks := map[int]uint64{}
		for _, series := range []int{500, 4000} { // 16 MiB, 128 MiB
			s := serve(t, nil, nil, func(s *server) {
				s.bare = true
				s.read = func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
					w.Header().Set("Content-Type", "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse")
					for q, asked := range decodeRequest(t, r).Queries {
						n := series
						if asked.EndTimestampMs <= 2000 { // the one at the end, or before all
							n = 1
						}
						for i := range n {
							if !sorted {
								i = i * 7919 % n
							}
							if !frameOf(t, w, i, int64(q), data) {
								return
							}
						}
					}
				}
			})
			told, peak := 0, watchHeap()
			req := wire.Request{Version: wire.Version, Head: wire.HeadBlock, Selection: wire.Selection{MinTime: 0, MaxTime: 7_000_000}}
			for m, err := range s.source(t, nil).Read(t.Context(), req) {
				if err != nil {
					t.Fatal(err)
				}
				if _, ok := m.(*wire.Series); ok {
					told++
				}
			}
			if told != series {
				t.Fatalf("%d series of %d", told, series)
			}
			peaks[series] = peak()
		}
		t.Logf("in order %v: heap of %d MiB with 16 MiB, %d MiB with 128 MiB", sorted, peaks[500]>>20, peaks[4000]>>20)
		if peaks[4000] > peaks[500]+48<<20 {
			t.Errorf("in order %v: heap of %d MiB with 16 MiB, %d MiB with 128 MiB", sorted, peaks[500]>>20, peaks[4000]>>20)
		}
	}
}

// watchHeap gives the most that the heap was until it is called.
func watchHeap() (peak func() uint64) {
	stop, most := make(chan struct{}), make(chan uint64)
	runtime.GC()
	go func() {
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		var stats runtime.MemStats
		var p uint64
		for {
			runtime.ReadMemStats(&stats)
			p = max(p, stats.HeapInuse)
			select {
			case <-tick.C:
			case <-stop:
				most <- p
				return
			}
		}
	}()
	return func() uint64 {
		close(stop)
		return <-most
	}
}

func TestRefusals(t *testing.T) {
	for _, req := range []wire.Request{
		{Head: wire.HeadBlock, Version: 99},
		{Head: "tail", Version: wire.Version},
		{Head: wire.HeadBlock, Version: wire.Version, Selection: wire.Selection{MinTime: 2, MaxTime: 1}},
		{Head: wire.HeadBlock, Version: wire.Version, Resume: &wire.Resume{Have: []wire.Block{{ULID: "x"}}}},
	} {
		for m, err := range New(Options{}).Read(t.Context(), req) {
			if m != nil || err == nil {
				t.Errorf("%+v: %T, %v", req, m, err)
			}
		}
	}
	if err := refuse(wire.Request{Head: wire.HeadBlock, Version: wire.Version, Resume: &wire.Resume{}}); err != nil {
		t.Error(err)
	}
	var e *LostError
	if err := fmt.Errorf("x: %w", &LostError{Err: io.EOF}); !errors.As(err, &e) || !errors.Is(err, io.EOF) || e.Hint() == "" {
		t.Error(err)
	}
}
