//go:build linux

package kube

import (
	"bytes"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// The proxy itself needs no cluster to be proved.
func TestProxy(t *testing.T) {
	t.Run("healthy", func(t *testing.T) {
		p, conn := speaker(t)
		send(conn, 300_000)
		if got, err := take(conn, 300_000); got != 300_000 || err != nil {
			t.Errorf("%d bytes came back: %v", got, err)
		}
		if n := p.seen(); n.up != 300_000 || n.down != 300_000 || n.cut+n.stalled != 0 || n.opened != 1 {
			t.Errorf("seen: %s", n)
		}
	})
	for _, after := range []int64{1, 100_001} {
		for _, quiet := range []bool{false, true} {
			p, conn := speaker(t)
			p.inject(fault{after: after, quiet: quiet}, 1)
			send(conn, 200_000)
			got, err := take(conn, 200_000)
			// A reset may overtake what was sent before it; an end may not.
			if got > after || quiet && got != after || p.seen().down != after || p.seen().cut != 1 {
				t.Errorf("cut after %d, quiet %v: %d came, %v; seen %s", after, quiet, got, err, p.seen())
			}
			// The writer may have taken the reset, then the reader sees an end.
			if err == nil || quiet && err != io.EOF {
				t.Errorf("cut after %d, quiet %v: %v", after, quiet, err)
			}
			again := dial(t, p) // once is once
			send(again, 200_000)
			if got, err := take(again, 200_000); got != 200_000 {
				t.Errorf("the connection after the cut one: %d bytes, %v", got, err)
			}
		}
	}
	t.Run("up, always", func(t *testing.T) {
		p, conn := speaker(t)
		p.inject(fault{after: 50_000, up: true}, -1)
		for range 3 {
			conn.Write(make([]byte, 200_000)) // may fail
			if got, err := take(conn, 200_000); got > 50_000 || err == nil {
				t.Errorf("%d bytes came back: %v", got, err)
			}
			conn = dial(t, p)
		}
		if n := p.seen(); n.cut != 3 || n.up != 150_000 {
			t.Errorf("seen: %s", n)
		}
	})
	t.Run("stall", func(t *testing.T) {
		p, conn := speaker(t)
		p.inject(fault{after: 70_000, stall: true}, 1)
		send(conn, 200_000)
		conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		got, err := take(conn, 200_000)
		var timeout net.Error
		if got != 70_000 || !errors.As(err, &timeout) || !timeout.Timeout() || p.seen().stalled != 1 {
			t.Errorf("%d bytes came, then %v; seen %s", got, err, p.seen())
		}
		other := dial(t, p)
		send(other, 200_000)
		if got, err := take(other, 200_000); got != 200_000 {
			t.Errorf("beside the stalled one: %d bytes, %v", got, err)
		}
		p.heal()
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := take(conn, 130_000); got != 130_000 {
			t.Errorf("after the stall: %d bytes, %v", got, err)
		}
		p.inject(fault{stall: true}, -1)
		conn.Write([]byte("x"))
		if !poll(5*time.Second, func() bool { return p.seen().stalled == 2 }) {
			t.Errorf("does not stall again: %s", p.seen())
		}
		p.cutAll()
		if _, err := take(conn, 1); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("a stalled connection that is cut: %v", err)
		}
	})
	t.Run("slow", func(t *testing.T) {
		p, conn := speaker(t)
		p.slow(400_000)
		begin := time.Now()
		send(conn, 100_000)
		if got, err := take(conn, 100_000); got != 100_000 {
			t.Errorf("%d bytes, %v", got, err)
		}
		if took := time.Since(begin); took < 300*time.Millisecond || took > 3*time.Second {
			t.Errorf("200 kB both ways together at 400 kB/s took %s", took)
		}
	})
}

// speaker is an echo behind a proxy, and a connection to it.
func speaker(t *testing.T) (*proxy, *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				io.Copy(conn, conn) // ends with the test
			}()
		}
	}()
	p := proxyTo(t, l.Addr().String())
	return p, dial(t, p)
}

func dial(t *testing.T, p *proxy) *net.TCPConn {
	t.Helper()
	conn, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// send does not wait for what comes back, and it may fail.
func send(conn net.Conn, n int) {
	go conn.Write(bytes.Repeat([]byte("x"), n))
}

func take(conn net.Conn, n int64) (int64, error) {
	return io.CopyN(io.Discard, conn, n)
}
