package agent

import (
	"bufio"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/promdump/promdump/internal/wire"
)

// Meeting is where a client whose connection broke finds the agent again: a unix socket
// in the abstract namespace, which is no file and ends with the agent. A second process
// of the same program connects to it and hands over its streams.
//
// Every process of the pod sees the socket's name. It takes a process of the same user,
// in the same PID namespace, that knows the key.
type Meeting struct {
	Wait time.Duration // for a client whose connection broke

	place  wire.Place
	key    string
	socket *os.File
	pin    int // a handle of our own program, which has no file any more
}

// NewMeeting makes a place where this process is found again. Program is the path of its
// program; empty: it has been removed.
func NewMeeting(wait time.Duration, program string) (*Meeting, error) {
	name, key := "promdump-"+strings.ToLower(rand.Text()), rand.Text()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	m := &Meeting{Wait: wait, key: key, socket: os.NewFile(uintptr(fd), "@"+name), pin: -1}
	err = os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrUnix{Name: "@" + name}))
	if err == nil {
		err = os.NewSyscallError("listen", unix.Listen(fd, maxAttaching))
	}
	if err == nil && program == "" {
		program, err = m.pinProgram()
	}
	if err != nil {
		m.Close()
		return nil, err
	}
	m.place = wire.Place{Name: name, Program: program, Key: key}
	return m, nil
}

// pinProgram returns a path of the program of this process that needs no file. The
// handle has a random number: should the container start anew, the same path leads
// nowhere, and not to another program.
func (m *Meeting) pinProgram() (string, error) {
	self, err := os.Readlink("/proc/self") // the PID that this /proc knows us by
	if err != nil {
		return "", err
	}
	fd, err := unix.Open("/proc/self/exe", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("open", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written through it
	m.pin, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 100+mathrand.IntN(900))
	if err != nil {
		return "", os.NewSyscallError("fcntl", err)
	}
	path := fmt.Sprintf("/proc/%s/fd/%d", self, m.pin)
	return path, os.NewSyscallError("access", unix.Access(path, unix.X_OK))
}

// Place is what a client needs to come back.
func (m *Meeting) Place() wire.Place { return m.place }

// Close ends the meeting. It may be called more than once.
func (m *Meeting) Close() {
	_ = m.socket.Close() // nothing of it is used any more
	if m.pin >= 0 {
		_ = unix.Close(m.pin)
		m.pin = -1
	}
}

// maxAttaching bounds the connections that have not sent the key yet.
const maxAttaching = 4

// accept attaches connections until the meeting is closed.
func (m *Meeting) accept(l *link) {
	raw, err := m.socket.SyscallConn()
	if err != nil {
		return
	}
	free := make(chan struct{}, maxAttaching)
	for {
		var fd int
		var failed error
		err := raw.Read(func(s uintptr) bool {
			fd, _, failed = unix.Accept4(int(s), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return
		}
		if failed != nil {
			time.Sleep(time.Second) // no handle is free, or the peer has gone
			continue
		}
		free <- struct{}{}
		go func() {
			defer func() { <-free }()
			meet(fd, l)
		}()
	}
}

// meet takes the streams of the process at the other end of a socket.
func meet(fd int, l *link) {
	socket := os.NewFile(uintptr(fd), "attach")
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	// PID 0 is a process of another PID namespace.
	if err != nil || int(cred.Uid) != os.Geteuid() || cred.Pid == 0 {
		_ = socket.Close()
		return
	}
	files, err := takeFiles(socket)
	if err != nil {
		_ = socket.Close()
		return
	}
	c := connect(files[0], files[1], files[2], socket)
	go func() {
		_, _ = socket.Read(make([]byte, 1)) // it returns when the attaching process has ended
		c.close()
	}()
	l.attach(c)
}

// takeFiles receives stdin, stdout and stderr.
func takeFiles(socket *os.File) ([]*os.File, error) {
	if err := socket.SetReadDeadline(time.Now().Add(attachTime)); err != nil {
		return nil, err
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	oob := make([]byte, unix.CmsgSpace(3*4))
	var n int
	var failed error
	err = raw.Read(func(s uintptr) bool {
		_, n, _, _, failed = unix.Recvmsg(int(s), make([]byte, 1), oob, unix.MSG_CMSG_CLOEXEC)
		return failed != unix.EAGAIN
	})
	if err = errors.Join(err, failed, socket.SetReadDeadline(time.Time{})); err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			_ = unix.SetNonblock(fd, true) // it has no effect on a regular file
			files = append(files, os.NewFile(uintptr(fd), "stream"))
		}
	}
	if len(files) != 3 {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, errors.New("not the streams of a command")
	}
	return files, nil
}

// connect makes a connection of files whose reads and writes end when they are closed.
func connect(in, out, errs *os.File, more ...*os.File) *connection {
	var once sync.Once
	return &connection{
		in: bufio.NewReaderSize(in, 64<<10), out: out, errs: brief{errs},
		close: func() {
			once.Do(func() {
				for _, f := range append(more, in, out, errs) {
					_ = f.Close() // of streams that break nothing else is expected
				}
			})
		},
	}
}

// brief gives up a write that takes long: what a person reads must not stop a dump.
type brief struct{ to *os.File }

func (b brief) Write(p []byte) (int, error) {
	_ = b.to.SetWriteDeadline(time.Now().Add(time.Second)) // a file needs none
	return b.to.Write(p)
}

// first is the connection that the process was started with.
func (m *Meeting) first(p Process) *connection {
	in, ok1 := p.In.(*os.File)
	out, ok2 := p.Out.(*os.File)
	errs, ok3 := p.Err.(*os.File)
	if !ok1 || !ok2 || !ok3 {
		return &connection{in: bufio.NewReaderSize(p.In, 64<<10), out: p.Out, errs: p.Err, close: func() {}}
	}
	var files [3]*os.File
	for i, f := range []*os.File{in, out, errs} {
		// Copies: what took the numbers 0 to 2 after a close would get what the runtime
		// writes to stderr.
		fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return &connection{in: bufio.NewReaderSize(p.In, 64<<10), out: p.Out, errs: p.Err, close: func() {}}
		}
		_ = unix.SetNonblock(fd, true) // a file cannot
		files[i] = os.NewFile(uintptr(fd), f.Name())
	}
	return connect(files[0], files[1], files[2])
}

// NoAgentError reports that no agent waits under a name.
type NoAgentError struct{ Err error }

func (e *NoAgentError) Error() string { return fmt.Sprintf("no agent waits here: %v", e.Err) }
func (e *NoAgentError) Unwrap() error { return e.Err }

// Attach hands the streams of this process to the agent that waits under a name. It
// returns when the agent has no use for them any more.
func Attach(name string, streams ...*os.File) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing is written through it
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: "@" + name}); err != nil {
		return &NoAgentError{err}
	}
	var fds []int
	for _, f := range streams {
		fds = append(fds, int(f.Fd()))
	}
	if err := unix.Sendmsg(fd, []byte{0}, unix.UnixRights(fds...), nil, 0); err != nil {
		return os.NewSyscallError("sendmsg", err)
	}
	for {
		n, err := unix.Read(fd, make([]byte, 1))
		if n <= 0 && err != unix.EINTR {
			return nil // a reset is an end like any
		}
	}
}
