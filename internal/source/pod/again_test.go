package pod

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promdump/promdump/internal/retry"
)

// adviceError is an error that says whether trying again can help.
type adviceError struct {
	advice retry.Advice
	after  time.Duration
}

func (e *adviceError) Error() string             { return "a cause" }
func (e *adviceError) Hint() string              { return "remove the cause" }
func (e *adviceError) ExitCode() int             { return 11 }
func (e *adviceError) Retry() retry.Advice       { return e.advice }
func (e *adviceError) RetryAfter() time.Duration { return e.after }

// What an error says of retrying decides how often it is tried, and what ends it.
func TestAgain(t *testing.T) {
	const retries = 3
	cause := func(a retry.Advice) error { return fmt.Errorf("start a shell: %w", &adviceError{advice: a}) }
	broken := errors.New("broken")
	for _, c := range []struct {
		name   string
		worked bool
		errs   []error // of the tries; the last one again and again
		tries  int
		lost   bool
	}{
		{"never, at first", false, []error{cause(retry.No)}, 1, false},
		{"never, later", false, []error{broken, cause(retry.No)}, 2, true},
		{"after a success, at first", false, []error{cause(retry.AfterSuccess)}, 1, false},
		{"after a success", true, []error{cause(retry.AfterSuccess)}, retries + 1, true},
		{"after a success, later", false, []error{broken, cause(retry.AfterSuccess)}, retries + 1, true},
		{"always", false, []error{cause(retry.Yes)}, retries + 1, true},
		{"always, until it works", false, []error{cause(retry.Yes), nil}, 2, false},
	} {
		tries := 0
		var err error
		synctest.Test(t, func(t *testing.T) {
			s := New(Options{times: times{stall: time.Second, limit: retries * time.Second, anew: time.Second, tries: 1}})
			s.worked.Store(c.worked)
			err = s.again(t.Context(), func(context.Context, *retry.Budget) (bool, error) {
				tries++
				return false, c.errs[min(tries, len(c.errs))-1]
			})
		})
		lost, ok := errors.AsType[*LostError](err)
		if tries != c.tries || ok != c.lost {
			t.Errorf("%s: %d tries, not %d: %v", c.name, tries, c.tries, err)
		}
		if ok && (!strings.Contains(lost.Hint(), "remove the cause") || lost.Tries != tries) {
			t.Errorf("%s: %q after %d tries", c.name, lost.Hint(), lost.Tries)
		}
	}
}

// The pause that a server asks for is kept.
func TestAgainAfter(t *testing.T) {
	var notes strings.Builder
	s := New(Options{Note: func(n string) { notes.WriteString(n) }, times: times{stall: time.Second, limit: time.Second, tries: 2}})
	tries := 0
	begin := time.Now()
	err := s.again(t.Context(), func(context.Context, *retry.Budget) (bool, error) {
		if tries++; tries == 1 {
			return false, &adviceError{retry.Yes, 100 * time.Millisecond}
		}
		return false, nil
	})
	if err != nil || time.Since(begin) < 100*time.Millisecond || !strings.Contains(notes.String(), "100ms") {
		t.Errorf("after %v: %v, %q", time.Since(begin), err, notes.String())
	}
}

// An upload is reported from its begin to its end, whether it succeeds or not.
func TestUploading(t *testing.T) {
	var seen []int64
	s := New(Options{Upload: func(done, total int64) {
		if total != 1<<20 {
			t.Errorf("of %d", total)
		}
		seen = append(seen, done)
	}})
	u := s.uploading(make([]byte, 1<<20))
	b := make([]byte, 300<<10)
	for range 3 {
		if _, err := u.Read(b); err != nil {
			t.Fatal(err)
		}
	}
	u.end()
	u.end()
	if got := fmt.Sprint(seen); got != fmt.Sprint([]int64{0, 300 << 10, 600 << 10, 1 << 20}) {
		t.Error(got)
	}
	seen = nil
	s.uploading(make([]byte, 100)).end()
	if seen != nil {
		t.Errorf("a few bytes are shown: %v", seen)
	}
}
