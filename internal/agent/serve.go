package agent

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/promdump/promdump/internal/datadir"
	"github.com/promdump/promdump/internal/restore/apply"
	"github.com/promdump/promdump/internal/wire"
)

const (
	keepAlive = 5 * time.Second // the client takes silence of several of these for a dead stream

	// clientSilence is how long a client may say nothing. Its death is the end of
	// our stdin nearly always; this is for the rest.
	clientSilence = time.Minute

	// receiveTime is how long a client may take to say that it has all.
	receiveTime = 2 * time.Minute

	// graceTime is for an orderly end after the client has gone. A write into a
	// stream that nobody reads would hang for ever.
	graceTime = time.Second
)

// Exit codes of the client's command, see docs/exit-codes.md.
const (
	codeIncomplete   = 3
	codeNoTarget     = 10
	codeNotPermitted = 11
	codeNoAgent      = 12
)

var errClientGone = errors.New("the client has gone")

// Process is what Serve runs in.
type Process struct {
	In       io.Reader
	Out, Err io.Writer
	Cgroup   fs.FS              // the container's, usually /sys/fs/cgroup
	Limit    func(memory int64) // keeps the heap below, bytes

	// Lower lowers the priority of the process, which it may have had before; nil: it
	// stays as it is. Its error is for the log.
	Lower func(Priority) error

	short error // why the container has no room for the request
	tight bool  // it has little

	// Meeting lets the client continue the answer over another connection. Nil: the
	// agent ends when its streams do.
	Meeting *Meeting
}

// Serve answers one call. It returns when the client has received the answer,
// or when there is no client any more: whoever calls it ends the process then,
// since what is written to a stream that nobody reads does not return.
func Serve(ctx context.Context, p Process) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if p.Meeting != nil {
		return p.serveLink(ctx, cancel)
	}
	in := bufio.NewReaderSize(p.In, 64<<10) // as wide as a wire.Reader's, so that this takes it as its own
	call, err := wire.ReadCall(in)
	if err != nil {
		return refuse(p.Out, err)
	}
	p.tight, p.short = p.limit(ctx, cancel, call.Limits.Memory)
	if call.Do == wire.DoReceive {
		return p.serveReceive(ctx, cancel, call, in)
	}
	return p.serve(ctx, call, watch(in, cancel))
}

func (p Process) serve(ctx context.Context, call wire.Call, client client) error {
	done := make(chan error, 1)
	go func() { done <- p.answer(ctx, call, client) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(graceTime):
		return context.Cause(ctx)
	}
}

// refuse answers a call that cannot be understood. A client of another version
// finds ours at the beginning of the stream.
func refuse(out io.Writer, err error) error {
	w, werr := wire.NewWriter(out, wire.Plain)
	if werr != nil {
		return errors.Join(err, werr)
	}
	return errors.Join(err, w.Fail(wire.Failure{Text: err.Error(), Code: codeNoAgent}))
}

// client is what we know of the other side.
type client struct{ received <-chan struct{} }

// watch reads the client's lines until it has gone, which cancels.
func watch(in *bufio.Reader, cancel context.CancelCauseFunc) client {
	received := make(chan struct{})
	silence := time.AfterFunc(clientSilence, func() { cancel(errClientGone) })
	go func() {
		told := false
		for {
			line, err := in.ReadString('\n')
			if err != nil {
				cancel(errClientGone)
				return
			}
			silence.Reset(clientSilence)
			if !told && strings.TrimSpace(line) == wire.Received {
				told = true
				close(received)
			}
		}
	}()
	return client{received: received}
}

func (p Process) answer(ctx context.Context, call wire.Call, c client) error {
	p.lower(call) // before the first byte
	codec := call.Codec
	if p.tight {
		codec = wire.Plain // a compressor takes some MiB
	}
	// The failure that the guard sends goes out after ctx has ended.
	sending := context.WithoutCancel(ctx)
	paced := newPacedWriter(sending, p.Out, call.Limits.Gentle, p.logger(call))
	defer paced.close()
	w, err := wire.NewWriter(Throttle(sending, paced, call.Limits.Bandwidth), codec)
	if err != nil {
		return err
	}
	alive, stop := context.WithCancel(ctx)
	defer stop()
	go keepAlives(alive, w)
	defer failForMemory(ctx, w)()
	if err := p.tell(ctx, call, w, paced); err != nil {
		if ctx.Err() != nil {
			return c.stopped(ctx)
		}
		return errors.Join(err, w.Fail(failure(err)), c.wait(ctx))
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return c.wait(ctx)
}

// wait waits until the client says that it has all. What is on its way when a
// process ends may get lost.
func (c client) wait(ctx context.Context) error {
	select {
	case <-c.received:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(receiveTime):
		return errors.New("the client does not say that it has received all")
	}
}

func keepAlives(ctx context.Context, w *wire.Writer) {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if w.KeepAlive() != nil {
				return // the story's own writes see the error too
			}
		}
	}
}

func (p Process) tell(ctx context.Context, call wire.Call, w *wire.Writer, paced *pacedWriter) error {
	log := p.logger(call)
	if p.short != nil {
		return p.short
	}
	if call.Do == wire.DoInspect {
		dir, err := apply.Find(call.Dirs)
		if err != nil {
			return err
		}
		t, err := apply.Inspect(dir)
		if err != nil {
			return err
		}
		return w.Answer(t)
	}
	if call.Do == wire.DoDiscard && call.Replace != nil {
		return discard(ctx, call, w)
	}
	dir, err := findDir(call.Dirs)
	if err != nil {
		return err
	}
	log.Debug("agent", "dir", dir, "uid", os.Getuid())
	switch call.Do {
	case wire.DoInventory:
		inv, err := Inventory(ctx, dir, Options{Logger: log})
		if err != nil {
			return err
		}
		return w.Answer(inv)
	case wire.DoRead:
		if call.Request == nil {
			return errors.New("the call has no request")
		}
		watched := paced.watchServer(p.Cgroup, dir, "prometheus")
		for m, err := range Read(ctx, dir, *call.Request, Options{Logger: log}) {
			if err != nil {
				return err
			}
			if plan, ok := m.(*wire.Plan); ok && call.Limits.Gentle && !watched {
				plan.Notes = append(plan.Notes, gentleNote)
			}
			if err := w.Write(m); err != nil {
				return err
			}
		}
		return nil
	}
	return fmt.Errorf("the call asks for %q, which this agent cannot do", call.Do)
}

// gentleNote is the note for --gentle without a signal to watch.
var gentleNote = fmt.Sprintf("the server cannot be watched: the dump is read at %d MiB a second", GentleRate>>20)

// lower lowers the priority of the process.
func (p Process) lower(call wire.Call) {
	if p.Lower == nil {
		return
	}
	priority := Background
	if call.Limits.Gentle {
		priority = Idle
	}
	if err := p.Lower(priority); err != nil {
		p.logger(call).Debug("the agent cannot lower its priority", "error", err)
	}
}

func (p Process) logger(call wire.Call) *slog.Logger {
	if !call.Debug {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(p.Err, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// limit keeps the agent's memory below the memory limit of the request and below what the container
// has, and watches from then on. It reports whether that is little, and returns an error
// where it is too little.
func (p Process) limit(ctx context.Context, cancel context.CancelCauseFunc, asked int64) (tight bool, err error) {
	if asked <= 0 {
		asked = defaultMemory
	}
	m := memoryOf(p.Cgroup)
	take, err := m.room(asked)
	if err != nil {
		return false, err
	}
	p.Limit(take)
	go m.guard(ctx, cancel)
	return take < tightMemory, nil
}

// findDir is the first of the directories that is a data dir.
func findDir(dirs []string) (string, error) {
	if len(dirs) == 0 {
		return "", errors.New("the call names no data dir")
	}
	var all error
	for _, dir := range dirs {
		err := datadir.Check(dir)
		if err == nil {
			return dir, nil
		}
		all = errors.Join(all, err)
	}
	if len(dirs) == 1 {
		return "", all
	}
	return "", fmt.Errorf("no data dir is found: %s", strings.ReplaceAll(all.Error(), "\n", "; "))
}

// failure is what the client is told of an error.
func failure(err error) wire.Failure {
	f := wire.Failure{Text: err.Error()}
	var hint interface{ Hint() string }
	if errors.As(err, &hint) {
		f.Tip = hint.Hint()
	}
	memory, short := errors.AsType[*MemoryError](err)
	switch {
	case short && memory.Running:
		f.Code, f.Memory = codeIncomplete, true
	case short:
		f.Code, f.Memory = codeNoAgent, true
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		f.Tip = "a shorter range needs fewer files; or raise the limit of open files in the container"
	case errors.Is(err, fs.ErrPermission):
		f.Code = codeNotPermitted
		f.Tip = fmt.Sprintf("the agent runs as uid %d, which may not read it", os.Getuid())
	case errors.Is(err, datadir.ErrNotDataDir), errors.Is(err, fs.ErrNotExist):
		f.Code = codeNoTarget
		f.Tip = "-d takes the directory that Prometheus got as --storage.tsdb.path"
	}
	return f
}
