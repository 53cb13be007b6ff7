package changed

import (
	"math"
	"slices"
)

// effect is how much the values of a window differ from those of a baseline.
type effect struct {
	strength      float64 // from 0 to 1
	z             float64 // the difference in units of the baseline's own spread
	fold          float64 // the binary logarithm of the ratio, at least 0
	up            bool
	before, after float64 // the values that are compared
	began         int     // step of the window; -1: none
	share         float64 // of the window's steps that are beyond the baseline's spread
	noisy         bool    // the spread of the baseline, and not its level, limits the strength
	seasonal      bool    // earlier days had a part of the change in the same hours
}

// summary is what a side of the comparison is reduced to.
type summary struct {
	n           int
	median      float64
	high, low   [2]float64 // means of the highest and of the lowest values; see tails
	spread      float64    // of single values: the larger of MAD and the span of the middle 80 %
	drift       float64    // of the medians of its sixths
	least, most float64
}

// tails are the shares of the values whose mean is compared. The shorter one finds what
// lasts for a small part of the window, and counts less.
var (
	tails      = [2]float64{1.0 / 4, 1.0 / 16}
	tailWeight = [2]float64{1, 0.8}
)

const leastTail = 2 // values

// Constants of the statistics. docs/changed.md names them.
const (
	madToSigma   = 1.4826 // of normal values
	decileSigma  = 2.563  // from the 10th to the 90th percentile of normal values
	blocks       = 6      // parts of the baseline whose medians are compared
	relative     = 0.02   // of the baseline's level: less is no change
	halfZ        = 3.0    // spreads at which the strength is half
	halfFold     = 1.5    // binary logarithm of the ratio at which the strength is half
	fewSamples   = 3.0    // values of the baseline at which the strength is half
	leastPresent = 3      // values of each side
)

// summarize reduces the values that are there. It uses buf as memory.
func summarize(v []float64, buf *[]float64) (s summary) {
	ordered := (*buf)[:0]
	for _, x := range v {
		if !math.IsNaN(x) {
			ordered = append(ordered, x)
		}
	}
	n := len(ordered)
	*buf = ordered
	s.n = n
	if n == 0 {
		return s
	}
	s.least, s.most = slices.Min(ordered), slices.Max(ordered)
	if s.least == s.most {
		s.median = s.least
		s.high, s.low = [2]float64{s.least, s.least}, [2]float64{s.least, s.least}
		return s
	}
	var medians []float64
	if n >= 2*blocks {
		for b := range blocks {
			part := slices.Clone(ordered[b*n/blocks : (b+1)*n/blocks])
			slices.Sort(part)
			medians = append(medians, middle(part))
		}
		s.drift = (slices.Max(medians) - slices.Min(medians)) / 2
	}
	sorted := slices.Clone(ordered)
	slices.Sort(sorted)
	s.median = middle(sorted)
	for k, share := range tails {
		long := min(max(int(math.Ceil(share*float64(n))), leastTail), n)
		for i := range long {
			s.low[k] += sorted[i] / float64(long)
			s.high[k] += sorted[n-1-i] / float64(long)
		}
	}
	s.spread = (sorted[(n-1)*9/10] - sorted[(n-1)/10]) / decileSigma
	for i, x := range sorted {
		sorted[i] = math.Abs(x - s.median)
	}
	slices.Sort(sorted)
	s.spread = max(s.spread, madToSigma*middle(sorted))
	return s
}

func middle(sorted []float64) float64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	return sorted[n/2-1]/2 + sorted[n/2]/2
}

// comparison is the input of compare: values of the baseline, of the window, and of the
// same hours of earlier days, baseline and window in turn.
type comparison struct {
	base, window []float64
	days         [][2][]float64
	floor        float64 // the smallest difference that counts
	event        float64 // what one event of a counter adds to the mean of a quarter; 0: not of events
	scratch      [4][]float64
}

// compare measures the change. The comparison is of the highest and of the lowest values
// of both sides, so that a change which lasts for a part of the window counts, and bursts
// that the baseline has too do not.
func (c *comparison) compare() (e effect) {
	e.began = -1
	b, w := summarize(c.base, &c.scratch[0]), summarize(c.window, &c.scratch[1])
	if b.n < leastPresent || w.n < leastPresent || b.least == b.most && w.least == w.most && b.least == w.least {
		return e
	}
	for k := range tails {
		if one := c.tail(b, w, k); one.strength > e.strength {
			e = one
		}
	}
	return e
}

// tail compares one tail of both sides.
func (c *comparison) tail(b, w summary, k int) (e effect) {
	e.began = -1
	scale := math.Sqrt(square(b.spread) + square(b.drift) + square(max(relative*math.Abs(b.median), c.floor)) +
		c.event*max(b.high[k], 0)) // the last is the variance of a Poisson process
	up, down := w.high[k]-b.high[k], b.low[k]-w.low[k]
	if len(c.days) > 0 {
		up, down, scale, e.seasonal = c.season(up, down, scale, k)
	}
	e.up = up >= down
	d := max(up, down)
	if d <= 0 || scale <= 0 {
		return effect{began: -1}
	}
	e.before, e.after = b.low[k], w.low[k]
	if e.up {
		e.before, e.after = b.high[k], w.high[k]
	}
	e.z = d / scale
	small, large := math.Abs(e.before), math.Abs(e.after)
	if e.before*e.after < 0 {
		large = small + math.Abs(e.after-e.before)
	} else if small > large {
		small, large = large, small
	}
	if e.seasonal {
		large = small + min(large-small, d)
	}
	e.fold = math.Log2((large + scale) / (small + scale))
	z2 := e.z * e.z
	e.strength = z2 / (z2 + halfZ*halfZ) * e.fold / (e.fold + halfFold) * float64(b.n) / (float64(b.n) + fewSamples)
	e.strength *= tailWeight[k]
	e.noisy = max(b.spread, b.drift) > 0.3*math.Abs(b.median) && math.Abs(b.median) > c.floor
	c.onset(&e, b, scale, d, k)
	// What lasts is stronger than what was over after one value.
	e.strength *= 0.6 + 0.4*min(1, 4*e.share)
	return e
}

func square(x float64) float64 { return x * x }

// season subtracts what the same hours of earlier days changed too.
func (c *comparison) season(up, down, scale float64, k int) (float64, float64, float64, bool) {
	var ups, downs []float64
	for _, d := range c.days {
		b, w := summarize(d[0], &c.scratch[2]), summarize(d[1], &c.scratch[3])
		if b.n >= leastPresent && w.n >= leastPresent {
			ups, downs = append(ups, w.high[k]-b.high[k]), append(downs, b.low[k]-w.low[k])
		}
	}
	if len(ups) == 0 {
		return up, down, scale, false
	}
	slices.Sort(ups)
	slices.Sort(downs)
	expectedUp, expectedDown := max(0, middle(ups)), max(0, middle(downs))
	seasonal := expectedUp > scale && up > scale || expectedDown > scale && down > scale
	scale = math.Sqrt(square(scale) + square(max(expectedUp, expectedDown)/4))
	return up - expectedUp, down - expectedDown, scale, seasonal
}

// onset finds the first step that is beyond the baseline's spread and on the way to the
// change, and the share of steps that are.
func (c *comparison) onset(e *effect, b summary, scale, d float64, k int) {
	limit := max(2*scale, min(d/3, 4*scale))
	there, beyond := 0, 0
	run := 0
	for i, x := range c.window {
		if math.IsNaN(x) {
			continue
		}
		there++
		off := x - b.high[k]
		if !e.up {
			off = b.low[k] - x
		}
		if off <= limit {
			run = 0
			continue
		}
		beyond++
		run++
		// Two in a row, or one far off.
		if e.began < 0 && (run >= 2 || off > 3*limit) {
			e.began = max(0, i-run+1)
		}
	}
	if there > 0 {
		e.share = float64(beyond) / float64(there)
	}
}
