package pod

import (
	"bytes"
	"context"
	"io"
	"sync"
)

// smallest is the size from which on an upload takes so long that it is shown, in bytes.
const smallest = 256 << 10

// programReader is read while it is sent, and reports how far that has come.
type programReader struct {
	body   *bytes.Reader
	report func(done, total int64)
	once   sync.Once
}

func (s *Source) uploading(body []byte) *programReader {
	u := &programReader{body: bytes.NewReader(body), report: s.o.Upload}
	if u.report == nil || len(body) < smallest {
		u.report = func(int64, int64) {}
	}
	u.report(0, u.body.Size())
	return u
}

func (u *programReader) Read(p []byte) (int, error) {
	// What was read before has been taken by now, the rest has not.
	if done := u.body.Size() - int64(u.body.Len()); done > 0 && u.body.Len() > 0 {
		u.report(done, u.body.Size())
	}
	return u.body.Read(p)
}

// end reports the end of the upload, however it ended. Only the first call counts.
func (u *programReader) end() {
	u.once.Do(func() { u.report(u.body.Size(), u.body.Size()) })
}

// removeByShell removes the file of an agent that did not come to run. Where that fails,
// the container has gone, or the next agent removes it.
func (s *Source) removeByShell(ctx context.Context, place string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	err := s.o.Exec(ctx, []string{"sh", "-c", `rm -f -- "$1"`, "promdump", place}, Streams{
		In: bytes.NewReader(nil), Out: io.Discard, Err: io.Discard,
	})
	if err != nil {
		s.o.Logger.Debug("the agent's file may be left", "file", place, "error", err)
	}
}
