package agent

import (
	"context"
	"errors"
	"time"

	"github.com/promdump/promdump/internal/wire"
)

const (
	// guardPause is how often the guard looks. A server's heap grows by a few MiB in it.
	guardPause = 50 * time.Millisecond

	// guardPauseShort is how often it looks while little more is left than must be.
	guardPauseShort = 10 * time.Millisecond
)

// guard watches the memory of the container until ctx ends, and stops the agent's work
// before the kernel has to kill a process: it cancels with a *MemoryError.
//
// What the agent reads is page cache of the container too. It does not count, since
// the kernel takes it back before it kills.
func (m *memory) guard(ctx context.Context, cancel context.CancelCauseFunc) {
	if m == nil {
		return
	}
	kills := m.kills()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		// Where less than this is left the guard looks more often.
		const narrow = 4 * reserveMemory
		free, ok := m.free(narrow)
		if !ok {
			return // it could be read when the agent started: the container ends
		}
		if killed := m.kills() > kills; killed || free < reserveMemory {
			cancel(&MemoryError{Free: max(free, 0), Limit: m.limit, Running: true, Killed: killed})
			return
		}
		pause := guardPause
		if free < narrow {
			pause = guardPauseShort
		}
		timer.Reset(pause)
	}
}

// failForMemory sends the failure at once when the guard ends ctx, and with it ends what
// else is being written. The function that it returns ends the watch.
func failForMemory(ctx context.Context, w *wire.Writer) func() bool {
	return context.AfterFunc(ctx, func() {
		if short, ok := errors.AsType[*MemoryError](context.Cause(ctx)); ok {
			_ = w.Fail(failure(short)) // if the client does not read, the exit code says it
		}
	})
}

// stopped waits until the client has received why the guard stopped the agent. Serve
// does not wait for it longer than graceTime.
func (c client) stopped(ctx context.Context) error {
	cause := context.Cause(ctx)
	if _, short := errors.AsType[*MemoryError](cause); short {
		<-c.received
	}
	return cause
}

// ExitCode returns the exit code of the agent for what Serve returned. The client
// recognises that of a *MemoryError where the failure itself did not reach it.
func ExitCode(err error) int {
	if short, ok := errors.AsType[*MemoryError](err); ok && short.Running {
		return wire.ExitMemory
	}
	return 1
}
