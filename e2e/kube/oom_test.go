//go:build linux

package kube

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// execTakes is what the container runtime charges at most for one exec, in MiB: the first
// look into the cgroup. In this rig nothing else can tell how much memory is left: the node
// has a loopback address, to which no API server proxies. Kills with less are counted in
// the table, and docs/security.md says so.
const execTakes = 3

// oomFree is how much memory is left in the container in the rounds, MiB.
var oomFree = []int64{2, 4, 8, 12, 16, 24, 32}

// oomRound is a control, in which the server runs without promdump, and then a try with
// promdump, with as much memory left at the beginning of both.
type oomRound struct {
	free    int64  // MiB
	way     string // --via, or "cat": kubectl exec cat, for comparison
	control bool   // the server survived it
	kills   int64  // processes in the server's container
	code    int    // of promdump
	by      string // the access method that dumped, empty: refused or failed
	peak    int64  // what the try took at most, bytes
	took    time.Duration
	text    string // stderr
}

func (r oomRound) killed() bool { return r.kills > 0 }

// TestOOMRounds dumps a server whose container has little memory left. In no round with at
// least execTakes in which the server survives without promdump does the kernel kill a
// process of its container with it. PROMDUMP_E2E_OOM_ROUNDS sets the number of rounds,
// PROMDUMP_E2E_OOM_CAT=1 adds rounds with kubectl exec cat for comparison; with
// PROMDUMP_E2E_OOM_POD=limited the whole pod has a memory limit, not the container alone.
func TestOOMRounds(t *testing.T) {
	rounds, err := strconv.Atoi(os.Getenv("PROMDUMP_E2E_OOM_ROUNDS"))
	if err != nil {
		rounds = 10
	}
	ways := []string{"auto", "exec"}
	if os.Getenv("PROMDUMP_E2E_OOM_CAT") == "1" {
		ways = append(ways, "cat")
	}
	program(t, "promdump") // else the first try builds it, while the server has no memory left
	o := &oomRounds{t: t, last: map[string]time.Duration{}}
	for i := range rounds {
		way := ways[i/len(oomFree)%len(ways)]
		r := o.round(oomFree[i%len(oomFree)], way)
		o.all = append(o.all, r)
		t.Logf("round %d: %d MiB free, %s: control survived: %v, killed: %d, exit %d by %q after %.1f s, took up to %.1f MiB\n%s",
			i+1, r.free, r.way, r.control, r.kills, r.code, r.by, r.took.Seconds(), float64(r.peak)/(1<<20), r.text)
	}
	judged := 0
	for _, r := range o.all {
		if !r.control || r.way == "cat" {
			continue
		}
		judged++
		switch {
		case r.killed() && r.free < execTakes:
			t.Logf("%d MiB free, --via %s: %d processes killed, as the first look may", r.free, r.way, r.kills)
		case r.killed():
			t.Errorf("%d MiB free, --via %s: %d processes killed: exit %d: %s", r.free, r.way, r.kills, r.code, r.text)
		case r.code == 0 && r.by == "", r.code != 0 && !strings.Contains(r.text, "hint: "):
			t.Errorf("%d MiB free, --via %s: exit %d: %s", r.free, r.way, r.code, r.text)
		}
	}
	if judged < rounds/2 {
		t.Errorf("only %d of %d rounds had a control that survived", judged, rounds)
	}
	t.Logf("cgroup v%d, %d rounds, %d with promdump and a control that survived\n%s", o.version, rounds, judged, oomTable(o.all))
}

// oomRounds are rounds on one pod after the other: one whose server was killed is not
// used again.
type oomRounds struct {
	t       *testing.T
	pod     *pod
	ballast *ballast
	version int
	last    map[string]time.Duration // how long the last try took
	all     []oomRound
}

// longTry is as long as a try takes on a slow machine.
const longTry = 10 * time.Second

func (o *oomRounds) round(free int64, way string) oomRound {
	o.t.Helper()
	least := 3 * time.Second
	if o.pod == nil {
		o.start()
		// The memory of a server grows for some seconds after its start. A control
		// that is shorter than the try would not see that growth, and the try would.
		least = longTry
	}
	r := oomRound{free: free, way: way}
	limit := free << 20
	o.ballast.leave(o.t, limit)
	kills, _ := o.during(func() { time.Sleep(max(o.last[way], least)) })
	if r.control = kills == 0; !r.control {
		o.stop()
		return r
	}
	o.ballast.leave(o.t, limit)
	begin := time.Now()
	r.kills, r.peak = o.during(func() {
		result := o.try(way)
		r.code, r.text = result.code, result.stderr
	})
	r.took = time.Since(begin)
	o.last[way] = min(r.took, longTry)
	if m := regexp.MustCompile(`\bby (exec|tar|debug|remote-read), `).FindStringSubmatch(r.text); r.code == 0 && m != nil {
		r.by = m[1]
	} else if r.code == 0 {
		r.by = way
	}
	if r.killed() {
		o.stop()
	}
	return r
}

// try makes one dump with the defaults. The rig has no registry, so it names the image of
// a debug container.
func (o *oomRounds) try(way string) result {
	p := o.pod
	if way == "cat" {
		return p.exec("sh", "-c", "cat /prometheus/*/index /prometheus/*/chunks/* >/dev/null")
	}
	file := filepath.Join(o.t.TempDir(), "dump.tar.gz")
	defer os.Remove(file)
	return finish(o.t, pluginCommand(o.t, p.cluster.config, "-n", p.namespace, "-p", p.name, "--via", way, "--image", tools,
		"--min-time", "0", "--force", "-t", file))
}

// during counts the processes of the container that are killed meanwhile, and what is
// used at most beyond what was used before. The server is scraped, as servers are.
func (o *oomRounds) during(f func()) (kills, peak int64) {
	o.t.Helper()
	group := o.ballast.group
	before, err := group.kills()
	if err != nil {
		o.t.Fatal(err)
	}
	usage, err := group.number(group.files.usage)
	if err != nil {
		o.t.Fatal(err)
	}
	group.restartPeak()
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			o.scrape()
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
			}
		}
	}()
	f()
	close(stop)
	<-done
	after, err := group.kills()
	if err != nil { // the cgroup is gone, and the server with it
		return 1, 0
	}
	if peak, err = group.number(group.files.peak); err != nil {
		o.t.Fatal(err)
	}
	if o.pod.restarts() > 0 {
		return max(after-before, 1), peak - usage
	}
	return after - before, peak - usage
}

// scrape does not judge: a server that is killed does not answer.
func (o *oomRounds) scrape() {
	if resp, err := o.pod.client.Get("http://127.0.0.1:9090/metrics"); err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

func (o *oomRounds) start() {
	o.t.Helper()
	o.pod = startPod(o.t, "ro", podOptions{data: seed(o.t).dir, quiet: true, edit: func(pod object) {
		if os.Getenv("PROMDUMP_E2E_OOM_POD") == "limited" { // it is if all containers are
			for _, c := range pod["spec"].(object)["initContainers"].([]any) {
				c.(object)["resources"] = object{"limits": object{"memory": "256Mi"}}
			}
		}
	}})
	for range 20 { // its heap becomes as large as scrapes make it
		o.scrape()
	}
	o.ballast = newBallast(o.t, o.pod)
	o.version = o.ballast.group.version()
}

func (o *oomRounds) stop() {
	o.t.Helper()
	o.pod.delete()
	if err := os.Truncate(o.ballast.file, 0); err != nil {
		o.t.Fatal(err)
	}
	o.pod = nil
}

// oomTable has a line for each amount of memory and way.
func oomTable(all []oomRound) string {
	var b strings.Builder
	b.WriteString("| MiB free | way | rounds | control killed | killed | dumped by | refused | at most, MiB |\n|---|---|---|---|---|---|---|---|\n")
	for _, free := range oomFree {
		for _, way := range []string{"auto", "exec", "cat"} {
			var rounds, control, killed, refused int
			var peak int64
			by := map[string]int{}
			for _, r := range all {
				if r.free != free || r.way != way {
					continue
				}
				rounds++
				peak = max(peak, r.peak)
				switch {
				case !r.control:
					control++
				case r.killed():
					killed++
				case r.code != 0:
					refused++
				case r.by != "":
					by[r.by]++
				}
			}
			if rounds == 0 {
				continue
			}
			var names []string
			for name, n := range by {
				names = append(names, fmt.Sprintf("%s %d", name, n))
			}
			slices.Sort(names)
			fmt.Fprintf(&b, "| %d | %s | %d | %d | %d | %s | %d | %.1f |\n",
				free, way, rounds, control, killed, strings.Join(names, ", "), refused, float64(peak)/(1<<20))
		}
	}
	return b.String()
}
