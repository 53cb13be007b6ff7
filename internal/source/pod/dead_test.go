package pod

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/promdump/promdump/internal/wire"
)

// deadline is what docs/using.md says of a link that is dead from some moment on.
const deadline = 2 * time.Minute

// deadLink is a link that dies while an agent answers.
type deadLink struct {
	silent bool          // a connection takes what is sent and nothing comes; else it is reset
	beats  int           // keepalives, five seconds apart, that come before
	away   time.Duration // it is dead for so long; 0: for ever
	waits  bool          // the agent waits for its client
	early  bool          // it dies before the agent runs

	died   time.Time
	runs   int
	alives int
}

var errReset = errors.New("connection reset by peer")

func (d *deadLink) dead() bool {
	return !d.died.IsZero() && (d.away == 0 || time.Since(d.died) < d.away)
}

// broken behaves as the link does while it is dead.
func (d *deadLink) broken(ctx context.Context) error {
	if !d.silent {
		return errReset
	}
	<-ctx.Done()
	return ctx.Err()
}

func (d *deadLink) exec(ctx context.Context, command []string, s Streams) error {
	d.runs++
	if d.early && d.died.IsZero() {
		d.died = time.Now()
	}
	if d.dead() {
		return d.broken(ctx)
	}
	go func() { _, _ = io.Copy(io.Discard, s.In) }()
	first := wire.Started
	if d.waits {
		first += " " + wire.Place{Name: "n", Key: "k", Program: "agent"}.String()
	}
	if command[1] == wire.ToAttach {
		first = fmt.Sprint(wire.Attached, " 1000000 ", wire.AttachedCalled)
	}
	if _, err := fmt.Fprintln(s.Out, first); err != nil {
		return err
	}
	if command[1] == wire.ToAttach || d.died.IsZero() && d.runs > 1 {
		return &ExitError{Code: 1, Err: errors.New("enough of it")}
	}
	w, err := wire.NewWriter(s.Out, wire.Plain)
	if err != nil {
		return err
	}
	for range d.beats {
		if err := w.KeepAlive(); err != nil {
			return err
		}
		time.Sleep(5 * time.Second)
	}
	if !d.died.IsZero() {
		return errors.Join(w.Answer(&wire.Inventory{}), w.Flush())
	}
	d.died = time.Now()
	return d.broken(ctx)
}

// alive takes as long as the client's question to an API server that does not answer.
func (d *deadLink) alive(ctx context.Context) error {
	d.alives++
	if d.silent && d.dead() {
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Second):
		}
	}
	return nil
}

func (d *deadLink) source(wait time.Duration) *Source {
	return New(Options{Name: "x", Installed: "agent", Dirs: []string{"/prometheus"}, Exec: d.exec, Alive: d.alive, Wait: wait})
}

// However a link dies, and whatever it carried before, the client gives it up after about two
// minutes, with one question about the container for each try.
func TestDeadLink(t *testing.T) {
	for _, silent := range []bool{false, true} {
		for _, wait := range []time.Duration{0, 90 * time.Second} {
			for _, d := range []*deadLink{{}, {beats: 1}, {beats: 100}, {early: true}} {
				d.silent, d.waits = silent, wait > 0
				synctest.Test(t, func(t *testing.T) {
					s := d.source(wait)
					s.worked.Store(true)
					var err error
					for _, e := range s.Read(t.Context(), wire.Request{}) {
						err = e
					}
					took := time.Since(d.died)
					lost, ok := errors.AsType[*LostError](err)
					// A question about the container comes before the last try, and one after it.
					if !ok || took > deadline+10*time.Second || took < 80*time.Second || lost.Tries < 3 {
						t.Errorf("silent %v, waits %v, %d beats, early %v: %v after %v", d.silent, d.waits, d.beats, d.early, err, took)
					}
					if d.alives > d.runs {
						t.Errorf("%d questions about the container for %d commands", d.alives, d.runs)
					}
				})
			}
		}
	}
}

// A link that comes back in time is used, whether it is the first time or the tenth.
func TestLinkComesBack(t *testing.T) {
	for _, silent := range []bool{false, true} {
		for _, away := range []time.Duration{time.Second, 30 * time.Second, 75 * time.Second} {
			synctest.Test(t, func(t *testing.T) {
				d := &deadLink{silent: silent, beats: 3, away: away}
				s := d.source(0)
				if _, err := s.Inventory(t.Context()); err != nil {
					t.Errorf("silent %v, away for %v: %v", silent, away, err)
				}
			})
		}
	}
}

// The bound that the documentation gives is that of the constants.
func TestBound(t *testing.T) {
	if bound := usual.stall + usual.limit; bound != deadline {
		t.Errorf("a dead link is given up after %v, and docs/using.md says %v", bound, deadline)
	}
	if usual.silence > usual.stall || usual.answer >= usual.limit {
		t.Error("more than the bound")
	}
}
