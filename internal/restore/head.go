package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/local"
	"github.com/promdump/promdump/internal/wire"
)

// headToBlocks makes blocks of the unpacked dump's head. The blocks of a head are
// named by their content, so a repeated restore finds them in the target.
func (p *Prepared) headToBlocks(ctx context.Context) error {
	if err := os.Mkdir(p.work.head(), 0o755); err != nil {
		return err
	}
	p.work.madeHead = true
	// The dump with its blocks is a data dir, and must be read as one: the head
	// counts only from where its blocks end.
	built, err := BuildHead(ctx, local.New(p.work.dump(), local.Options{Logger: p.log}), p.work.head())
	if err != nil {
		return err
	}
	for _, b := range built {
		findings, err := verifyBlock(ctx, b.Dir)
		if err != nil {
			return err
		}
		p.notes = append(p.notes, block.Notes(findings)...)
		if err := p.addBlock(b.Dir, findings, true); err != nil {
			return err
		}
	}
	return nil
}

// BuildHead makes blocks in dir of the head of a source. They are not verified.
func BuildHead(ctx context.Context, src source.Source, dir string) (built []*block.Built, err error) {
	req := wire.Request{
		Version:   wire.Version,
		Selection: wire.Selection{MinTime: math.MinInt64, MaxTime: math.MaxInt64},
		Head:      wire.HeadBlock,
	}
	var head *block.HeadBuilder
	defer func() {
		if head != nil {
			err = errors.Join(err, head.Discard())
		}
	}()
	done := false
	for msg, err := range src.Read(ctx, req) {
		if err != nil {
			return nil, err
		}
		switch m := msg.(type) {
		case *wire.File: // of a block, which is in staging already
			if _, err := io.Copy(io.Discard, m.Body); err != nil {
				return nil, fmt.Errorf("read %s: %w", m.Name, err)
			}
		case *wire.HeadStart:
			if head, err = block.NewHeadBuilder(block.HeadSpec{Parent: dir, MinTime: m.MinTime, MaxTime: m.MaxTime}); err != nil {
				return nil, err
			}
		case *wire.HeadChunks:
			if err := head.Chunks(m); err != nil {
				return nil, err
			}
		case *wire.Records:
			if err := head.Records(m); err != nil {
				return nil, err
			}
		case *wire.HeadEnd:
			if built, err = head.Finish(ctx); err != nil {
				return nil, err
			}
		case *wire.End:
			done = true
		}
	}
	if !done {
		return nil, errors.New("it could not be read to its end")
	}
	return built, nil
}
