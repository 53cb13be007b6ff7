package retry

import (
	"context"
	"time"
)

// Budget bounds the retries of one operation over a connection. It is used up when nothing
// has moved for Limit after a failure, or when Tries attempts have reached the other side
// and failed without getting further.
//
// A copy is a state to return to. A Budget is not safe for concurrent use.
type Budget struct {
	Limit  time.Duration   // from the first failure to the begin of the last retry
	Tries  int             // attempts that reach the other side
	Pauses []time.Duration // before the retries; the last one is repeated

	failed  int       // failures since it got further
	reached int       // how many of these attempts reached the other side
	begin   time.Time // of the first failure since something moved; zero: there was none
}

// Next records a failure and returns the pause before the next attempt, at least as long as
// least if the limit allows that. If ok is false there must be none. The last attempt
// begins exactly at the limit.
func (b *Budget) Next(least time.Duration) (pause time.Duration, ok bool) {
	if b.begin.IsZero() {
		b.begin = time.Now()
	}
	left := b.Left()
	b.failed++
	if left <= 0 || b.reached >= b.Tries {
		return 0, false
	}
	if n := len(b.Pauses); n > 0 {
		pause = b.Pauses[min(b.failed, n)-1]
	}
	return min(max(pause, least), left), true
}

// Left returns the time until the limit. Without a failure that is the whole of it.
func (b *Budget) Left() time.Duration {
	if b.begin.IsZero() {
		return b.Limit
	}
	return max(0, b.Limit-time.Since(b.begin))
}

// Failed returns the number of failures since it got further.
func (b *Budget) Failed() int { return b.failed }

// Reached records that the current attempt has reached the other side.
func (b *Budget) Reached() { b.reached++ }

// Moved records that the connection carries bytes: the limit counts from the next failure
// on. The number of tries stays.
func (b *Budget) Moved() { b.begin = time.Time{} }

// Further records that the operation got further: the budget is a new one.
func (b *Budget) Further() { b.failed, b.reached, b.begin = 0, 0, time.Time{} }

// Sleep waits for d, or until ctx ends: then it returns the error of ctx.
func Sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
