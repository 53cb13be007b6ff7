package main

import (
	"strings"
	"testing"
)

// What is elsewhere harms by what the server does alone, what is beside it by both.
func TestLeastHarm(t *testing.T) {
	const MiB = 1 << 20
	took := func(group, name string, c cost) *way { return &way{group: group, name: name, took: []cost{c}} }
	ways := []*way{
		took("a day", "asked", cost{CPU: 9, RSS: 900 * MiB, ServerCPU: 2, ServerRSS: 30 * MiB, Elsewhere: true}),
		took("a day", "beside", cost{CPU: 1, RSS: 20 * MiB, ServerCPU: 0.5, ServerRSS: 20 * MiB}),
		took("an hour", "asked", cost{CPU: 9, RSS: 900 * MiB, ServerCPU: 1, ServerRSS: 10 * MiB, Elsewhere: true}),
		took("an hour", "beside", cost{CPU: 1, RSS: 20 * MiB, ServerCPU: 0.1}),
	}
	for group, want := range map[string]string{
		"a day":   "Least harm, a day: to CPU by beside (1.50 s of CPU, 40 MiB in the container), to memory by asked (2.00 s of CPU, 30 MiB in the container).",
		"an hour": "Least harm, an hour: asked (1.00 s of CPU, 10 MiB in the container).",
	} {
		if got := leastHarm(group, ways); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}

	var out strings.Builder
	tables(&out, []*task{{name: "9 it", ways: ways, table: containerTable}})
	for _, row := range []string{
		"| 9 it, a day | asked | 0.000 | 2.00 | 30.0 |  |  | 9.00 | 900 |  |\n",
		"|  | beside | 0.000 | 0.50 | 20.0 | 1.00 | 20 |  |  |  |\n",
	} {
		if !strings.Contains(out.String(), row) {
			t.Errorf("no row %q in\n%s", row, out.String())
		}
	}
	if strings.Contains(out.String(), "ratio") {
		t.Errorf("a table without rows:\n%s", out.String())
	}
}
