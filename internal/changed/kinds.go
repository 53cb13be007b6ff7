package changed

import (
	"math"
	"strings"
)

// Aspect is what of a metric is compared.
type Aspect string

const (
	Level Aspect = "value" // of a gauge
	Rate  Aspect = "rate"  // of a counter, or of a histogram's observations, per second
	Mean  Aspect = "mean"  // of a histogram's or a summary's observations
	P99   Aspect = "p99"   // of a histogram's observations
	Age   Aspect = "age"   // of a time that a gauge names, in seconds before the sample
)

// counterName reports whether a metric's name is that of a counter.
func counterName(name string) bool {
	for _, end := range []string{"_total", "_count", "_sum", "_bucket"} {
		if strings.HasSuffix(name, end) {
			return true
		}
	}
	return false
}

// timeName reports whether a metric's name may be that of a time.
func timeName(name string) bool {
	for _, part := range []string{"time", "expir", "not_after", "not_before", "created", "date", "_last_"} {
		if strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// aspect decides what of a series of floats is compared. The name decides first, and the
// samples where they contradict it: a counter seldom decreases, and what always
// increases is compared by its rate, or it would always have changed.
func (f *fold) aspect(name string) Aspect {
	const rarely = 10
	switch {
	case f.native:
		return Rate
	case counterName(name):
		if f.downs*rarely > f.ups+rarely {
			return Level
		}
		return Rate
	case f.isTime(name):
		return Age
	case f.downs == 0 && f.pairs >= 20 && f.ups*2 > f.pairs && f.least >= 0:
		return Rate
	}
	return Level
}

// isTime reports whether all values of a series are times in Unix seconds.
func (f *fold) isTime(name string) bool {
	return f.times > 0 && int64(f.times) == f.samples && timeName(name)
}

// unitFloor is the smallest difference of values that is worth a thought, by the unit in
// the metric's name.
func unitFloor(name string, a Aspect) float64 {
	base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_total"), "_sum"), "_count")
	switch {
	case a == Age:
		return 1
	case strings.HasSuffix(base, "_seconds") && a == Rate && base != name:
		return 0.005
	case strings.HasSuffix(base, "_seconds"):
		return 0.001
	case strings.HasSuffix(base, "_bytes") && a == Rate:
		return 1 << 10
	case strings.HasSuffix(base, "_bytes"):
		return 1 << 20
	case strings.HasSuffix(base, "_ratio"):
		return 0.01
	case strings.HasSuffix(base, "_percent"), strings.HasSuffix(base, "_percentage"):
		return 1
	}
	return 0
}

// unit names the unit of an aspect of a metric; it is empty if it is not known.
func unit(name string, a Aspect) string {
	base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_total"), "_sum"), "_count")
	of := ""
	for _, u := range []string{"seconds", "bytes", "ratio", "percent", "celsius", "volts", "joules"} {
		if strings.HasSuffix(base, "_"+u) {
			of = u
		}
	}
	switch {
	case a == Age:
		return "seconds"
	case a == Rate && of == "seconds" && base != name:
		return "seconds/s"
	case a == Rate && of == "bytes":
		return "bytes/s"
	case a == Rate:
		return "/s"
	}
	return of
}

// floor returns the smallest difference that counts for the values of a series: of a
// counter of events, one event in a quarter of the window; of a gauge with whole
// numbers, a fourth of the smallest step that it ever made.
func (f *fold) floor(name string, a Aspect) float64 {
	byUnit := unitFloor(name, a)
	steps := float64(max((f.plan.segments[1].n+3)/4, 1))
	switch {
	case a == Rate && (f.whole || f.native):
		return max(byUnit, 1000/(steps*float64(f.plan.step)))
	case a == Rate, a == Age:
		return byUnit
	case f.whole && !math.IsInf(f.quantum, 1):
		return max(byUnit, f.quantum/4)
	}
	return byUnit
}
