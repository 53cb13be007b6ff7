package term

import "math"

// Spark draws values as one character each, of eight heights from the least value to the
// greatest. A value that is not finite is a space.
func Spark(values []float64) string {
	low, high := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if finite(v) {
			low, high = min(low, v), max(high, v)
		}
	}
	cells := make([]rune, len(values))
	for i, v := range values {
		switch {
		case !finite(v):
			cells[i] = ' '
		case high == low:
			cells[i] = sparks[0]
		default:
			// Halves, since the whole way from low to high may be beyond a float.
			part := (v/2 - low/2) / (high/2 - low/2)
			cells[i] = sparks[min(int(part*float64(len(sparks))), len(sparks)-1)]
		}
	}
	return string(cells)
}
