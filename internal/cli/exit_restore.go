package cli

import (
	"strings"

	"github.com/promdump/promdump/internal/restore"
)

// refusals are what can be done about a refusal, and the flag that overrules it.
var refusals = map[restore.RefusalKind]struct{ flag, hint string }{
	restore.NotDataDir:  {"", "name a data dir, an empty directory, or one that does not exist yet"},
	restore.ServerRuns:  {"", "stop the server first"},
	restore.Busy:        {"", "wait for it to end"},
	restore.NotWritable: {"", "run as the user that Prometheus runs as; in a pod, name the container that Prometheus runs in with -c"},
	restore.OldServer:   {"", "restore into a data dir of a newer server, or of none: promdump open DUMP serves it, too"},
	restore.BrokenBlock: {"", ""}, // the reason says it
	restore.RawHeadKept: {"", ""}, // it becomes blocks
	restore.MayNot:      {"", ""}, // the error has a hint of its own
	restore.OutOfTime:   {"--ignore-retention", "raise the server's retention first (storage.tsdb.retention.time)"},
	restore.OutOfDefault: {
		"--ignore-retention", "give the retention with --retention, or --wait URL to ask the server",
	},
	restore.Uploads:     {"--allow-upload", "restore into a data dir without a sidecar"},
	restore.LittleSpace: {"--ignore-space", "make room, or dump a smaller selection"},
	restore.FullDisk:    {"", "make room, or dump a smaller selection"},
}

// refusedHint says what can be done about a refused restore; empty: nothing is known.
func refusedHint(e *restore.RefusedError) string {
	var hints []string
	for _, r := range e.Refusals {
		row := refusals[r.Kind]
		if row.hint != "" {
			hints = append(hints, row.hint)
		}
		if row.flag != "" {
			hints = append(hints, "to go on all the same: "+row.flag)
		}
	}
	return strings.Join(hints, "; ")
}
