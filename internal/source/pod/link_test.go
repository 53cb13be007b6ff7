package pod

import (
	"bytes"
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/source/sourcetest"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

const waits = 10 * time.Second

func waiting(o *Options) { o.Wait = waits }

// A stream that is cut a hundred times goes on with the same agent at the byte where it
// stopped, wherever that is, the head included.
func TestReconnect(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 11, tsdbtest.Options{})
	rng := rand.New(rand.NewPCG(5, 6))
	cuts := 0
	for i, head := range []wire.HeadMode{wire.HeadBlock, wire.HeadRaw} {
		req := wire.Request{Head: head, Selection: tsdbtest.Everything()}
		_, _, want, err := sourcetest.Dump(t, local.New(tsdb.Dir, local.Options{}), req)
		if err != nil {
			t.Fatal(err)
		}
		c := newContainer(t)
		c.waits = true
		size := int64(len(want))
		c.cut = func(n int) int64 {
			switch {
			case n == 0:
				return 400 // past the start
			case n > 60:
				return -1
			}
			return 60 + rng.Int64N(size/40)
		}
		_, _, got, err := sourcetest.Dump(t, c.source(tsdb.Dir, waiting, func(o *Options) {
			o.Codec = []wire.Codec{wire.Plain, wire.Zstd}[i]
		}), req)
		if err != nil || !bytes.Equal(want, got) {
			t.Errorf("%s: %d bytes, want %d (%v)", head, len(got), len(want), err)
		}
		if n := c.uploads.Load(); n != 1 {
			t.Errorf("%s: %d uploads", head, n)
		}
		cuts += int(c.started.Load()) - 1
		c.nothingLeft()
	}
	if t.Logf("%d cuts", cuts); cuts < 50 {
		t.Error("too few to prove anything")
	}
}

// What a client leaves on purpose ends at once, whatever it would wait.
func TestGoodbye(t *testing.T) {
	tsdb := tsdbtest.Random(t, t.TempDir(), 3, tsdbtest.Options{Plain: true})
	for stop := range 4 {
		c := newContainer(t)
		c.waits = true
		ctx, cancel := context.WithCancel(t.Context())
		n := 0
		for range c.source(tsdb.Dir, func(o *Options) { o.Wait = time.Hour }).Read(ctx, wire.Request{Head: wire.HeadBlock, Selection: tsdbtest.Everything()}) {
			if n++; n > stop {
				if stop%2 == 0 {
					break
				}
				cancel()
			}
		}
		cancel()
		c.nothingLeft()
	}
}
