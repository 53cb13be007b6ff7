package plugin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/prometheus/common/config"

	"github.com/promdump/promdump/internal/cli"
	"github.com/promdump/promdump/internal/kube"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/source"
	"github.com/promdump/promdump/internal/source/pod"
	"github.com/promdump/promdump/internal/source/podtar"
	"github.com/promdump/promdump/internal/source/remoteread"
	"github.com/promdump/promdump/internal/wire"
)

// made is what a command has made in the cluster, and ends with it.
type made struct {
	mu  sync.Mutex
	all []*kube.Helper
}

func (m *made) add(h *kube.Helper) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = append(m.all, h)
}

func (m *made) end(ctx context.Context) (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, h := range m.all {
		err = errors.Join(err, h.End(ctx))
	}
	m.all = nil
	return err
}

// found is a Prometheus, and how its data can be reached.
type found struct {
	*pods
	client *kube.Client
	target kube.Target
	asked  cli.Asked
	limits wire.Limits
	user   *int64 // of containers that are made; nil: that of the server
	remote cli.RemoteConfig
	notes  []string
	guard  *guard // of the server's container; made with the choice
}

func (f *found) String() string {
	return fmt.Sprintf("%s/%s:%s", f.target, f.target.Container, f.target.Dirs()[0])
}

// choice has the ways that the flags leave, for a Prometheus in this state.
func (f *found) choice() *choice {
	f.guard = &guard{
		cluster: f.client, target: f.target, exec: exec(f.client, f.target), logger: f.asked.Logger,
		others: f.elsewhere(),
	}
	w := &choice{name: f.String(), note: f.asked.Note, logger: f.asked.Logger, guard: f.guard}
	for _, v := range all {
		if asked := via(f.via); asked != viaAuto && asked != v || !f.target.Running && v != viaDebug && v != viaPVC {
			continue
		}
		w.list = append(w.list, way{via: v, open: func(ctx context.Context) (source.Source, error) { return f.open(ctx, v) }})
	}
	return w
}

// elsewhere are the methods that need no memory of the server's container for an agent.
func (f *found) elsewhere() (all []via) {
	if !f.target.Over && (f.target.Running || f.target.OnVolume) {
		all = append(all, viaDebug)
	}
	all = append(all, viaRemote)
	if f.target.Claim != "" {
		all = append(all, viaPVC)
	}
	return all
}

func (f *found) open(ctx context.Context, v via) (source.Source, error) {
	if err := f.client.May(ctx, f.target, access[v]); err != nil {
		return nil, err
	}
	switch v {
	case viaExec:
		return f.inServer(), nil
	case viaTar:
		if f.limits.Gentle {
			f.asked.Note(fmt.Sprintf("tar cannot watch the server: it is read at %d MiB a second", podtar.GentleRate>>20))
		}
		return podtar.New(podtar.Options{
			Name: f.String(), Exec: f.guard.exec, Dirs: f.target.Dirs(),
			Staging: f.asked.TempDir, Limits: f.limits, Note: f.asked.Note, Logger: f.asked.Logger,
			Check: f.guard.before(v), Alive: f.guard.same,
		}), nil
	case viaRemote:
		if via(f.via) == viaAuto {
			if err := f.guard.asks(); err != nil {
				return nil, err
			}
		}
		return f.server()
	}
	return f.helper(ctx, v, false)
}

// inServer is an agent in the server's own container.
func (f *found) inServer() *pod.Source {
	o := f.agentOptions(f.target, "")
	o.Check = f.guard.before(viaExec)
	return pod.New(o)
}

// agentOptions are of an agent that runs in the target, or beside it, and may be there
// already.
func (f *found) agentOptions(in kube.Target, installed string) pod.Options {
	return pod.Options{
		Name: f.String(), Exec: exec(f.client, in), Agent: f.agents(f.client, f.target, f.asked), Installed: installed,
		Dirs: in.Dirs(), Volumes: in.Mounts, InMemory: in.InMemory,
		Codec: wire.Zstd, Limits: f.limits, Wait: f.reconnect,
		Debug: f.asked.Debug, Note: f.asked.Note, Upload: f.asked.Upload, Logger: f.asked.Logger,
		Alive: f.guard.same,
	}
}

// helper is an agent in a container of our own.
func (f *found) helper(ctx context.Context, v via, write bool) (*pod.Source, error) {
	o := kube.HelperOptions{Image: f.image, User: f.user, Write: write, Tell: f.asked.Note}
	start := f.client.Debug
	if v == viaPVC {
		start = f.client.Mount
	} else if err := f.guard.beside(ctx, v); err != nil {
		return nil, err
	}
	h, err := start(ctx, f.target, o)
	if err != nil {
		return nil, err
	}
	f.made.add(h)
	return pod.New(f.agentOptions(h.Target, h.Agent)), nil
}

// web is how the server itself is asked, through connections to its port.
func (f *found) web() (*url.URL, cli.RemoteConfig) {
	t := f.target
	scheme := "http"
	if t.TLS {
		scheme = "https"
	}
	if f.scheme != "" {
		scheme = f.scheme
	}
	c := f.remote
	c.Gentle = f.gentle
	c.Options = append(slices.Clone(c.Options), config.WithDialContextFunc(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return f.client.Dial(ctx, t, t.Port)
	}))
	// The host is that which a server without a name is asked by, and which no proxy
	// of the environment is taken for.
	return &url.URL{Scheme: scheme, Host: net.JoinHostPort("127.0.0.1", fmt.Sprint(t.Port)), Path: t.Prefix}, c
}

// asks gives a client for the server, if its port can be reached at all. Its
// connections are forwardings: the caller closes those that are idle at the end.
func (f *found) asks(ctx context.Context) (base string, client *http.Client, err error) {
	conn, err := f.client.Dial(ctx, f.target, f.target.Port)
	if err != nil {
		return "", nil, err
	}
	if err := conn.Close(); err != nil {
		return "", nil, err
	}
	u, c := f.web()
	client, err = c.Client()
	return u.String(), client, err
}

func (f *found) server() (source.Source, error) {
	u, c := f.web()
	s, err := c.Source(u, f.String(), f.asked)
	if err != nil {
		return nil, err
	}
	return &server{Source: s, target: f.target, scheme: u.Scheme}, nil
}

// server is a remote read with hints that fit a pod.
type server struct {
	*remoteread.Source
	target kube.Target
	scheme string
}

func (s *server) Inventory(ctx context.Context) (*wire.Inventory, error) {
	inv, err := s.Source.Inventory(ctx)
	return inv, s.explain(err)
}

func (s *server) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		for m, err := range s.Source.Read(ctx, req) {
			if !yield(m, s.explain(err)) {
				return
			}
		}
	}
}

// explain says which of our flags would help.
func (s *server) explain(err error) error {
	e, ok := errors.AsType[*remoteread.ServerError](err)
	if !ok {
		return err
	}
	more := *e
	more.Tip = cmp.Or(webTip(s.target, e.What), e.Tip)
	return &more
}

// webTip says which of our flags would help with what a server says; empty: none.
func webTip(t kube.Target, what string) string {
	text := strings.ToLower(what)
	switch {
	case strings.Contains(text, "http request to an https server"):
		return "the server speaks TLS: --web-scheme https, with --web-tls-ca-file FILE --web-tls-server-name NAME, or --web-tls-insecure-skip-verify"
	case strings.Contains(text, "http response to https client"):
		return "the server does not speak TLS: --web-scheme http"
	case strings.Contains(text, "x509") || strings.Contains(text, "certificate"):
		return "--web-tls-ca-file FILE tells who signed the server's certificate and --web-tls-server-name NAME whom it is for; --web-tls-cert-file and --web-tls-key-file are ours, if it wants one; --web-tls-insecure-skip-verify takes any"
	case strings.Contains(text, "401 unauthorized"):
		tip := "the server asks who you are: --web-basic-auth-user NAME with --web-basic-auth-password-file FILE, --web-bearer-token-file FILE or --web-header"
		if file, _ := t.Flag("web.config.file"); file != "" {
			tip += "; who may ask stands in its --web.config.file " + file
		}
		return tip
	}
	return ""
}

// webError is one of the server itself, and what to do about it.
type webError struct {
	err error
	tip string
}

func (e *webError) Error() string { return e.err.Error() }
func (e *webError) Unwrap() error { return e.err }

// Hint says which flags would help.
func (e *webError) Hint() string { return e.tip }

// explainWeb does so for what refuses to be asked. Other errors have names of blocks and
// numbers in them, which say nothing of that.
func (f *found) explainWeb(err error) error {
	e, ok := errors.AsType[*restore.RequestError](err)
	if !ok {
		return err
	}
	if tip := webTip(f.target, e.Error()); tip != "" {
		return &webError{err, tip}
	}
	return err
}
