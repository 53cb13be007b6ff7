package plugin

import (
	"context"
	"errors"
	"fmt"
	"strings"
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

// No command is tried in a container whose memory is short, and the table says why.
func TestListWhereMemoryIsShort(t *testing.T) {
	limited := kube.Memory{Limit: 256 * mebi, PodLimit: 256 * mebi, Free: -1, PodFree: -1}
	free := func(n, grown int64) kube.Memory {
		m := limited
		m.Free, m.Grown, m.From = n*mebi, grown*mebi, "the kubelet"
		return m
	}
	killed := limited
	killed.OOMKilled = true
	small := limited
	small.Limit = 5 * mebi
	allowed := map[kube.Access]bool{kube.ToExec: true, kube.ToForward: true}
	for _, c := range []struct {
		name   string
		memory kube.Memory
		image  string
		want   string
		why    string // its begin; empty: commands are tried
	}{
		{"enough", free(100, 0), "prom/prometheus", "exec, tar, remote-read", ""},
		{"no limit", kube.Memory{Free: -1, PodFree: -1}, "", "exec, tar, remote-read", ""},
		{"not known", limited, "", "exec, tar, remote-read", ""},
		{"short", free(5, 0), "", "exec?, tar?, remote-read", "no command is tried where less than 6 MiB of memory are left (by the kubelet)"},
		{"short by now", free(100, 95), "", "exec?, tar?, remote-read", "no command is tried where less than 6 MiB"},
		{"the limit alone", small, "", "exec?, tar?, remote-read", "no command is tried where less than 6 MiB of memory are left (by the pod's spec)"},
		{"killed before, and not known", killed, "", "exec?, tar?, remote-read", "no command is tried where the memory that is left is not known"},
	} {
		runs := 0
		run := func(context.Context, []string, pod.Streams) error { runs++; return nil }
		in := inside{sh: never, tar: never, server: never, debug: never, claim: never}
		err := in.try(t.Context(), &known{memory: c.memory}, run, kube.Target{Container: "prometheus", Image: c.image}, allowed,
			func(context.Context) (chance, error) { return surely, nil })
		why := ""
		if err != nil {
			why = err.Error()
		}
		if got := describeWays(allowed, in); got != c.want || !strings.HasPrefix(why, c.why) || (why == "") != (c.why == "") || (runs == 0) != (c.why != "") {
			t.Errorf("%s: %q because of %q after %d commands, want %q", c.name, got, why, runs, c.want)
		}
	}
}
