package plugin

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/source/pod"
)

func TestDescribeWays(t *testing.T) {
	exec := map[kube.Access]bool{kube.ToExec: true}
	for _, c := range []struct {
		allowed map[kube.Access]bool
		in      inside
		want    string
	}{
		{exec, inside{surely, surely}, "exec, tar"},
		{exec, inside{surely, never}, "exec"},
		{exec, inside{never, surely}, "exec, tar"},
		{exec, inside{perhaps, never}, "exec?"},
		{exec, inside{}, "exec?, tar?"},
		{exec, inside{never, never}, "none: its image has neither sh nor tar"},
		{map[kube.Access]bool{}, inside{}, "none: pods/exec is not allowed"},
	} {
		if got := describeWays(c.allowed, c.in); got != c.want {
			t.Errorf("%v, %v: %q, not %q", c.allowed, c.in, got, c.want)
		}
	}
}

func TestRuns(t *testing.T) {
	for _, c := range []struct {
		err  error
		want chance
	}{
		{nil, surely},
		{&pod.ExitError{Code: 1, Err: errors.New("tar knows no --version")}, surely},
		{fmt.Errorf("run it: %w", &pod.AgentError{Err: errors.New("no such file or directory")}), never},
		{errors.New("the connection broke"), perhaps},
		{context.DeadlineExceeded, perhaps},
	} {
		run := func(context.Context, []string, pod.Streams) error { return c.err }
		if got := runs(t.Context(), run, "sh"); got != c.want {
			t.Errorf("%v: %v, not %v", c.err, got, c.want)
		}
	}
}
