package retry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

type advised struct {
	advice Advice
	after  time.Duration
}

func (e *advised) Error() string             { return "advised" }
func (e *advised) Retry() Advice             { return e.advice }
func (e *advised) RetryAfter() time.Duration { return e.after }

// The advice is that of the first error in the tree that gives one, however deep it is.
func TestOf(t *testing.T) {
	no, yes := &advised{advice: No, after: time.Second}, &advised{advice: Yes, after: time.Minute}
	plain := errors.New("plain")
	for _, c := range []struct {
		name  string
		err   error
		want  Advice
		after time.Duration
	}{
		{"nil", nil, Unknown, 0},
		{"plain", plain, Unknown, 0},
		{"itself", no, No, time.Second},
		{"wrapped", fmt.Errorf("a: %w", fmt.Errorf("b: %w", yes)), Yes, time.Minute},
		{"the first of two", fmt.Errorf("%w, %w", no, yes), No, time.Second},
		{"the first that gives one", errors.Join(plain, yes, no), Yes, time.Minute},
		{"the outer one", fmt.Errorf("%w", &outer{yes}), AfterSuccess, time.Minute},
		{"Unknown is an answer", &advised{}, Unknown, 0},
		{"as text alone", errors.New("a: " + no.Error()), Unknown, 0},
	} {
		if got, after := Of(c.err), After(c.err); got != c.want || after != c.after {
			t.Errorf("%s: %v after %v, want %v after %v", c.name, got, after, c.want, c.after)
		}
	}
}

// outer has an advice of its own and leaves the pause to what it wraps.
type outer struct{ error }

func (e *outer) Retry() Advice { return AfterSuccess }
func (e *outer) Unwrap() error { return e.error }

func budget() Budget {
	return Budget{Limit: 90 * time.Second, Tries: 8, Pauses: []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second}}
}

// drain fails until the budget is used up. Each attempt takes a time, and do sees each.
func drain(b *Budget, takes time.Duration, do func(n int)) (pauses []time.Duration) {
	for n := 1; ; n++ {
		time.Sleep(takes)
		if do != nil {
			do(n)
		}
		pause, ok := b.Next(0)
		if !ok {
			return pauses
		}
		pauses = append(pauses, pause)
		time.Sleep(pause)
	}
}

// Whatever an attempt takes, the last one begins within the limit, and there is one at
// its very end.
func TestLimit(t *testing.T) {
	for _, takes := range []time.Duration{0, time.Millisecond, 3 * time.Second, 20 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			b := budget()
			time.Sleep(takes) // the first one may take any time before it fails
			begin := time.Now()
			var last time.Duration
			pauses := drain(&b, 0, func(n int) {
				if n > 1 {
					last = time.Since(begin)
					time.Sleep(takes)
				}
			})
			if last > b.Limit || takes < b.Limit && last != b.Limit {
				t.Errorf("%v each: the last attempt began after %v, of %v", takes, last, b.Limit)
			}
			if b.Failed() != len(pauses)+1 || pauses[0] != 0 || b.Left() != 0 {
				t.Errorf("%v each: %d failures, pauses %v, left %v", takes, b.Failed(), pauses, b.Left())
			}
		})
	}
	synctest.Test(t, func(t *testing.T) {
		b := budget()
		pauses := drain(&b, 0, nil)
		const s = time.Second
		if want := []time.Duration{0, s, 2 * s, 4 * s, 8 * s, 15 * s, 15 * s, 15 * s, 15 * s, 15 * s}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
	})
}

// Attempts that reach the other side are counted as well, however the time goes on.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget()
		reach := func(int) { b.Reached(); b.Moved() }
		if n := len(drain(&b, time.Hour, reach)) + 1; n != b.Tries || b.Failed() != n {
			t.Errorf("%d attempts, %d failures, want %d", n, b.Failed(), b.Tries)
		}
	})
}

func TestFurther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget()
		first := len(drain(&b, 0, nil))
		b.Further()
		if b.Failed() != 0 || b.Left() != b.Limit {
			t.Errorf("%d failures, %v left", b.Failed(), b.Left())
		}
		if again := len(drain(&b, 0, nil)); again != first {
			t.Errorf("%d retries, and %d before it got further", again, first)
		}

		b = budget()
		b.Reached()
		b.Next(0)
		saved := b
		drain(&b, time.Second, nil)
		if b = saved; b.Failed() != 1 {
			t.Errorf("a copy has %d failures", b.Failed())
		}
	})
}

// The pause is at least what the other side asks for, but never goes beyond the limit.
func TestLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget()
		if pause, ok := b.Next(time.Minute); pause != time.Minute || !ok {
			t.Errorf("%v, %v", pause, ok)
		}
		time.Sleep(time.Minute)
		if pause, ok := b.Next(time.Minute); pause != 30*time.Second || !ok {
			t.Errorf("%v, %v", pause, ok)
		}
	})
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		if err := Sleep(t.Context(), time.Minute); err != nil || time.Since(begin) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin = time.Now()
		if err := Sleep(ctx, time.Minute); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if err := Sleep(ctx, 0); err == nil {
			t.Error("no error of a context that has ended")
		}
	})
}
