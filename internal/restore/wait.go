package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/promdump/promdump/internal/block"
	"github.com/promdump/promdump/internal/promapi"
	"github.com/promdump/promdump/internal/wire"
)

// wait polls the server until it serves the plan's blocks.
func (p *Prepared) wait(ctx context.Context) error {
	return p.server.wait(ctx, p.Blocks, p.spec.WaitTimeout, p.progress)
}

// WaitServed waits until the server at a URL serves the blocks, at most timeout (0:
// three minutes).
func WaitServed(ctx context.Context, client *http.Client, url string, blocks []PlannedBlock, timeout time.Duration) error {
	s, err := newServer(url, client)
	if err != nil {
		return fmt.Errorf("the server to wait for: %w", err)
	}
	return s.wait(ctx, blocks, timeout, func(Progress) {})
}

// probesPerBlock is the number of samples that are queried as a proof that a server
// serves a block, where the names of blocks are not enough.
const probesPerBlock = 3

// probe chooses samples of a block to query from a server. A block without such samples
// has nothing that a server could serve.
func (p *Prepared) probe(ctx context.Context, b *PlannedBlock) {
	var err error
	if b.probes, err = block.Samples(ctx, b.Dir, probesPerBlock); err != nil {
		p.log.Debug("no samples to ask a server for", "block", b.ULID, "error", err)
	}
}

// After this many answers in a row that are not those of a Prometheus, waiting cannot
// help.
const mostOtherAnswers = 3

func (s *server) wait(ctx context.Context, want []PlannedBlock, timeout time.Duration, progress func(Progress)) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(timeout, 3*time.Minute))
	defer cancel()
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	w := &waiting{server: s, want: want}
	total, others := int64(len(want)), 0
	for {
		left, err := w.look(ctx)
		_, refused := errors.AsType[*RequestError](err)
		_, replica := errors.AsType[*ReplicaError](err)
		_, other := errors.AsType[*AnswerError](err)
		if others++; !other {
			others = 0
		}
		switch {
		case err == nil && left == 0:
			return nil
		case refused, replica, others == mostOtherAnswers:
			return fmt.Errorf("cannot tell whether the server serves the blocks: %w", err)
		case err == nil:
			progress(Progress{Step: Wait, Done: total - int64(left), Total: total})
		case ctx.Err() == nil:
			w.seen = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not serve all blocks yet: %s: %w",
				cmp.Or(w.seen, "nothing yet"), context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// waiting is the state of a wait for blocks.
type waiting struct {
	*server
	want  []PlannedBlock
	first *gauges // when it began
	seen  string  // what the server has, for messages
}

// look asks the server once, and returns how many blocks it does not serve yet.
func (w *waiting) look(ctx context.Context) (left int, err error) {
	if err := w.reach(ctx); err != nil {
		return 0, err
	}
	missing, listed, err := w.missing(ctx)
	if err != nil || len(missing) == 0 {
		return 0, errors.Join(err, w.reached(ctx))
	}
	if listed {
		w.seen = fmt.Sprintf("it serves %d of %d blocks; missing: %s",
			len(w.want)-len(missing), len(w.want), some(ulidsOf(missing)))
	}
	// Names prove nothing here: an older server lists no blocks, and one that has
	// merged a block may not name it any more. After two reloads the server has loaded
	// all blocks that it can (the first may have begun before the last block was in
	// place); then its samples are queried.
	now, err := w.gauges(ctx)
	if err != nil {
		if listed {
			return len(missing), nil
		}
		return 0, err
	}
	if w.first == nil {
		w.first = now
	}
	if !listed {
		w.seen = fmt.Sprintf("it has reloaded its blocks %g times since, %g times with an error, and has %g loaded",
			now.reloads-w.first.reloads, now.failures-w.first.failures, now.loaded)
	} else if n := now.failures - w.first.failures; n > 0 {
		w.seen += fmt.Sprintf("; %g reloads of its blocks failed", n)
	}
	if now.reloads < w.first.reloads+2 || now.failures != w.first.failures {
		return len(missing), nil
	}
	for _, b := range missing {
		served, err := w.serves(ctx, b)
		switch {
		case err != nil && !listed: // samples cannot be queried either
		case err != nil:
			w.seen += fmt.Sprintf("; asked for samples: %v", err)
			left++
		case !served:
			left++
		}
	}
	return left, w.reached(ctx)
}

func ulidsOf(blocks []PlannedBlock) (all []string) {
	for _, b := range blocks {
		all = append(all, b.ULID)
	}
	slices.Sort(all)
	return all
}

// missing returns the blocks that the server does not serve, by themselves or in one
// that they were merged into. Servers list their blocks since Prometheus 3.6.
func (w *waiting) missing(ctx context.Context) (missing []PlannedBlock, listed bool, err error) {
	list, err := w.blocks(ctx)
	if errors.Is(err, errNotFound) {
		return w.want, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	var there []origin
	for _, b := range list {
		o := originOf(b)
		o.samples = 0 // samples deleted since then do not matter
		there = append(there, o)
	}
	for _, b := range w.want {
		if len(holders(b.origin, there)) == 0 {
			missing = append(missing, b)
		}
	}
	return missing, true, nil
}

// serves reports whether the server returns the sample probes of a block.
func (w *waiting) serves(ctx context.Context, b PlannedBlock) (bool, error) {
	if len(b.probes) == 0 && b.Samples > 0 {
		return false, errors.New("no sample of it is known")
	}
	for _, p := range b.probes {
		var ms []string
		for name, value := range p.Labels {
			ms = append(ms, name+"="+strconv.Quote(value))
		}
		slices.Sort(ms)
		q := url.Values{"query": {"{" + strings.Join(ms, ",") + "}[1s]"}, "time": {strconv.FormatFloat(float64(p.Time)/1000, 'f', 3, 64)}}
		var times []int64
		if err := w.ask(ctx, promapi.QueryPath, q, func(b []byte, _ http.Header) (err error) {
			times, err = promapi.Times(b)
			return err
		}); err != nil {
			return false, err
		}
		if !slices.Contains(times, p.Time) {
			return false, nil
		}
	}
	return true, nil
}

// gauges are the server's metrics about reloads of its blocks.
type gauges struct{ reloads, failures, loaded float64 }

func (s *server) gauges(ctx context.Context) (g *gauges, err error) {
	const reloads, failures, loaded = "prometheus_tsdb_reloads_total", "prometheus_tsdb_reloads_failures_total", "prometheus_tsdb_blocks_loaded"
	err = s.ask(ctx, promapi.MetricsPath, nil, func(b []byte, _ http.Header) error {
		m, err := promapi.Metrics(b, reloads, failures, loaded)
		g = &gauges{m[reloads], m[failures], m[loaded]}
		return err
	})
	return g, err
}

// mostConnections limits how many connections are made to reach one of several servers.
const mostConnections = 30

// identify asks the server for its identity; it is zero if the server does not report
// one.
func (s *server) identify(ctx context.Context) (id promapi.Identity, err error) {
	err = s.ask(ctx, promapi.RuntimePath, nil, func(b []byte, h http.Header) (err error) {
		id, err = promapi.Runtime(b, h)
		return err
	})
	_, other := errors.AsType[*AnswerError](err)
	if other || errors.Is(err, errNotFound) {
		return promapi.Identity{}, nil
	}
	return id, err
}

// holdServer finds the server on the data dir if several answer: the one that serves
// the most of its blocks. A replica may serve some of them as well.
func (p *Prepared) holdServer(ctx context.Context, t *wire.Target) error {
	s := p.server
	var all, fit []promapi.Identity // fit: with the most blocks of the data dir
	most := 0
	for range 6 {
		before, err := s.identify(ctx)
		switch {
		case err != nil:
			return err
		case !before.Known() && len(all) > 0:
			return &ReplicaError{append(all, before), "and which of them is on this data dir is unknown"}
		case !before.Known():
			return nil
		}
		after, err := s.identify(ctx)
		if err != nil {
			return err
		}
		if !before.Same(after) {
			return &ReplicaError{[]promapi.Identity{before, after}, "and requests on one connection reach different ones"}
		}
		if !slices.ContainsFunc(all, before.Same) {
			all = append(all, before)
			blocks, err := s.blocks(ctx)
			if err != nil && !errors.Is(err, errNotFound) {
				return err
			}
			ours := 0
			for _, b := range blocks {
				if slices.ContainsFunc(t.Blocks, func(own wire.TargetBlock) bool { return own.ULID == b.ULID }) {
					ours++
				}
			}
			switch {
			case ours > most:
				most, fit = ours, []promapi.Identity{before}
			case ours == most && ours > 0:
				fit = append(fit, before)
			}
		}
		s.client.CloseIdleConnections()
	}
	switch {
	case len(all) == 1:
		s.first = all[0]
	case len(fit) == 1:
		s.first = fit[0]
		p.notes = append(p.notes, fmt.Sprintf(
			"Several servers answer at the URL to wait for; the one with the blocks of this data dir is asked (%s).", s.first))
	default:
		return &ReplicaError{all, "and which of them is on this data dir is unknown"}
	}
	return s.reach(ctx)
}

// reach makes a connection to the chosen server.
func (s *server) reach(ctx context.Context) error {
	if !s.first.Known() {
		return nil
	}
	var id promapi.Identity
	for range mostConnections {
		var err error
		if id, err = s.identify(ctx); err != nil {
			return err
		}
		if id.Same(s.first) || id.RestartOf(s.first) {
			s.first = id
			return nil
		}
		s.client.CloseIdleConnections()
	}
	return &ReplicaError{[]promapi.Identity{s.first, id}, fmt.Sprintf("and none of %d connections reached the first one", mostConnections)}
}

// reached returns an error if requests since reach may have been answered by another
// server.
func (s *server) reached(ctx context.Context) error {
	if !s.first.Known() {
		return nil
	}
	id, err := s.identify(ctx)
	if err == nil && !id.Same(s.first) {
		s.client.CloseIdleConnections()
		return fmt.Errorf("another server answered (%s)", id)
	}
	return err
}
