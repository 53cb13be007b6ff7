package block

import (
	"slices"
	"testing"
)

func TestNotes(t *testing.T) {
	odd := func(place string) Finding { return Finding{Level: Odd, Block: "B", Place: place, Problem: "p"} }
	findings := []Finding{
		odd("1"), {Level: Unloadable, Block: "B", Place: "meta.json", Problem: "p"}, odd("2"), odd("3"), odd("4"),
		{Level: Unreadable, Block: "C", Place: "chunk", Problem: "q"}, {Level: Odd, Block: "B", Place: "block", Problem: "more", More: 7},
	}
	want := []string{
		"damaged: a server serves all other blocks, but queries of these places fail or miss samples: C: chunk: q",
		"odd, but Prometheus serves all of it: B: 1: p; B: 2: p; B: 3: p; and 8 more",
	}
	if got := Notes(findings); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if n := Count(Of(findings, Odd)); n != 11 {
		t.Errorf("%d odd findings, want 11", n)
	}
	if got := Notes(Of(findings, Unloadable)); len(got) > 0 {
		t.Errorf("notes of unloadable findings: %q", got)
	}
}
