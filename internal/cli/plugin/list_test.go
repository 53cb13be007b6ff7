package plugin

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

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
		{every, inside{sh: surely, tar: surely, server: surely, debug: surely, claim: surely}, "exec, tar, remote-read, debug, pvc"},
		{every, inside{sh: never, tar: never, server: surely, debug: surely, claim: never}, "remote-read, debug"},
		{every, inside{sh: never, tar: never, server: never, debug: surely, claim: surely}, "debug, pvc"}, // a server that is down
		{every, inside{sh: never, tar: never, server: never, debug: never, claim: never}, "none"},
		{exec, inside{sh: surely, tar: surely, server: surely, debug: surely, claim: surely}, "exec, tar"},
		{exec, inside{sh: surely, tar: never, server: surely, debug: surely, claim: surely}, "exec"},
		{exec, inside{sh: never, tar: surely, server: surely, debug: surely, claim: surely}, "exec, tar"},
		{exec, inside{sh: perhaps, tar: never, server: never, debug: never, claim: never}, "exec?"},
		{exec, inside{}, "exec?, tar?"},
		{exec, inside{sh: never, tar: never, server: surely, debug: surely, claim: never}, "none: not allowed are remote-read, debug"},
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
		got, why := runs(t.Context(), run, "sh")
		if got != c.want || (why != nil) != (got == perhaps) {
			t.Errorf("%v: %v because of %v, not %v", c.err, got, why, c.want)
		}
	}
}

func TestLegend(t *testing.T) {
	const late, broken = "no answer came within 5s", "the connection broke"
	got := legend([]doubt{{"a/1", late}, {"a/2", ""}, {"a/3", broken}, {"a/4", late}, {"a/5", late}, {"a/6", late}})
	want := []string{
		"? may work, or not: no answer came within 5s (a/1, a/4, a/5 and 1 more)",
		"? may work, or not: the connection broke (a/3)",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got := legend([]doubt{{"a/1", ""}}); got != nil {
		t.Errorf("a legend without a question mark: %q", got)
	}
}
