package dump

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/wire"
)

// tentative are the files of a block, or of a raw head, that the source may still take
// back. An output that can be cut back gets them as they come. For others, such as
// stdout, they wait in the staging directory: that the source takes something back is
// rare, and a stream that has it cannot be repaired.
type tentative struct {
	place string // ULID, or "" for a raw head
	some  bool   // there are files of it
	cut   bool   // the body of the last one ended with wire.ErrCut

	mark       archive.Mark // before the first, if the output can be cut back
	report     Report       // before the first
	base, read int64
	files      []waitingFile
}

// waitingFile is in the staging directory until its block is whole.
type waitingFile struct {
	name string // relative to the data dir
	size int64
	path string
}

// place is what a file belongs to.
func (a *assembler) place(name string) string {
	dir, _, _ := strings.Cut(name, "/")
	for _, b := range a.report.Plan.Blocks {
		if b.ULID == dir {
			return dir
		}
	}
	return ""
}

// settle is called before each message. It keeps for good what the source can no
// longer take back.
func (a *assembler) settle(msg wire.Message) error {
	if !a.tent.some {
		return nil
	}
	if a.tent.cut {
		switch msg.(type) {
		case *wire.Plan, *wire.Forget:
			return nil
		}
		return errors.New("the source goes on after a file that it did not finish")
	}
	switch m := msg.(type) {
	case *wire.Plan, *wire.Forget:
		return nil
	case *wire.File:
		if a.place(m.Name) == a.tent.place {
			return nil
		}
	}
	files := a.tent.files
	a.tent = tentative{}
	for _, f := range files {
		if err := a.writeWaiting(f); err != nil {
			return err
		}
	}
	return nil
}

func (a *assembler) writeWaiting(f waitingFile) error {
	in, err := os.Open(f.path)
	if err != nil {
		return err
	}
	err = a.file(&wire.File{Name: f.name, Size: f.size, Body: &cancelling{a.ctx, in}})
	return errors.Join(err, in.Close(), os.Remove(f.path))
}

// tentativeFile takes a file that may be taken back.
func (a *assembler) tentativeFile(m *wire.File) error {
	w, err := a.writer()
	if err != nil {
		return err
	}
	if !a.tent.some {
		a.tent = tentative{place: a.place(m.Name), some: true, report: a.report, base: a.base, read: a.read}
		if w.CanRollback() {
			if a.tent.mark, err = w.Mark(); err != nil {
				return err
			}
		}
	}
	body := &reading{a, m.Body}
	if w.CanRollback() {
		err = a.file(&wire.File{Name: m.Name, Size: m.Size, Body: body})
	} else {
		err = a.wait(m, body)
	}
	if errors.Is(err, wire.ErrCut) {
		a.tent.cut = true
		return nil
	}
	return err
}

// wait keeps a file in the staging directory.
func (a *assembler) wait(m *wire.File, body io.Reader) (err error) {
	f := waitingFile{m.Name, m.Size, filepath.Join(a.staging, fmt.Sprintf("file-%d", len(a.tent.files)))}
	out, err := os.Create(f.path)
	if err != nil {
		return fmt.Errorf("keep %s: %w", m.Name, err)
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	a.tent.files = append(a.tent.files, f)
	n, err := io.Copy(out, body)
	if err == nil && n != m.Size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("keep %s: %w", m.Name, err)
	}
	a.base = a.read
	return nil
}

// takeBack removes the files of a block, or of a raw head, from the dump.
func (a *assembler) takeBack() error {
	t := a.tent
	a.tent = tentative{}
	a.group = ""
	var err error
	for _, f := range t.files {
		err = errors.Join(err, os.Remove(f.path))
	}
	if err != nil {
		return err
	}
	if a.out.CanRollback() {
		if err := a.out.Rollback(t.mark); err != nil {
			return err
		}
		a.series.Forget()
	}
	r := a.report
	r.Blocks, r.Series, r.Samples, r.RawHead = t.report.Blocks, t.report.Series, t.report.Samples, t.report.RawHead
	a.report, a.base, a.read = r, t.base, t.read
	return nil
}
