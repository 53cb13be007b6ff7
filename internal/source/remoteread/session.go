package remoteread

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"slices"
	"sync"

	"github.com/promdump/promdump/internal/promapi"
)

// Behind one URL there may be several servers: the replicas of an HA pair behind a
// Service, or a proxy that routes requests to several servers. Each has its own
// samples, and all may have the same labels and the same config. So all requests of a
// read go to one process of one server, which is asked for its identity:
//
//   - A TCP load balancer chooses a server for each connection. Each session has one
//     connection, and gives up those that reach another server.
//   - An HTTP load balancer chooses one for each request. It is seen when answers on
//     one connection come from several, and refused. Cookies are kept, so a balancer
//     that sets one for this purpose is followed.
//
// A process that began after the last one was seen, on the same host and with the
// same blocks, is the same server after a restart.

const (
	// firstChecks is how often a server is asked for its identity on the first
	// connection. A round-robin balancer is detected at the second check. A random one
	// passes all of them once in 32 times, and is then checked after each answer.
	firstChecks = 6

	// mostConnections limits how many connections are made to reach the same server
	// again.
	mostConnections = 30

	// mostStrays limits how many answers in a row may be of unknown origin.
	mostStrays = 3
)

// pool has the sessions of one read, which are all with the same server.
type pool struct {
	*Source
	jar  *cookies
	free chan *session

	mu     sync.Mutex
	who    string // the path that returns the server's identity; empty: none does
	first  promapi.Identity
	past   []promapi.Identity // of the same server, before it was restarted
	others []promapi.Identity
	noted  bool
	blocks map[string]bool // sources of the server's blocks
}

func (s *Source) newPool() (*pool, error) {
	p := &pool{Source: s, jar: &cookies{}, free: make(chan *session, s.o.Concurrency)}
	for range s.o.Concurrency {
		client, err := s.newClient()
		if err != nil {
			return nil, err
		}
		client.Jar = p.jar
		p.free <- &session{p: p, client: client}
	}
	return p, nil
}

// close ends the connections of sessions that are free.
func (p *pool) close() {
	for {
		select {
		case se := <-p.free:
			se.client.CloseIdleConnections()
		default:
			return
		}
	}
}

// take waits for a session; give returns it.
func (p *pool) take(ctx context.Context) (*session, error) {
	select {
	case se := <-p.free:
		return se, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pool) give(se *session) { p.free <- se }

// with runs f with a session that reaches the pool's server. It repeats f until f
// succeeds and that server is known to have answered.
func (p *pool) with(ctx context.Context, what string, f func(*session) error) error {
	se, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer p.give(se)
	return p.again(ctx, what, func() error { return se.sure(ctx, func() error { return f(se) }) })
}

// session is a client with one connection, for one request at a time.
type session struct {
	p      *pool
	client *http.Client

	mu   sync.Mutex
	last net.Conn   // of the last request
	used []net.Conn // of the requests since open

	right  net.Conn // reaches the pool's server
	strays int
}

func (se *session) do(req *http.Request) (*http.Response, error) {
	trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
		se.mu.Lock()
		defer se.mu.Unlock()
		se.last, se.used = i.Conn, append(se.used, i.Conn)
	}}
	resp, err := se.client.Do(req.WithContext(httptrace.WithClientTrace(req.Context(), trace)))
	if err == nil {
		se.p.met.Store(true)
	}
	return resp, err
}

// connection is that of the last request.
func (se *session) connection() net.Conn {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.last
}

// takeUsed returns the connections since it was last called.
func (se *session) takeUsed() []net.Conn {
	se.mu.Lock()
	defer se.mu.Unlock()
	used := slices.Compact(se.used)
	se.used = nil
	return used
}

// reset ends the connection, so that the next request makes another one.
func (se *session) reset() {
	if c := se.connection(); c != nil {
		_ = c.Close() // it may be closed already
	}
	se.client.CloseIdleConnections()
	se.right = nil
}

// begin asks the first server that answers for its identity.
func (p *pool) begin(ctx context.Context) error {
	se, err := p.take(ctx)
	if err != nil {
		return err
	}
	defer p.give(se)
	for _, path := range []string{promapi.RuntimePath, promapi.MetricsPath} {
		p.who = path
		ok, err := se.get(ctx, path, nil, func(body []byte, h http.Header) (err error) {
			p.first, err = readIdentity(path, body, h)
			return err
		})
		if err != nil {
			return unreachable(p.String(), err)
		}
		if ok {
			break
		}
		p.who = ""
	}
	if p.who == "" {
		p.o.Logger.Debug("the server does not say which one it is")
		return nil
	}
	for range firstChecks - 1 {
		se.right = se.connection()
		id, err := se.identify(ctx)
		if err != nil {
			return err
		}
		same, err := se.judge(ctx, id)
		if err != nil {
			return err
		}
		if !same && se.connection() == se.right {
			return p.replicaError(id, "and requests on one connection reach different ones")
		}
		if !same {
			se.reset()
			return nil
		}
	}
	p.o.Logger.Debug("server", "identity", p.first)
	return nil
}

func readIdentity(path string, body []byte, h http.Header) (promapi.Identity, error) {
	if path == promapi.MetricsPath {
		return promapi.MetricsIdentity(body, h)
	}
	return promapi.Runtime(body, h)
}

// identify asks the server for its identity. A server that does not report one is not
// the first server.
func (se *session) identify(ctx context.Context) (id promapi.Identity, err error) {
	path := se.p.who
	ok, err := se.get(ctx, path, nil, func(body []byte, h http.Header) (err error) {
		id, err = readIdentity(path, body, h)
		return err
	})
	if !ok {
		id = promapi.Identity{}
	}
	return id, err
}

// sure runs ask, and checks that the pool's server has answered all its requests.
func (se *session) sure(ctx context.Context, ask func() error) error {
	if se.p.who == "" {
		return ask()
	}
	if err := se.open(ctx); err != nil {
		return err
	}
	err := ask()
	_, labels := errors.AsType[*LabelsError](err)
	if err != nil && !labels {
		se.right = nil // the connection may have ended with it
		return err
	}
	// Other labels may be those of another server.
	if err := se.confirm(ctx); err != nil {
		return err
	}
	return err
}

// open makes a connection that reaches the pool's server.
func (se *session) open(ctx context.Context) error {
	for n := 0; se.right == nil; n++ {
		id, err := se.identify(ctx)
		if err != nil {
			return err
		}
		same, err := se.judge(ctx, id)
		switch {
		case err != nil:
			return err
		case same:
			se.right = se.connection()
		case n == mostConnections:
			return se.p.replicaError(id, fmt.Sprintf("and none of %d connections reached the first one again", n))
		default:
			se.reset()
		}
	}
	se.takeUsed()
	se.p.noteOthers()
	return nil
}

// confirm checks that all requests since open were answered by the pool's server.
func (se *session) confirm(ctx context.Context) error {
	used, right := se.takeUsed(), se.right
	all := func(c net.Conn) bool { return !slices.ContainsFunc(used, func(u net.Conn) bool { return u != c }) }
	id, err := se.identify(ctx)
	if err != nil {
		return err
	}
	same, err := se.judge(ctx, id)
	now := se.connection()
	switch {
	case err != nil:
		return err
	case same && (all(right) || all(now) || !se.p.several()):
		se.right, se.strays = now, 0
		return nil
	case !same && now == right:
		return se.p.replicaError(id, "and requests on one connection reach different ones")
	}
	se.reset()
	if all(right) {
		return nil // the connection ended after the answer
	}
	if se.strays++; se.strays == mostStrays {
		return se.p.replicaError(id, "and connections end after each answer")
	}
	return &broken{err: errors.New("the connection ended, and another server may have answered")}
}

// judge reports whether id is the pool's server, also after a restart. It may make
// another connection to find out; then the result is about that connection.
func (se *session) judge(ctx context.Context, id promapi.Identity) (same bool, err error) {
	p := se.p
	p.mu.Lock()
	first := p.first
	if first.Same(id) && id.Seen.After(first.Seen) {
		p.first.Seen = id.Seen
	}
	p.mu.Unlock()
	if first.Same(id) {
		return true, nil
	}
	if id.RestartOf(first) {
		if same, err = se.restarted(ctx, first, id); same || err != nil {
			return same, err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if slices.ContainsFunc(p.past, id.Same) && id.Seen.After(p.first.Start) {
		// The first server still runs beside its successor: what was read since is not
		// from the first.
		return false, &ReplicaError{First: p.first, Other: id, Why: "and which of them answered is unknown"}
	}
	p.addOther(id)
	return false, nil
}

func (p *pool) addOther(id promapi.Identity) {
	if !slices.ContainsFunc(p.others, func(o promapi.Identity) bool { return o.Same(id) || !o.Known() && !id.Known() }) {
		p.others = append(p.others, id)
	}
}

// restarted reports whether id is the first server after a restart, and makes it the
// first if so. It then has the blocks of the first, and the first does not answer any
// more.
func (se *session) restarted(ctx context.Context, first, id promapi.Identity) (bool, error) {
	p := se.p
	var blocks []promapi.Block
	known, err := se.get(ctx, promapi.BlocksPath, nil, func(body []byte, _ http.Header) (err error) {
		blocks, err = promapi.Blocks(body)
		return err
	})
	if err != nil {
		return false, err
	}
	p.mu.Lock()
	foreign := known && len(blocks) > 0 && len(p.blocks) > 0
	for _, b := range blocks {
		foreign = foreign && !slices.ContainsFunc(b.Compaction.Sources, func(s string) bool { return p.blocks[s] })
	}
	p.mu.Unlock()
	if foreign {
		return false, nil
	}
	for range firstChecks {
		again, err := se.identify(ctx)
		switch {
		case err != nil:
			return false, err
		case first.Same(again): // by the connection that the session has now
			p.mu.Lock()
			defer p.mu.Unlock()
			p.addOther(id)
			return true, nil
		case !id.Same(again):
			return false, &broken{err: errors.New("the server is being restarted")}
		}
		if now := se.connection(); now != nil {
			_ = now.Close()
		}
		se.client.CloseIdleConnections()
	}
	if _, err := se.identify(ctx); err != nil { // the connection that the caller goes on with
		return false, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.first.Same(first) { // another session has seen it
		return p.first.Same(id), nil
	}
	p.past, p.first = append(p.past, first), id
	p.o.Note(fmt.Sprintf("the server was restarted while it was read (%s): "+
		"what it had not written to its log before is missing from the windows read since", id))
	return true, nil
}

func (p *pool) several() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.others) > 0
}

func (p *pool) noteOthers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.others) > 0 && !p.noted {
		p.noted = true
		p.o.Note(fmt.Sprintf("several servers answer at this URL: everything is read from one of them (%s)", p.first))
	}
}

func (p *pool) replicaError(other promapi.Identity, why string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return &ReplicaError{First: p.first, Other: other, Why: why}
}
