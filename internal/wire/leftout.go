package wire

import (
	"fmt"
	"time"
)

// String describes the block in a sentence.
func (b LeftOut) String() string {
	when := ""
	if b.MinTime != nil && b.MaxTime != nil {
		when = fmt.Sprintf(", %s to %s,", rfc3339(*b.MinTime), rfc3339(*b.MaxTime))
	}
	what := "is left out"
	if b.Partly {
		what = "is dumped in part"
	}
	return fmt.Sprintf("block %s%s %s: %s", b.ULID, when, what, b.Reason)
}

func rfc3339(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.999Z07:00")
}

// MergeLeftOut merges the left-out blocks of an earlier and a later plan, each block
// once.
func MergeLeftOut(earlier, later []LeftOut) []LeftOut {
	all := earlier
	known := map[string]bool{}
	for _, b := range earlier {
		known[b.ULID] = true
	}
	for _, b := range later {
		if !known[b.ULID] {
			all = append(all, b)
		}
	}
	return all
}
