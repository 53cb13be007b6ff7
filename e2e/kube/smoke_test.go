//go:build linux

package kube

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/prometheus/prompb"
)

// What other tests stand on.

func TestPod(t *testing.T) {
	data := seed(t)
	p := startPod(t, "ro", podOptions{data: data.dir})
	// All of the seed is served, from blocks and head alike.
	for _, half := range []struct {
		from, to time.Time
		samples  int
	}{{data.from, data.head, data.size.BlockSamples}, {data.head, data.to, data.size.HeadSamples}} {
		if got := p.samples(`{job="kubernetes-pods"}`, half.from, half.to); got != half.samples {
			t.Errorf("from %s to %s are %d samples, not %d", half.from, half.to, got, half.samples)
		}
	}
	if got := p.number(`count(count by (namespace) ({job="kubernetes-pods"}))`, data.from.Add(3*time.Hour)); got != 50 {
		t.Errorf("%v namespaces", got)
	}
	if got := p.number(`histogram_count(sum(zzz_rpc_duration_seconds))`, data.to); got < 1000 {
		t.Errorf("native histograms count %v", got)
	}
	// It lives: it scrapes itself.
	if !poll(20*time.Second, func() bool {
		return p.number(`prometheus_tsdb_head_samples_appended_total{type="float"}`, time.Now()) > 0
	}) {
		t.Error("it does not scrape itself")
	}
	if n := p.restarts(); n != 0 {
		t.Errorf("%d restarts", n)
	}

	// From inside and from outside the same is seen.
	if r := p.exec("sh", "-c", "id -u; cat /proc/1/comm; ls -d /prometheus/*/index | wc -l; touch /etc/x"); r.stdout != "65534\nprometheus\n3\n" || !strings.Contains(r.stderr, "Read-only") || r.code != 1 {
		t.Errorf("exec: %+v", r)
	}
	if got := p.blocks(); len(got) != 3 {
		t.Errorf("blocks %v", got)
	}
	for _, one := range p.processes() {
		if one.inside != 1 || one.name != "prometheus" || one.zombie {
			t.Errorf("a process that is not the server's: %s", one)
		}
		t.Logf("the server has %.0f MiB, at most %.0f, of 256", float64(one.rss)/(1<<20), float64(one.peak)/(1<<20))
	}
}

// A process that somebody leaves behind is seen, dead or alive, and so is a file.
func TestLeftovers(t *testing.T) {
	p := startPod(t, "mem", podOptions{quiet: true})
	before := p.files("/")
	// The second sleep outlives the shell, which would reap it.
	const leave = "sleep 1000 > /dev/null 2>&1 & touch /tmp/left /dev/shm/left /prometheus/left; sleep 1 > /dev/null 2>&1 & exec true"
	if r := p.exec("sh", "-c", leave); r.code != 0 {
		t.Fatalf("exec: %+v", r)
	}
	var names []string
	if !poll(10*time.Second, func() bool {
		names = nil
		for _, one := range p.processes() {
			names = append(names, fmt.Sprintf("%s zombie=%v", one.name, one.zombie))
		}
		return slices.Equal(names, []string{"prometheus zombie=false", "sleep zombie=false", "sleep zombie=true"})
	}) {
		t.Errorf("processes: %q", names)
	}
	var left []string
	for path := range p.files("/") {
		if _, was := before[path]; !was && strings.HasSuffix(path, "/left") {
			left = append(left, path)
		}
	}
	if slices.Sort(left); !slices.Equal(left, []string{"/dev/shm/left", "/prometheus/left", "/tmp/left"}) {
		t.Errorf("files: %q", left)
	}

	const run = "cp /bin/busybox /tmp/echo && /tmp/echo runs"
	if r := p.exec("sh", "-c", run); r.stdout != "runs\n" {
		t.Errorf("/tmp: %+v", r)
	}
	p.noexec("/tmp")
	if r := p.exec("sh", "-c", run); r.code != 126 || !strings.Contains(r.stderr, "Permission denied") {
		t.Errorf("/tmp is not noexec: %+v", r)
	}
	if r := p.exec("dd", "if=/dev/zero", "of=/tmp/full", "bs=1M", "count=40"); !strings.Contains(r.stderr, "No space left") {
		t.Errorf("/tmp never fills: %+v", r)
	}
}

// All kinds serve the seed, and what is in them is seen without a shell too.
func TestKinds(t *testing.T) {
	type kind struct {
		programs, dataDir string
		uid               int
	}
	for name, want := range map[string]kind{
		"bb": {"busybox,prometheus", "/prometheus", 65534}, "dl": {"prometheus", "/prometheus", 65532}, "tar": {"prometheus,tar", "/prometheus", 65534},
		"chart": {"busybox,prometheus", "/data", 65534}, "other": {"busybox,prometheus", "/prometheus", 65534},
	} {
		t.Run(name, func(t *testing.T) {
			p := startPod(t, name, podOptions{data: seed(t).dir, quiet: name == "chart"})
			var programs []string
			for path, info := range p.files("/bin") {
				if info.Mode().IsRegular() {
					programs = append(programs, strings.TrimPrefix(path, "/bin/"))
				}
			}
			slices.Sort(programs)
			if got := strings.Join(programs, ","); got != want.programs {
				t.Errorf("programs %s, not %s", got, want.programs)
			}
			if p.dataDir() != want.dataDir || len(p.blocks()) != 3 || len(p.processes()) != 1 {
				t.Errorf("data dir %s, blocks %v, processes %v", p.dataDir(), p.blocks(), p.processes())
			}
			for path, info := range p.files(p.dataDir()) {
				if uid := info.Sys().(*syscall.Stat_t).Uid; path != p.dataDir() && int(uid) != want.uid {
					t.Errorf("%s is owned by %d: the server could not merge or delete it", path, uid)
				}
			}
			r := p.exec("tar", "cf", "-", "-C", p.dataDir(), p.blocks()[0]+"/meta.json")
			if name == "dl" {
				if r.code == 0 || !strings.Contains(r.stderr, "executable file not found") {
					t.Errorf("a distroless image runs tar: %+v", r)
				}
			} else if r.code != 0 || len(r.stdout) < 1024 {
				t.Errorf("no tar: %+v", r)
			}
		})
	}
}

// The server itself makes blocks of what it is sent.
func TestFill(t *testing.T) {
	p := startPod(t, "ro", podOptions{quiet: true})
	to := time.Now().Truncate(fillStep)
	from := to.Add(-7 * time.Hour)
	begin := time.Now()
	p.fill(from, to)
	t.Logf("7 h of %d series took %.1f s and made the blocks %v", fillSeries, time.Since(begin).Seconds(), p.blocks())
	if strings.Contains(string(p.get("/api/v1/status/config", nil)), "scrape_configs") {
		t.Error("it is not quiet")
	}
	if n := len(p.blocks()); n < 2 || n > 3 {
		t.Errorf("%d blocks", n)
	}
	if got, want := p.samples(`{namespace=~"ns-.*"}`, from, to), int(to.Sub(from)/fillStep)*fillSeries; got != want {
		t.Errorf("%d samples, not %d", got, want)
	}
	for query, want := range map[string]float64{
		`count(count by (namespace) ({__name__=~"filled_.*"}))`:              fillNamespaces,
		`filled_1{pod="pod-007"}`:                                            filled(36, to.Add(-fillStep)),
		`filled_1{pod="pod-007"} offset 5h`:                                  filled(36, to.Add(-fillStep-5*time.Hour)),
		`histogram_sum(filled_histogram{namespace="ns-0"} offset 6h)`:        filledHistogram(5*fillPods, to.Add(-fillStep-6*time.Hour)).Sum,
		`count(filled_0 @ end() offset 6h50m) + count(filled_4{pod=~".*9"})`: fillPods + fillPods/10,
	} {
		if got := p.number(query, to.Add(-fillStep)); got != want {
			t.Errorf("%s is %v, not %v", query, got, want)
		}
	}
	late := fillLabels()[:1]
	late[0].Labels[0].Value = "late"
	late[0].Samples = append(late[0].Samples, prompb.Sample{Timestamp: to.Add(-20 * time.Hour).UnixMilli(), Value: 42})
	p.write(late...)
	if got := p.number("late", to.Add(-20*time.Hour)); got != 42 {
		t.Errorf("a sample that came 20 h late is %v", got)
	}
	if n := p.restarts(); n != 0 {
		t.Errorf("%d restarts", n)
	}
}

// bob may look at pods of mon and exec into them, carol may not, and what a test
// grants ends with it.
func TestUsers(t *testing.T) {
	c := booted(t)
	p := startPod(t, "bb", podOptions{quiet: true})
	own := namespace(t)
	may := func(user string) string {
		var can []string
		for _, ns := range []string{"mon", "other", own} {
			for _, what := range []string{"get pods", "create pods --subresource=exec", "get pods --subresource=exec", "create pods --subresource=portforward"} {
				if r := c.run(t, c.as(user), append([]string{"-n", ns, "auth", "can-i", "-q"}, strings.Fields(what)...)...); r.code == 0 {
					can = append(can, strings.TrimPrefix(ns, own[:5])+" "+what)
				}
			}
		}
		return strings.Join(can, "; ")
	}
	if got := may("bob"); got != "mon get pods; mon create pods --subresource=exec" {
		t.Errorf("bob may %s", got)
	}
	if got := may("carol"); got != "" {
		t.Errorf("carol may %s", got)
	}
	if r := p.execBy(c.as("bob"), "echo", "hello"); r.stdout != "hello\n" {
		t.Errorf("bob's exec: %+v", r)
	}
	if r := p.execBy(c.as("carol"), "echo", "hello"); r.code != 1 || !strings.Contains(r.stderr, "forbidden") {
		t.Errorf("carol's exec: %+v", r)
	}
	t.Run("granted", func(t *testing.T) {
		grant(t, "carol", own, "get,list", "pods,pods/log")
		if got := may("carol"); !strings.HasSuffix(got, " get pods") || strings.Contains(got, ";") {
			t.Errorf("carol may %s", got)
		}
	})
	if got := may("carol"); got != "" {
		t.Errorf("carol still may %s", got)
	}
}
