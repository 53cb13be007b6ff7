package agentbin

import (
	"context"
	"errors"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A pipe in the archive's place would be waited for until somebody writes to it,
// and then until they end.
func TestPipeIsThere(t *testing.T) {
	for _, written := range []bool{false, true} {
		pipeIsThere(t, written)
	}
}

func pipeIsThere(t *testing.T, written bool) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	archive := archiveOf(t, "mips", "program")
	s := serve(t, false)
	s.set(archivePath, archive)
	o := s.options(t, Digests{"mips": sumOf("program")})
	if err := syscall.Mkfifo(filepath.Join(o.Dir, kept), 0o666); err != nil {
		t.Fatal(err)
	}
	if written {
		f, err := os.OpenFile(filepath.Join(o.Dir, kept), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
	}
	done := make(chan error, 1)
	go func() {
		_, err := Get(ctx, "mips", o)
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-ctx.Done():
		t.Fatal("it waits at the pipe")
	}
	mustHold(t, o.Dir, kept, archive)
}

// The kernel's own full disk.
func TestDiskFull(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	s := serve(t, false)
	s.set(archivePath, archiveOf(t, "mips", "program"))
	u, err := url.Parse(s.URL + archivePath)
	if err != nil {
		t.Fatal(err)
	}
	o := s.options(t, nil)
	o.Logger, o.stall = discard, stall
	err = fetch(t.Context(), o, u, full, maxArchive)
	mustFail(t, err, "no space left")
	if e, ok := errors.AsType[*Error](err); ok && !strings.Contains(e.Hint(), "TMPDIR") || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
}
