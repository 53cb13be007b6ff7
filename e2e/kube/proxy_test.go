//go:build linux

package kube

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// fault is what happens to a connection that carries many bytes. A short request
// does not meet it, a stream does.
type fault struct {
	after int64 // bytes of TLS that a connection carries first, counted from the fault or from its own begin
	up    bool  // those that the client sends; else those that it gets
	stall bool  // it stays open and carries nothing more, either way; else it is cut
	quiet bool  // cut with an end (FIN), as by one who is done; else with a reset
}

// proxy is a bad connection between a client and the apiserver. It sees TLS as
// bytes and changes none.
type proxy struct {
	t        *testing.T
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond // of stalled connections
	fault   fault
	times   int // how often it happens yet; negative: always
	links   map[*link]bool
	rate    int64 // bytes a second for all together; 0: as fast as it goes
	next    time.Time
	met     tally
}

// tally is what a proxy has seen.
type tally struct {
	opened, cut, stalled int
	up, down             int64 // bytes that arrived
}

func (n tally) String() string {
	return fmt.Sprintf("%d connections, %d cut, %d stalled, %d bytes up, %d bytes down", n.opened, n.cut, n.stalled, n.up, n.down)
}

// link is one connection through the proxy.
type link struct {
	client, server *net.TCPConn
	up, down       int64
	stalled        bool
	closed         bool // by us
	ended          int  // of its two directions
}

// newProxy is one to the apiserver; it is healthy at first.
func newProxy(t *testing.T) *proxy {
	t.Helper()
	c := booted(t)
	view := c.run(t, c.config, "config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}")
	u, err := url.Parse(strings.TrimSpace(view.stdout))
	if err != nil || u.Host == "" {
		t.Fatalf("the apiserver's address: %v: %q", err, view.stdout)
	}
	return proxyTo(t, u.Host)
}

func proxyTo(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{t: t, listener: l, target: target, links: map[*link]bool{}}
	p.changed = sync.NewCond(&p.mu)
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		p.heal()
		p.cutAll()
		p.wg.Wait()
	})
	return p
}

// config is the kubeconfig of a user who comes through this proxy.
func (p *proxy) config(user string) string { return copyConfig(p.t, user, p.addr()) }

func (p *proxy) addr() string { return p.listener.Addr().String() }

// inject makes a fault happen to the next so many connections that get that far,
// or to all that do, if times is negative. It replaces the one before.
func (p *proxy) inject(f fault, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.times = f, times
	for l := range p.links {
		l.up, l.down = 0, 0
	}
}

// slow lets this many bytes a second through, in both directions together.
func (p *proxy) slow(rate int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rate, p.next = rate, time.Now()
}

// heal ends all faults; what stood still goes on.
func (p *proxy) heal() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.times, p.rate = 0, 0
	for l := range p.links {
		l.stalled = false
	}
	p.changed.Broadcast()
}

// cutAll resets all connections that are open.
func (p *proxy) cutAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		p.cut(l, false)
	}
}

func (p *proxy) seen() tally {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.met
}

func (p *proxy) accept() {
	defer p.wg.Done()
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			return // closed by the test's end
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil { // the apiserver is dead: so is the connection
			conn.Close()
			continue
		}
		l := &link{client: conn.(*net.TCPConn), server: server.(*net.TCPConn)}
		p.mu.Lock()
		p.links[l] = true
		p.met.opened++
		p.mu.Unlock()
		p.wg.Add(2)
		go p.carry(l, l.client, l.server, true)
		go p.carry(l, l.server, l.client, false)
	}
}

func (p *proxy) carry(l *link, from, to *net.TCPConn, up bool) {
	defer p.wg.Done()
	defer p.done(l)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		for rest := buf[:n]; len(rest) > 0; {
			allowed, wait := p.pass(l, int64(len(rest)), up)
			time.Sleep(wait)
			if allowed == 0 { // cut
				// To close what has unread bytes is a reset, and that overtakes the end.
				io.Copy(io.Discard, from)
				return
			}
			if _, err := to.Write(rest[:allowed]); err != nil {
				break // the other direction sees why
			}
			rest = rest[allowed:]
		}
		switch {
		case err == io.EOF:
			to.CloseWrite() // may be closed already
			return
		case err != nil:
			p.mu.Lock()
			p.cut(l, false)
			p.mu.Unlock()
			return
		}
	}
}

// done closes a connection once both its directions have ended.
func (p *proxy) done(l *link) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if l.ended++; l.ended == 2 {
		l.client.Close()
		l.server.Close()
		delete(p.links, l)
	}
}

// pass says how many of n bytes may go on, and when; none if the connection is
// cut. It waits as long as it is stalled.
func (p *proxy) pass(l *link, n int64, up bool) (allowed int64, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		for l.stalled && !l.closed {
			p.changed.Wait()
		}
		if l.closed {
			return 0, 0
		}
		allowed = n
		if p.times != 0 && p.fault.up == up {
			allowed = min(n, p.fault.after-*l.count(up))
		}
		if allowed > 0 {
			break
		}
		if p.times > 0 {
			p.times--
		}
		if p.fault.stall {
			l.stalled = true
			p.met.stalled++
			continue
		}
		p.met.cut++
		p.cut(l, p.fault.quiet)
		return 0, 0
	}
	*l.count(up) += allowed
	if up {
		p.met.up += allowed
	} else {
		p.met.down += allowed
	}
	if p.rate > 0 {
		now := time.Now()
		if p.next.Before(now) {
			p.next = now
		}
		wait = p.next.Sub(now)
		p.next = p.next.Add(time.Duration(allowed) * time.Second / time.Duration(p.rate))
	}
	return allowed, wait
}

func (l *link) count(up bool) *int64 {
	if up {
		return &l.up
	}
	return &l.down
}

// cut ends a connection on both sides. The lock is held.
func (p *proxy) cut(l *link, quiet bool) {
	if !l.closed {
		l.closed = true
		p.changed.Broadcast()
	}
	if quiet {
		l.client.CloseWrite()
		l.server.CloseWrite()
		for _, c := range []*net.TCPConn{l.client, l.server} {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
		}
		return
	}
	l.client.SetLinger(0)
	l.server.SetLinger(0)
	l.client.Close()
	l.server.Close()
	delete(p.links, l)
}
