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
	every := map[kube.Access]bool{kube.ToExec: true, kube.ToForward: true, kube.ToDebug: true, kube.ToMount: true}
	for _, c := range []struct {
		allowed map[kube.Access]bool
		in      inside
		want    string
	}{
		{every, inside{surely, surely, surely, surely, surely}, "exec, tar, remote-read, debug, pvc"},
		{every, inside{never, never, surely, surely, never}, "remote-read, debug"},
		{every, inside{never, never, never, surely, surely}, "debug, pvc"}, // a server that is down
		{every, inside{never, never, never, never, never}, "none"},
		{exec, inside{surely, surely, surely, surely, surely}, "exec, tar"},
		{exec, inside{surely, never, surely, surely, surely}, "exec"},
		{exec, inside{never, surely, surely, surely, surely}, "exec, tar"},
		{exec, inside{perhaps, never, never, never, never}, "exec?"},
		{exec, inside{}, "exec?, tar?"},
		{exec, inside{never, never, surely, surely, never}, "none: not allowed are remote-read, debug"},
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
