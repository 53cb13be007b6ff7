package agent

import (
	"math/rand/v2"
	"testing"
	"time"
)

// simulated is a node with two processors: a server with requests to answer, the relays of
// the stream, and others. Each tick it shares the processors like a fair scheduler.
type simulated struct {
	cost    float64       // CPU seconds of the relays for each MiB
	backlog float64       // CPU seconds that the relays have to do
	buffer  float64       // bytes that fit into their buffers; what is more blocks the agent
	others  float64       // processors that others want all the time
	every   time.Duration // between requests
	request float64       // CPU seconds of one
	work    float64       // CPU seconds that the server has to do
	now     time.Duration
	rand    *rand.Rand
}

func newSimulated() *simulated {
	return &simulated{cost: 0.03, buffer: 2 << 20, every: 100 * time.Millisecond, request: 0.008, rand: rand.New(rand.NewPCG(1, 2))}
}

// step lets a tick pass in which the agent wants to send bytes, and gives what the
// server noticed.
func (p *simulated) step(wanted float64) load {
	const tick = paceTick
	l := load{wall: tick}
	for range 10 {
		const dt = float64(tick) / 10 / float64(time.Second)
		p.now += tick / 10
		if p.every > 0 && p.now%p.every < tick/10 {
			p.work += p.request * (0.5 + p.rand.Float64())
		}
		room := max(p.buffer/(1<<20)*p.cost-p.backlog, 0) / p.cost * (1 << 20)
		sent := min(wanted/10, room)
		l.sent += int64(sent)
		p.backlog += sent / (1 << 20) * p.cost
		// Two threads of the server, four of the relays.
		server, relays := 2*dt, 4*dt
		if p.work < server {
			server = p.work
		}
		if p.backlog < relays {
			relays = p.backlog
		}
		wants := server + relays + p.others*dt
		share := min(1, 2*dt/max(wants, 1e-9))
		l.ran += time.Duration(server * share * float64(time.Second))
		l.waited += time.Duration(server * (1 - share) * float64(time.Second))
		p.work -= server * share
		p.backlog -= relays * share
	}
	return l
}

// run lets a controller send for a time.
func (p *simulated) run(c *controller, d time.Duration) (sum load) {
	rate := c.rate
	for range int(d / paceTick) {
		l := p.step(rate * paceTick.Seconds())
		rate = c.next(l)
		sum.wall += l.wall
		sum.ran += l.ran
		sum.waited += l.waited
		sum.sent += l.sent
	}
	return sum
}

func (l load) mibs() float64    { return float64(l.sent) / (1 << 20) / l.wall.Seconds() }
func (l load) stretch() float64 { return l.waited.Seconds() / l.ran.Seconds() }

// unpaced is what happens where the agent sends all that it can.
func unpaced(p *simulated, d time.Duration) (sum load) {
	for range int(d / paceTick) {
		l := p.step(1 << 30)
		sum.wall += l.wall
		sum.ran += l.ran
		sum.waited += l.waited
		sum.sent += l.sent
	}
	return sum
}

// TestPaceSparesTheServer: requests that take longer than it takes to notice them are
// answered sooner, and by default that costs few bytes. Short ones are over by then.
func TestPaceSparesTheServer(t *testing.T) {
	for _, c := range []struct {
		name           string
		pace           pace
		every, request float64 // seconds
		stretch, share float64 // of what they are without pace: at most, at least
	}{
		{"usual, long requests", usualPace, 0.5, 0.06, 0.4, 0.9},
		{"usual, short requests", usualPace, 0.1, 0.008, 1, 0.6},
		{"gentle, long requests", gentlePace, 0.5, 0.06, 0.2, 0.03},
		{"gentle, short requests", gentlePace, 0.1, 0.008, 0.1, 0.03},
	} {
		server := func() *simulated {
			p := newSimulated()
			p.buffer = 1 << 20
			p.every, p.request = time.Duration(c.every*float64(time.Second)), c.request
			return p
		}
		full := unpaced(server(), time.Minute)
		if full.stretch() < 0.8 {
			t.Fatalf("without pace the server waits only %.2f of its CPU time: the simulation proves nothing", full.stretch())
		}
		got := server().run(newController(c.pace), time.Minute)
		t.Logf("%s: %.1f MiB/s of %.1f, stretch %.3f of %.3f", c.name, got.mibs(), full.mibs(), got.stretch(), full.stretch())
		if got.stretch() > c.stretch*full.stretch() {
			t.Errorf("%s: the server waits %.3f of its CPU time, without pace %.3f", c.name, got.stretch(), full.stretch())
		}
		if got.mibs() < c.share*full.mibs() {
			t.Errorf("%s: %.1f MiB/s, at least %.1f are possible", c.name, got.mibs(), c.share*full.mibs())
		}
	}
}

// TestPaceOfAnIdleServer: what nobody waits for is not sent slower.
func TestPaceOfAnIdleServer(t *testing.T) {
	idle := func() *simulated { p := newSimulated(); p.every = 0; return p }
	full := unpaced(idle(), 20*time.Second)
	p, c := idle(), newController(usualPace)
	p.run(c, 4*time.Second)
	if got := p.run(c, 16*time.Second); got.mibs() < 0.95*full.mibs() {
		t.Errorf("%.1f MiB/s after the first seconds, and %.1f without pace", got.mibs(), full.mibs())
	}
	if got := idle().run(newController(gentlePace), 20*time.Second); got.mibs() > 10.5 || got.mibs() < 8 {
		t.Errorf("gentle: %.1f MiB/s, not its ceiling of 10", got.mibs())
	}
}

// TestPaceAmongOthers: where others make the server wait, sending less does not help,
// and the dump goes on.
func TestPaceAmongOthers(t *testing.T) {
	p := newSimulated()
	p.others = 6
	c := newController(usualPace)
	p.run(c, 5*time.Second)
	full := unpaced(func() *simulated { p := newSimulated(); p.others = 6; return p }(), 20*time.Second)
	got := p.run(c, 20*time.Second)
	t.Logf("%.1f MiB/s of %.1f, stretch %.2f of %.2f", got.mibs(), full.mibs(), got.stretch(), full.stretch())
	if got.mibs() < 0.1*full.mibs() {
		t.Errorf("%.1f MiB/s, and %.1f without pace", got.mibs(), full.mibs())
	}
}

// TestPaceRecovers: a busy minute of the server does not slow down what comes after it.
func TestPaceRecovers(t *testing.T) {
	p := newSimulated()
	p.every, p.request = 20*time.Millisecond, 0.03
	c := newController(usualPace)
	busy := p.run(c, 30*time.Second)
	if floor := usualPace.floor / (1 << 20); busy.mibs() < 0.2*floor {
		t.Errorf("%.2f MiB/s while the server is busy: the dump stands still", busy.mibs())
	}
	p.every, p.work = 0, 0
	p.run(c, 3*time.Second)
	if got, full := p.run(c, 5*time.Second), unpaced(newSimulated(), 5*time.Second); got.mibs() < 0.8*full.mibs() {
		t.Errorf("%.1f MiB/s of %.1f, three seconds after the server got idle", got.mibs(), full.mibs())
	}
}

// TestPaceBelowALimit: a container with a CPU limit is stopped with the server in it.
func TestPaceBelowALimit(t *testing.T) {
	for name, p := range map[string]pace{"usual": usualPace, "gentle": gentlePace} {
		c := newController(p)
		for range 100 { // fast, and nobody waits
			c.next(load{wall: paceTick, sent: 1 << 20})
		}
		before, sent := c.rate, 0.0
		for i := range 500 {
			rate := c.next(load{wall: paceTick, throttled: i%10 == 0, sent: int64(sent)})
			sent = rate * paceTick.Seconds()
		}
		if c.rate > 0.2*before && c.rate > 1.2*p.floor {
			t.Errorf("%s: %.1f MiB/s before the limit stopped the container in each period, %.1f after five seconds", name, before/(1<<20), c.rate/(1<<20))
		}
	}
}
