package plugin

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/wire"
)

// way is how the data is had.
type way string

const (
	viaAuto way = "auto" // by the agent, or by tar where no agent can run
	viaExec way = "exec"
	viaTar  way = "tar"
)

// either is the agent, or tar where no agent can run.
type either struct {
	agent, tar source.Source
	note       func(string)
}

func (e *either) String() string { return e.agent.String() }

// instead tells whether tar may do what the agent could not.
func (e *either) instead(err error) bool {
	none, ok := errors.AsType[*pod.AgentError](err)
	if !ok || none.NoTar {
		return false
	}
	e.note(fmt.Sprintf("%v; trying tar", none))
	return true
}

func (e *either) Inventory(ctx context.Context) (*wire.Inventory, error) {
	inv, err := e.agent.Inventory(ctx)
	if err == nil || !e.instead(err) {
		return inv, err
	}
	if inv, terr := e.tar.Inventory(ctx); terr == nil || !unusable(terr) {
		return inv, terr
	}
	return nil, err
}

func (e *either) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		var refused error
		told := false
		for m, err := range e.agent.Read(ctx, req) {
			if err != nil && !told && e.instead(err) {
				refused = err
				break
			}
			told = true
			if !yield(m, err) {
				return
			}
		}
		if refused == nil {
			return
		}
		for m, err := range e.tar.Read(ctx, req) {
			if err != nil && unusable(err) {
				err = refused // that says more
			}
			if !yield(m, err) {
				return
			}
		}
	}
}

// unusable tells that there is no tar either.
func unusable(err error) bool {
	_, none := errors.AsType[*pod.AgentError](err)
	return none
}
