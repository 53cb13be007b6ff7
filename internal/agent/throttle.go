package agent

import (
	"context"
	"io"
	"time"
)

// GentleRate is that of --gentle where the server cannot be watched, bytes a second.
const GentleRate = 10 << 20

// Throttle lets w take no more than a number of bytes in a second; 0: any.
func Throttle(ctx context.Context, w io.Writer, bytes int64) io.Writer {
	if bytes <= 0 {
		return w
	}
	return &throttled{ctx: ctx, w: w, rate: bytes}
}

type throttled struct {
	ctx  context.Context
	w    io.Writer
	rate int64     // bytes a second
	free time.Time // when the bytes before will have gone at that rate
}

// Write writes in pieces of a tenth of a second.
func (t *throttled) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		now := time.Now()
		if wait := t.free.Sub(now); wait > 0 {
			select {
			case <-t.ctx.Done():
				return n, t.ctx.Err()
			case <-time.After(wait):
			}
		} else {
			t.free = now // what was not used is not saved up
		}
		piece := p[:min(int64(len(p)), max(t.rate/10, 1))]
		m, err := t.w.Write(piece)
		n += m
		if err != nil {
			return n, err
		}
		t.free = t.free.Add(time.Duration(int64(m) * int64(time.Second) / t.rate))
		p = p[m:]
	}
	return n, nil
}
