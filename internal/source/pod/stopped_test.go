package pod

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/promdump/promdump/internal/wire"
)

// An agent that stopped itself for want of memory, and whose failure did not get through,
// is not started again.
func TestStoppedItself(t *testing.T) {
	for _, said := range []string{"promdump-agent: 2 MiB are left", ""} {
		runs := 0
		s := New(Options{Name: "x", Installed: "promdump-agent", Dirs: []string{"/prometheus"}, Exec: func(_ context.Context, _ []string, s Streams) error {
			runs++
			fmt.Fprintln(s.Out, "start")
			fmt.Fprint(s.Err, said)
			return &ExitError{Code: wire.ExitMemory, Err: errors.New("exit code 75")}
		}})
		_, err := s.Inventory(t.Context())
		failure, ok := errors.AsType[*wire.Failure](err)
		if !ok || !failure.Memory || failure.Code != 3 || failure.Text == "" || said != "" && failure.Text != "2 MiB are left" || runs != 1 {
			t.Errorf("%q: %v after %d runs", said, err, runs)
		}
	}
}
