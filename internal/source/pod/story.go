package pod

import (
	"errors"
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/wire"
)

// rawHead stands for the ULID of a block while the head's files come.
const rawHead = "head"

// story is what an agent sends, over as many streams as it takes.
type story struct {
	req wire.Request
	out *handover
	got int64 // grows with all that a later stream need not bring again

	// The head begins anew with each stream.
	inHead   int64 // grows with what came of it in this stream
	mostHead int64 // the most of any stream

	plan  *wire.Plan    // all plans together; nil: none yet
	have  []wire.Block  // received to their end, or nothing of them is wanted
	block string        // ULID of the whole block that comes, or rawHead; empty: none
	file  *receivedFile // the last one of block
	cut   string        // ULID of the block that is cut
	part  uint64        // how many of its messages with series are here
	head  bool          // it has begun
}

// request asks for what is missing.
func (s *story) request() *wire.Request {
	req := s.req
	if s.plan == nil {
		return &req
	}
	req.Resume = &wire.Resume{Have: s.have}
	switch {
	case s.cut != "":
		req.Resume.At = &wire.Position{ULID: s.cut, Parts: s.part}
	case s.block != "" && s.block != rawHead:
		req.Resume.At = &wire.Position{ULID: s.block, File: s.file.name, Offset: s.file.have}
	}
	return &req
}

// listen hears one stream to its end.
func (s *story) listen(_ *conversation, r *wire.Reader) error {
	if err := s.forgetHead(); err != nil {
		return err
	}
	var end wire.End // counted of this stream
	planned := false
	for m, err := range r.All() {
		if err != nil {
			return err
		}
		if _, ok := m.(*wire.Plan); ok {
			if planned {
				// A second plan in one stream comes between blocks: the block before it
				// is complete.
				s.endBlock()
			}
			planned = true
		}
		switch m.(type) {
		case *wire.Plan, *wire.BlockStart, *wire.HeadStart, *wire.File: // each stream begins so, and a file counts its bytes
		default:
			if s.head {
				s.inHead++
			} else {
				s.got++
			}
		}
		count(&end, m)
		if err := s.hear(m, end); err != nil {
			return err
		}
	}
	return nil
}

// further reports whether a stream brought what none before had, if got was before at its
// begin.
func (s *story) further(before int64) bool {
	further := s.got > before || s.inHead > s.mostHead
	s.mostHead = max(s.mostHead, s.inHead)
	return further
}

func count(end *wire.End, m wire.Message) {
	switch m := m.(type) {
	case *wire.File:
		end.Files++
		end.Bytes += uint64(m.Size - m.Offset)
	case *wire.BlockEnd:
		end.Series += m.Series
	}
}

func (s *story) hear(m wire.Message, counted wire.End) error {
	if f, ok := m.(*wire.File); ok {
		return s.receive(f)
	}
	if p, ok := m.(*wire.Plan); ok {
		return s.planned(p)
	}
	s.endBlock()
	switch m := m.(type) {
	case *wire.BlockStart:
		if s.cut == m.ULID {
			return nil // it goes on
		}
		s.cut, s.part = m.ULID, 0
		return s.out.say(m)
	case *wire.Series:
		s.part++
		return s.out.say(m)
	case *wire.BlockEnd:
		s.done(s.cut)
		s.cut, s.part = "", 0
		return s.out.say(m)
	case *wire.HeadStart:
		s.head = true
		return s.out.say(m)
	case *wire.HeadEnd:
		s.head = false
		return s.out.say(m)
	case *wire.End:
		if m.Files != counted.Files || m.Bytes != counted.Bytes || m.Series != counted.Series {
			return &wire.FrameError{Reason: fmt.Sprintf("the agent told %d files, %d bytes, %d series, here are %d, %d and %d",
				m.Files, m.Bytes, m.Series, counted.Files, counted.Bytes, counted.Series)}
		}
		return s.out.say(m)
	default:
		return s.out.say(m)
	}
}

// planned takes a plan. A later one only adds to the first: what was told is in
// the dump.
func (s *story) planned(p *wire.Plan) error {
	action := map[string]wire.Action{}
	for _, b := range p.Blocks {
		action[b.ULID] = b.Action
	}
	if s.cut != "" && action[s.cut] != wire.Cut {
		if err := s.out.say(&wire.Forget{ULID: s.cut}); err != nil {
			return err
		}
		s.cut, s.part = "", 0
	}
	if s.block != "" && s.block != rawHead && action[s.block] != wire.Whole {
		if err := s.forget(s.block); err != nil {
			return err
		}
	}
	first := s.plan == nil
	if first {
		plan := *p
		s.plan = &plan
	}
	known := map[string]bool{}
	for _, b := range s.plan.Blocks {
		known[b.ULID] = !first
	}
	for _, b := range p.Blocks {
		if b.Action == wire.Skip && !b.Dropped && (first || !known[b.ULID]) {
			// Nothing of it is wanted, also when it becomes a part of another one.
			s.have = append(s.have, wire.Block{ULID: b.ULID, Sources: b.Sources})
		}
		if !first && !known[b.ULID] && b.Action != wire.Skip {
			s.plan.Blocks = append(s.plan.Blocks, b)
			s.plan.Bytes += b.Bytes
		}
	}
	leftOut := len(s.plan.LeftOut)
	s.plan.LeftOut = wire.MergeLeftOut(s.plan.LeftOut, p.LeftOut)
	if !first && len(s.plan.Blocks) == len(known) && len(s.plan.LeftOut) == leftOut {
		return nil
	}
	plan := *s.plan
	return s.out.say(&plan)
}

func (s *story) done(ulid string) {
	for _, b := range s.plan.Blocks {
		if b.ULID == ulid {
			s.have = append(s.have, wire.Block{ULID: ulid, Sources: b.Sources})
		}
	}
}

// receive passes a file on while it comes, or goes on with it.
func (s *story) receive(f *wire.File) error {
	block, _, _ := strings.Cut(f.Name, "/")
	if !s.isBlock(block) {
		block = rawHead
	}
	if s.block != block {
		s.endBlock()
		s.block = block
	}
	switch {
	case s.file != nil && s.file.name == f.Name && s.file.size == f.Size && s.file.have == f.Offset:
	case s.file != nil && s.file.name == f.Name && f.Offset == 0:
		// Another file has its name now: its block is received anew.
		return errors.Join(&wire.FrameError{Reason: f.Name + " has changed"}, s.forget(block))
	case f.Offset != 0 || s.file != nil && s.file.have < s.file.size:
		return &wire.FrameError{Reason: fmt.Sprintf("it goes on with byte %d of %s", f.Offset, f.Name)}
	default:
		got := &s.got
		if block == rawHead {
			got = &s.inHead
		}
		next := newReceivedFile(s.out.ctx, f, got)
		it, err := s.out.pass(&wire.File{Name: f.Name, Size: f.Size, Body: next, Tentative: true})
		if err != nil {
			return err
		}
		next.item, s.file = it, next
	}
	if err := s.file.receive(f.Body); err != nil {
		return fmt.Errorf("receive %s: %w", f.Name, err)
	}
	return nil
}

func (s *story) isBlock(name string) bool {
	for _, b := range s.plan.Blocks {
		if b.ULID == name {
			return true
		}
	}
	return false
}

// endBlock is called when something follows that is not of the block. A raw head is
// whole only at the very end.
func (s *story) endBlock() {
	if s.block == "" || s.block == rawHead {
		return
	}
	s.done(s.block)
	s.block, s.file = "", nil
}

// abandon ends the file that has begun: no more of it comes.
func (s *story) abandon() {
	if s.file != nil && s.file.have < s.file.size {
		close(s.file.cut)
	}
	s.block, s.file = "", nil
}

// forget takes back the files of a block that came, or those of a raw head.
func (s *story) forget(block string) error {
	s.abandon()
	if block == rawHead {
		block = ""
	}
	return s.out.say(&wire.Forget{ULID: block})
}

// forgetHead begins the head anew: its logs have moved on.
func (s *story) forgetHead() error {
	s.inHead = 0
	if s.block == rawHead {
		return s.forget(rawHead)
	}
	if !s.head {
		return nil
	}
	s.head = false
	return s.out.say(&wire.Forget{})
}
