package pod

import (
	"fmt"
	"strings"

	"github.com/promdump/promdump/internal/wire"
)

// story is what an agent tells, over as many streams as it takes.
type story struct {
	req   wire.Request
	out   *handover
	spool spool
	got   int64 // grows with all that came, so that a try that got further is known

	plan *wire.Plan   // all plans together; nil: none yet
	have []wire.Block // told to their end, or nothing of them is wanted
	cut  string       // ULID of the block that is cut
	part uint64       // how many of its messages with series are here
	head bool         // it has begun
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
	case s.spool.block != "" && s.spool.block != rawHead:
		f := s.spool.last()
		req.Resume.At = &wire.Position{ULID: s.spool.block, File: f.name, Offset: f.have}
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
				if err := s.flush(false); err != nil {
					return err
				}
			}
			planned = true
		}
		s.got++
		count(&end, m)
		if err := s.hear(m, end); err != nil {
			return err
		}
	}
	return nil
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
		return s.file(f)
	}
	if p, ok := m.(*wire.Plan); ok {
		return s.planned(p)
	}
	if err := s.flush(false); err != nil {
		return err
	}
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
		if err := s.flush(true); err != nil {
			return err
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
	if s.spool.block != "" && action[s.spool.block] != wire.Whole {
		if err := s.spool.clear(); err != nil {
			return &localError{err}
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

// file keeps a file until all of its block is here, or all of a raw head.
func (s *story) file(f *wire.File) error {
	block, _, _ := strings.Cut(f.Name, "/")
	if !s.isBlock(block) {
		block = rawHead
	}
	if s.spool.block != block {
		if err := s.flush(false); err != nil {
			return err
		}
		s.spool.block = block
	}
	return s.spool.take(f, &s.got)
}

func (s *story) isBlock(name string) bool {
	for _, b := range s.plan.Blocks {
		if b.ULID == name {
			return true
		}
	}
	return false
}

// flush hands the spooled block over. A raw head is whole only at the very end.
func (s *story) flush(end bool) error {
	if s.spool.block == "" || s.spool.block == rawHead && !end {
		return nil
	}
	if s.spool.block != rawHead {
		s.done(s.spool.block)
	}
	return s.out.files(s.spool.hand())
}

// forgetHead begins the head anew: its logs have moved on.
func (s *story) forgetHead() error {
	if s.spool.block == rawHead {
		if err := s.spool.clear(); err != nil {
			return &localError{err}
		}
	}
	if !s.head {
		return nil
	}
	s.head = false
	return s.out.say(&wire.Forget{})
}
