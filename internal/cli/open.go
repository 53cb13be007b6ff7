package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/net/netutil"

	"github.com/promdump/promdump/internal/query"
	"github.com/promdump/promdump/internal/query/page"
	"github.com/promdump/promdump/internal/term"
	"github.com/promdump/promdump/internal/view"
)

// openFlags are the open command's flags as typed.
type openFlags struct {
	view        viewFlags
	listen      string
	hosts       []string
	noBrowser   bool
	concurrency int
	rules       string
	export      exportFlags
}

// openConfig is what they mean.
type openConfig struct {
	view    viewConfig
	listen  []string // addresses to try, the first that is free is taken
	hosts   []string
	browser bool
	rules   string
	export  *exportConfig // instead of serving
}

const (
	firstPort = 9090
	ports     = 100 // that are tried
)

func (f openFlags) compile(args []string, data Data, everything bool, now time.Time) (c openConfig, err error) {
	c = openConfig{hosts: f.hosts, browser: !f.noBrowser, rules: f.rules}
	if c.view, err = f.view.compile(args, data, everything, now); err != nil {
		return c, err
	}
	if f.concurrency < 0 {
		return c, usagef("leave it out for the default", "--query-concurrency %d is less than nothing", f.concurrency)
	}
	c.view.limits.Concurrency = f.concurrency
	if c.export, err = f.export.compile(); err != nil {
		return c, err
	}
	if c.export != nil && (f.listen != "" || f.rules != "" || len(f.hosts) > 0) {
		return c, usagef("leave --listen, --allow-host and --rules out", "--export does not serve anything")
	}
	if c.export == nil && len(c.view.files) > 0 && (c.view.spanned || len(f.view.match) > 0) {
		return c, usagef("a query says what of a dump it wants; promdump open -d DIR and --export take them", "times and --match are not for dump files that are served")
	}
	if c.listen, err = compileListen(f.listen); err != nil {
		return c, err
	}
	return c, nil
}

// compileListen takes HOST:PORT, :PORT, PORT and HOST.
func compileListen(s string) ([]string, error) {
	if s == "" {
		var all []string
		for i := range ports {
			all = append(all, net.JoinHostPort("127.0.0.1", strconv.Itoa(firstPort+i)))
		}
		return all, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		host, port = s, strconv.Itoa(firstPort)
		if _, err := strconv.ParseUint(s, 10, 16); err == nil {
			host, port = "127.0.0.1", s
		}
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil || strings.ContainsAny(host, "/ @") {
		return nil, usagef("it is like 127.0.0.1:9090, :9090 (on all addresses), 9090", "--listen %q is no address", s)
	}
	return []string{net.JoinHostPort(strings.Trim(host, "[]"), port)}, nil
}

func (a *app) openCommand() *cobra.Command {
	var f openFlags
	cmd := &cobra.Command{
		Use:   "open FILE…",
		Short: "Open dump files: serve the Prometheus HTTP API and a web UI",
		Long: `Serve the Prometheus HTTP API and a web UI over one or more dump files, on this
machine only: for a browser, Grafana, promtool, or the remote read of another
Prometheus. It needs no Prometheus and restores nothing.

promdump unpacks and verifies a dump once, into a cache; the next time the dump opens
at once. Without a dump file, promdump reads a data directory or a server, also a
running one: it takes the samples that the times and --match select as dump does, and
deletes them when the command ends. Without times, promdump takes all samples, and
kubectl promdump those of the last hour.

Several dumps are served together: a series that is in two of them is one series. With
--label-from-name each series gets the label dump="FILE NAME", which keeps the replicas
of an HA pair apart. A query without a time is evaluated at the end of the dump.

With --export nothing is served: the samples that --match and the times select are
written as text (openmetrics, csv) or as a Parquet file, one sample per row.`,
		Example: `  promdump open dump.tar.gz
  promdump open --label-from-name replica-0.tar.gz replica-1.tar.gz
  promdump open -d /prometheus --since 2h
  promdump open --export parquet --match '{namespace="shop"}' -t shop.parquet dump.tar.gz`,
		RunE: a.run(func(ctx context.Context, args []string) error {
			c, err := f.compile(args, a.Data, a.Remote == nil, a.Now())
			if err != nil {
				return err
			}
			return a.runOpen(ctx, c)
		}),
	}
	fs := cmd.Flags()
	fs.SortFlags = false
	a.Data.AddFlags(fs)
	fs.StringVar(&f.listen, "listen", "", "Listen `address` (default: 127.0.0.1:9090, or the next free port)")
	fs.StringArrayVar(&f.hosts, "allow-host", nil, "Host `name` that requests may use for this server, "+
		"in addition to the names of this machine; can be repeated")
	fs.BoolVar(&f.noBrowser, "no-browser", false, "If true, do not open a browser")
	fs.StringVar(&f.rules, "rules", "", "Path to a Prometheus rule `file`; "+
		"the web UI and the API show which of its alerts would have fired, and when")
	f.view.add(fs)
	fs.IntVar(&f.concurrency, "query-concurrency", 0, "Maximum `number` of queries that run at once (default 20)")
	f.export.add(fs)
	f.view.span.add(fs)
	fs.StringArrayVar(&f.view.match, "match", nil, "PromQL `selector` of the series to export, "+
		"or to read from a data directory or server; can be repeated")
	return cmd
}

func (a *app) runOpen(ctx context.Context, c openConfig) (err error) {
	if c.export != nil {
		return a.runExport(ctx, c)
	}
	begin := time.Now()
	var rules *query.Rules
	if c.rules != "" {
		if rules, err = query.ReadRules(c.rules); err != nil {
			return err
		}
	}
	// First: a port that is taken is said before minutes of unpacking.
	l, err := listen(ctx, c.listen)
	if err != nil {
		return err
	}
	defer func() { _ = l.Close() }() // the server has closed it, if there was one
	v, err := a.openView(ctx, c.view)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	addr := l.Addr().String()
	server := query.NewServer(query.ServerConfig{
		View: v, Limits: c.view.limits, Version: version(), Addr: c.addr(addr), Hosts: c.hosts, Rules: rules,
		Page: page.Handler(), Logger: a.logger(), Now: a.Now, Explain: explainLimit,
	})
	defer func() { err = errors.Join(err, server.Close()) }()
	a.tellView(v, time.Since(begin))
	if host, _, err := net.SplitHostPort(addr); err == nil && !net.ParseIP(host).IsLoopback() {
		a.notes([]string{"everybody who can reach " + addr + " can read all of it"})
	}
	url := "http://" + shownAddr(addr) + "/"
	if _, err := fmt.Fprintln(a.Out, url); err != nil {
		return err
	}
	if c.browser && term.IsTerminal(a.Out) && term.IsTerminal(a.Err) {
		browse(ctx, url)
	}
	return serve(ctx, l, server)
}

// addr is what was asked for, since the listener has lost the name.
func (c openConfig) addr(got string) string {
	if len(c.listen) != 1 {
		return got
	}
	host, _, _ := net.SplitHostPort(c.listen[0])
	_, port, err := net.SplitHostPort(got)
	if err != nil {
		return got
	}
	return net.JoinHostPort(host, port)
}

// shownAddr is one that a browser can go to.
func shownAddr(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}

func (a *app) tellView(v *view.View, took time.Duration) {
	blocks, samples := 0, uint64(0)
	for _, d := range v.Dumps {
		blocks += len(d.Blocks)
		for _, b := range d.Blocks {
			samples += b.Meta().Stats.NumSamples
		}
	}
	when := "no samples"
	if !v.Empty() {
		when = fmt.Sprintf("from %s to %s", term.Time(v.MinTime), term.Time(v.MaxTime))
	}
	a.summary("opened %s, %s, %s, %s in %s; press Ctrl-C to stop", term.Counted(len(v.Dumps), "dump", "dumps"),
		term.Counted(blocks, "block", "blocks"), term.Counted(samples, "sample", "samples"), when, term.Duration(took))
}

func listen(ctx context.Context, addrs []string) (net.Listener, error) {
	var first error
	for _, addr := range addrs {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
		if err == nil {
			return l, nil
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	return nil, hinted(fmt.Errorf("listen: %w", first), "--listen names another address, or port 0 for any that is free")
}

// A connection takes memory too, and the memory limit does not count what arrives
// before a request is admitted.
const (
	maxConnections = 256
	maxHeader      = 256 << 10 // a query in a URL is in it
)

// limitHint returns a hint with the flag that raises the limit which a query exceeded.
func limitHint(err error) string {
	if e, ok := errors.AsType[*query.LimitError](err); ok {
		switch e.Limit {
		case query.LimitMemory, query.LimitAnswer:
			return "raise the limit with --max-memory"
		case query.LimitSamples:
			return "raise the limit with --max-samples"
		case query.LimitText:
		}
	}
	if _, ok := errors.AsType[*query.TimeoutError](err); ok {
		return "raise the limit with --query-timeout"
	}
	return ""
}

// explainLimit returns the text for an HTTP answer: the error with the command line's
// hint.
func explainLimit(err error) string {
	if hint := hintOf(err); hint != "" {
		return err.Error() + " (hint: " + hint + ")"
	}
	return err.Error()
}

// serve answers until the context is done. Queries that run are cancelled then.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: maxHeader,
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(netutil.LimitListener(l, maxConnections)) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	// Its own time: ctx has none left.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	if err := server.Shutdown(last); err != nil {
		_ = server.Close() // who did not hang up in time
	}
	<-ended //nolint:errcheck // it says that it was shut down
	return nil
}

// browse shows the page to a person. It is a courtesy: the URL was printed.
func browse(ctx context.Context, url string) {
	var cmd *exec.Cmd
	switch runtime.GOOS {
	case "darwin":
		cmd = exec.CommandContext(ctx, "open", url)
	case "windows":
		cmd = exec.CommandContext(ctx, "rundll32", "url.dll,FileProtocolHandler", url)
	default:
		if os.Getenv("DISPLAY") == "" && os.Getenv("WAYLAND_DISPLAY") == "" {
			return
		}
		cmd = exec.CommandContext(ctx, "xdg-open", url)
	}
	if cmd.Start() == nil {
		go func() { _ = cmd.Wait() }() // so that it leaves no zombie
	}
}
