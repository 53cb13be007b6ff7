package query

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// budget divides Limits.Memory among requests.
//
// Half of it is for what requests hold, the other half for garbage that is not
// collected yet. The first half is divided again. One half of it is shared equally by
// as many small requests as may run at once. The other half is for requests that need
// more: several at a time with a part of it, or one with all of it. Every request
// starts as a small one. A request that exceeds its share releases what it holds,
// waits, and runs again on the next level. So all requests together never hold more
// than the budget, and small requests are answered while large ones run.
type budget struct {
	max      int64
	levels   []level
	patience time.Duration // how long a request waits for a level
	restore  int64         // the runtime's previous memory limit

	mu       sync.Mutex
	open     map[*account]struct{}
	watching bool
}

// level is a size class of requests.
type level struct {
	bytes  int64
	gate   *semaphore.Weighted
	weight int64 // of a request, at the gate
}

// mediumPart is the number of requests of the second level that can run in place of one
// of the third.
const mediumPart = 4

// newBudget also sets the memory limit of the Go runtime, so that it collects garbage
// in time; close restores it. If alone is set, one request has all memory and there are
// no levels.
func newBudget(l Limits, alone bool) *budget {
	debug.FreeOSMemory()
	hold := max(l.Memory-memory().inUse, l.Memory/4) / 2
	b := &budget{
		max: l.Memory, patience: l.Timeout / 2, open: map[*account]struct{}{}, restore: debug.SetMemoryLimit(-1),
	}
	if alone {
		b.levels = []level{{hold, semaphore.NewWeighted(1), 1}}
	} else {
		more := semaphore.NewWeighted(mediumPart)
		b.levels = []level{
			{hold / 2 / int64(l.Concurrency), semaphore.NewWeighted(int64(l.Concurrency)), 1},
			{hold / 2 / mediumPart, more, 1},
			{hold / 2, more, mediumPart},
		}
	}
	debug.SetMemoryLimit(min(b.restore, l.Memory/5*4))
	return b
}

func (b *budget) close() { debug.SetMemoryLimit(b.restore) }

// account counts the memory that one request holds. A nil account counts nothing and
// has no limit.
type account struct {
	budget *budget
	level  int
	cancel context.CancelCauseFunc
	done   chan struct{}

	// How the query uses the series that it selects; see meter.
	matrix  bool    // holds all samples of a range
	growth  float64 // of labels
	text    int64   // bytes that it writes into labels
	samples bool    // holds all samples, as remote read in one piece does

	mu      sync.Mutex
	used    int64
	failure error // the first
}

// errOutgrown is the failure of a request that must run again on the next level.
var errOutgrown = &LimitError{Limit: LimitMemory}

// enter waits until a request may run. The account must be closed.
func (b *budget) enter(ctx context.Context, level int) (context.Context, *account, error) {
	a := &account{budget: b, level: level, done: make(chan struct{})}
	began := time.Now()
	wait, stop := context.WithTimeout(ctx, b.patience)
	defer stop()
	if b.levels[level].gate.Acquire(wait, b.levels[level].weight) != nil {
		if ctx.Err() != nil {
			return nil, nil, context.Cause(ctx)
		}
		return nil, nil, &BusyError{Waited: time.Since(began)}
	}
	ctx, a.cancel = context.WithCancelCause(ctx)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[a] = struct{}{}
	if !b.watching {
		b.watching = true
		go b.watch()
	}
	return context.WithValue(ctx, accountKey{}, a), a, nil
}

type accountKey struct{}

func accountOf(ctx context.Context) *account {
	a, _ := ctx.Value(accountKey{}).(*account)
	return a
}

func (a *account) close() {
	a.cancel(nil)
	close(a.done)
	a.budget.mu.Lock()
	delete(a.budget.open, a)
	a.budget.mu.Unlock()
	l := a.budget.levels[a.level]
	l.gate.Release(l.weight)
}

// charge adds n bytes to what the request holds. After an error the request must end.
func (a *account) charge(n int64) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure != nil {
		return a.failure
	}
	if a.used += n; a.used > a.limit() || n < 0 {
		a.failure = a.outgrown()
		return a.failure
	}
	return nil
}

func (a *account) limit() int64 { return a.budget.levels[a.level].bytes }

// last reports whether the request is on the last level.
func (a *account) last() bool { return a.level == len(a.budget.levels)-1 }

// outgrown returns the failure of a request that needs more than its limit.
func (a *account) outgrown() error {
	if !a.last() {
		return errOutgrown
	}
	return &LimitError{Limit: LimitMemory, Max: a.limit()}
}

// mark and reset are for requests with many queries: what a query holds is released at
// its end.
func (a *account) mark() int64 {
	if a == nil {
		return 0
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.used
}

func (a *account) reset(mark int64) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used = min(a.used, mark)
}

// forgive lets a request of the last level continue after a part of it needed too much:
// it resets the account to the mark. On another level the request must start again, and
// forgive returns its failure.
func (a *account) forgive(mark int64) error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.last() {
		return a.failure
	}
	a.failure, a.used = nil, min(a.used, mark)
	return nil
}

// fail records why the request ends, unless a reason is already recorded.
func (a *account) fail(err error) {
	if a == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failure == nil {
		a.failure = err
	}
}

func (a *account) failed() error {
	if a == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.failure
}

// watch is the last resort against memory that the accounts do not count, such as that
// of count_values(), whose result has a series for each value. While requests run, it
// reads the memory use of the process, and ends the largest request before the limit is
// reached.
func (b *budget) watch() {
	for b.running() {
		time.Sleep(watchInterval)
		m := memory()
		// Garbage alone does not end a request, unless there is no time to collect it.
		if m.inUse < b.max/100*92 && (m.inUse < b.max/100*85 || m.live < b.max/100*65) {
			continue
		}
		if a := b.largest(); a != nil {
			a.fail(&LimitError{Limit: LimitMemory, Max: b.max})
			a.cancel(a.failed())
			select {
			case <-a.done:
			case <-time.After(5 * watchInterval):
			}
		}
		debug.FreeOSMemory()
	}
}

const watchInterval = 10 * time.Millisecond

// running reports whether requests run. If none does, the next request starts a new
// watch.
func (b *budget) running() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.watching = len(b.open) > 0
	return b.watching
}

// largest returns the account that holds most and was not ended yet.
func (b *budget) largest() (most *account) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for a := range b.open {
		larger := most == nil || a.level > most.level || a.level == most.level && a.mark() > most.mark()
		if larger && a.failed() == nil {
			most = a
		}
	}
	return most
}

// usage is the memory of the process without mapped files.
type usage struct {
	inUse int64 // obtained from the system
	live  int64 // in use at the last garbage collection
}

func memory() usage {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/heap/live:bytes"}}
	metrics.Read(s)
	return usage{inUse: int64(s[0].Value.Uint64() - s[1].Value.Uint64()), live: int64(s[2].Value.Uint64())}
}
