// Package retry classifies errors by whether trying again can help.
//
// An error answers by a method Retry() Advice, and may name a pause by a method
// RetryAfter() time.Duration. Packages that return errors and packages that retry
// share nothing else. A [Budget] bounds how often and for how long is tried.
package retry

import (
	"errors"
	"time"
)

// Advice is whether another attempt can succeed.
type Advice int

const (
	// Unknown is the advice of an error that gives none.
	Unknown Advice = iota

	// No: the cause stays until a person removes it.
	No

	// AfterSuccess: a request that worked before may work again, and one that never
	// worked is likely wrong. A refused connection is such an error: the server
	// restarts, or its address is mistyped.
	AfterSuccess

	// Yes: the cause passes without anybody's help.
	Yes
)

// Of returns the advice of the first error in err's tree that gives one.
func Of(err error) Advice {
	e, ok := errors.AsType[interface {
		error
		Retry() Advice
	}](err)
	if !ok {
		return Unknown
	}
	return e.Retry()
}

// After returns the pause that the other side asks for before the next attempt, or 0.
func After(err error) time.Duration {
	e, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	if !ok {
		return 0
	}
	return e.RetryAfter()
}
