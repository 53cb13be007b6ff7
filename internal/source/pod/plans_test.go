package pod

import (
	"bytes"
	"io"
	"slices"
	"testing"

	"github.com/promdump/promdump/internal/wire"
)

// listen lets a story hear messages, and gives the names of the files and the plans
// that came out of it.
func listen(t *testing.T, s *story, messages ...wire.Message) (files []string, plans []*wire.Plan) {
	t.Helper()
	var buf bytes.Buffer
	w, err := wire.NewWriter(&buf, wire.Plain)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	s.out = &handover{ctx: t.Context(), items: make(chan item)}
	ended := make(chan error, 1)
	go func() {
		ended <- s.listen(nil, wire.NewReader(&buf))
		close(s.out.items)
	}()
	s.out.consume(func(m wire.Message, err error) bool {
		switch m := m.(type) {
		case *wire.File:
			files = append(files, m.Name)
			_, err = io.Copy(io.Discard, m.Body)
		case *wire.Plan:
			plan := *m
			plans = append(plans, &plan)
		}
		if err != nil {
			t.Error(err)
		}
		return true
	})
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return files, plans
}

const (
	blockA = "01ARZ3NDEKTSV4RRFFQ69G5FAA"
	blockB = "01ARZ3NDEKTSV4RRFFQ69G5FAB"
	blockC = "01ARZ3NDEKTSV4RRFFQ69G5FAC"
)

func file(name string) *wire.File {
	return &wire.File{Name: name, Size: 3, Body: bytes.NewReader([]byte("abc"))}
}

// A block that is skipped since another one replaces it does not count as sent: if it
// did, the other one would, too.
func TestDroppedBlocksAreNotSent(t *testing.T) {
	s := &story{}
	listen(t, s, &wire.Plan{Blocks: []wire.PlannedBlock{
		{ULID: blockA, Sources: []string{blockA}, Action: wire.Skip, Dropped: true},
		{ULID: blockB, Sources: []string{blockB}, Action: wire.Skip},
		{ULID: blockC, Sources: []string{blockA, blockB}, Action: wire.Skip, Dropped: true},
	}}, &wire.End{})
	if have := s.request().Resume.Have; len(have) != 1 || have[0].ULID != blockB {
		t.Errorf("sent are %v", have)
	}
}

// A second plan in one stream keeps what came before it, and adds what it leaves out.
func TestSecondPlanInOneStream(t *testing.T) {
	s := &story{}
	a := wire.PlannedBlock{ULID: blockA, Sources: []string{blockA}, Action: wire.Whole}
	b := wire.PlannedBlock{ULID: blockB, Sources: []string{blockB}, Action: wire.Whole}
	c := wire.PlannedBlock{ULID: blockC, Sources: []string{blockB}, Action: wire.Whole}
	files, plans := listen(t, s,
		&wire.Plan{Blocks: []wire.PlannedBlock{a, b}}, file(blockA+"/index"), file(blockA+"/meta.json"),
		&wire.Plan{Blocks: []wire.PlannedBlock{c}, LeftOut: []wire.LeftOut{{ULID: "x"}}}, file(blockC+"/index"),
		&wire.End{Files: 3, Bytes: 9})
	if want := []string{blockA + "/index", blockA + "/meta.json", blockC + "/index"}; !slices.Equal(files, want) {
		t.Errorf("files %v, want %v", files, want)
	}
	if len(plans) != 2 || len(plans[1].Blocks) != 3 || len(plans[1].LeftOut) != 1 {
		t.Errorf("plans %+v", plans)
	}
	var have []string
	for _, b := range s.request().Resume.Have {
		have = append(have, b.ULID)
	}
	if want := []string{blockA, blockC}; !slices.Equal(have, want) {
		t.Errorf("sent are %v, want %v", have, want)
	}
}
