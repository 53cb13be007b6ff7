package query

import (
	"fmt"
	"time"
)

// Limits bound the resources of requests. Zero fields mean the defaults, which are
// those of Prometheus where it has one.
type Limits struct {
	Samples     int           // that a query holds at once; default 50,000,000, if Memory has room for them
	Timeout     time.Duration // of a request, from its arrival to the last byte of its answer; default 2 minutes
	Concurrency int           // requests at once; default 20
	Lookback    time.Duration // maximum age of a sample that an instant query uses; default 5 minutes
	Memory      int64         // bytes of the process, mapped files aside; default 1 GiB
	Answer      int64         // bytes of one answer, before compression; default Memory
}

// DefaultMemory is the default of Limits.Memory.
const DefaultMemory = 1 << 30

// MinMemory is the minimum of Limits.Memory: twice what an idle process needs.
const MinMemory = 128 << 20

func (l Limits) withDefaults() Limits {
	if l.Samples == 0 {
		l.Samples = 50_000_000
	}
	if l.Timeout == 0 {
		l.Timeout = 2 * time.Minute
	}
	if l.Concurrency == 0 {
		l.Concurrency = 20
	}
	if l.Lookback == 0 {
		l.Lookback = 5 * time.Minute
	}
	if l.Memory == 0 {
		l.Memory = DefaultMemory
	}
	if l.Answer == 0 {
		l.Answer = l.Memory
	}
	return l
}

// Limit names the limit that a request exceeded.
type Limit string

const (
	LimitMemory  Limit = "memory"  // Limits.Memory, or the share of it that one request may use
	LimitSamples Limit = "samples" // Limits.Samples
	LimitAnswer  Limit = "answer"  // Limits.Answer
	LimitText    Limit = "text"    // the query itself is too long or nested too deeply
)

// LimitError reports a request that needs more than it may use. A smaller request
// succeeds; repeating it does not help.
type LimitError struct {
	Limit Limit
	Max   int64 // bytes, samples, or tokens of the query
}

func (e *LimitError) Error() string {
	switch e.Limit {
	case LimitSamples:
		return fmt.Sprintf("the query holds more than %d samples at once: %s", e.Max, less)
	case LimitAnswer:
		return fmt.Sprintf("the answer is longer than %s: %s", mib(e.Max), less)
	case LimitText:
		return fmt.Sprintf("the query is too long or nested too deeply: it may have %d tokens and %d levels", e.Max, maxDepth)
	default:
		return fmt.Sprintf("the request needs more than %s of memory: %s", mib(e.Max), less)
	}
}

// less is the advice for a request that is too large.
const less = "select fewer series, a shorter time range or a longer step"

// BusyError reports a request that waited too long for others. It can succeed later.
type BusyError struct{ Waited time.Duration }

func (e *BusyError) Error() string {
	waited := e.Waited.Round(time.Millisecond)
	return fmt.Sprintf("other requests use the memory that this one needs; it waited %s: try again later", waited)
}

// TimeoutError reports a request that took too long.
type TimeoutError struct{ After time.Duration }

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("the request took longer than %s: %s", e.After, less)
}

func mib(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}
