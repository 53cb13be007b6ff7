package agent

import (
	"math"
	"time"
)

// Most of the CPU of a dump is not the agent's: what relays the stream (shim,
// container runtime, kubelet, API server, client) takes several times as much, at
// normal priority. The agent can lower itself, and the relays only by sending less.
// So it watches how long the server's threads wait for a CPU, and sends less when
// they wait.

// load is what happened between two looks at the server.
type load struct {
	wall      time.Duration
	ran       time.Duration // CPU time of all threads of the server
	waited    time.Duration // they were runnable so long and did not run
	throttled bool          // the CPU limit of the container stopped its processes
	sent      int64         // bytes
}

// pace is how careful a controller is.
type pace struct {
	start, floor, ceiling float64       // bytes a second
	stretch               float64       // waiting that it accepts, as a share of the server's CPU time
	noWait                time.Duration // waiting in paceShort that it accepts whatever the share is
	hold                  time.Duration // of a pause, at most: a server that always has work must not stop a dump
	slows                 bool          // the rate falls where pauses are not enough
	yields                bool          // pause while the server runs, whether it waits or not
}

const (
	paceTick = 10 * time.Millisecond // between two looks

	// A pause follows what happened in paceShort, the length of a few slices of the
	// scheduler; the rate what happened in paceLong, many requests.
	paceShort = 20 * time.Millisecond
	paceLong  = time.Second

	// What a Go program does without a request, at most: below it nothing is delayed.
	paceNoWork = 3 * time.Millisecond  // in paceShort
	paceNoise  = 20 * time.Millisecond // in paceLong
)

// A rate that falls as well took four times as long on two cores, and p99 was nearly the
// same (docs/bench.md).
var (
	usualPace = pace{
		start: 64 << 20, floor: 2 << 20, ceiling: math.Inf(1), stretch: 0.1,
		noWait: 4 * time.Millisecond, hold: 100 * time.Millisecond,
	}
	gentlePace = pace{
		start: 2 << 20, floor: 1 << 20, ceiling: 10 << 20, stretch: 0.05,
		noWait: 500 * time.Microsecond, hold: 250 * time.Millisecond, slows: true, yields: true,
	}
)

// recent is what a server did lately, seconds: what is older counts less.
type recent struct{ ran, waited float64 }

func (r *recent) add(l load, span time.Duration) {
	fade := math.Exp(-float64(l.wall) / float64(span))
	r.ran = r.ran*fade + l.ran.Seconds()
	r.waited = r.waited*fade + l.waited.Seconds()
}

// controller turns looks at the server into a rate. It is a pure function of them.
//
// Where the server waits at the moment, there is a pause: what it has to do is done
// sooner. Where it waits all in all more than it may, a controller that slows lowers the
// rate; where a CPU limit stops the server, each does.
type controller struct {
	pace
	rate        float64 // while there is no pause, bytes a second
	short, long recent
	least       recent        // while no more than the floor is sent
	sent        float64       // lately, bytes a second
	sentLong    float64       // lately, for longer
	held        time.Duration // so long there is a pause
}

func newController(p pace) *controller { return &controller{pace: p, rate: p.start} }

// next gives the bytes a second until the next look.
func (c *controller) next(l load) float64 {
	c.short.add(l, paceShort)
	c.long.add(l, paceLong)
	if l.wall > 0 {
		rate := float64(l.sent) / l.wall.Seconds()
		keep, keepLong := math.Exp(-l.wall.Seconds()/0.1), math.Exp(-float64(l.wall)/float64(paceLong))
		c.sent = c.sent*keep + rate*(1-keep)
		c.sentLong = c.sentLong*keepLong + rate*(1-keepLong)
	}
	if c.sent <= 1.2*c.floor {
		c.least.add(l, 2*paceLong)
	}
	// What it waits while next to nothing is sent, it waits for others.
	others := c.least.waited / (c.least.ran + paceNoise.Seconds())
	limit := c.stretch + others*(1+c.stretch)
	c.adjust(l, limit)
	waits := c.short.waited > c.noWait.Seconds() && c.short.waited > limit*c.short.ran
	if !waits && !(c.yields && c.short.ran > paceNoWork.Seconds()) {
		c.held = 0
		return c.rate
	}
	if c.held += l.wall; c.held <= c.hold {
		return 0
	}
	if c.held >= 2*c.hold {
		c.held = 0
	}
	if c.yields {
		return c.floor
	}
	return c.rate
}

// adjust changes the rate by how far the server is from its limit: doubled within a
// second, or divided by eight. It stays near what the stream takes: a reduction of a
// rate that is not reached would change nothing.
func (c *controller) adjust(l load, limit float64) {
	stretch := c.long.waited / (c.long.ran + paceNoise.Seconds())
	off := max(min(1-stretch/limit, 0.5), -1.5)
	if !c.slows {
		off = 0.5
	}
	if l.throttled {
		// A CPU limit stops the server for the rest of its period, whoever used it up.
		// This is the look of a period, and the others of it will raise the rate.
		c.rate *= 0.7
		off = 0
	}
	rate := c.rate * math.Exp2(2*off*l.wall.Seconds())
	if off > 0 {
		rate = min(rate, max(2*c.sentLong, c.start))
	}
	c.rate = min(max(rate, c.floor), c.ceiling)
}
