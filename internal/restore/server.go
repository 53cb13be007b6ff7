package restore

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"
)

// server is the Prometheus on the target's data dir.
type server struct {
	base   *url.URL
	client *http.Client
	every  time.Duration // between two looks
}

// errNotFound is what an older server says to an endpoint that it does not have.
var errNotFound = errors.New("not found")

// AskError says that a server is there, and not to be asked like this: by this
// scheme, by nobody in particular, with this certificate. No waiting mends it.
type AskError struct{ Err error }

func (e *AskError) Error() string { return e.Err.Error() }
func (e *AskError) Unwrap() error { return e.Err }

// newServer asks by a client; nil: as anybody.
func newServer(base string, client *http.Client) (*server, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, errors.New("not a URL") // url.Parse's own error would repeat a password in it
	}
	if u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("%q is not the URL of a server", u.Redacted())
	}
	c := http.Client{}
	if client != nil {
		c = *client
	}
	c.Timeout = 30 * time.Second
	// Whoever answers must not send us, and who we are, elsewhere.
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &server{base: u, client: &c, every: 2 * time.Second}, nil
}

func (s *server) get(ctx context.Context, path string) ([]byte, error) {
	u := *s.base
	u.Path = joinPath(u.Path, path)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.client.Do(req)
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	switch {
	case certificate, errors.Is(err, http.ErrSchemeMismatch):
		return nil, &AskError{err}
	case err != nil:
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s: %w", u.Redacted(), errNotFound)
	case slices.Contains([]int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden}, resp.StatusCode):
		return nil, &AskError{fmt.Errorf("%s: %s: %.100s", u.Redacted(), resp.Status, bytes.TrimSpace(body))}
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", u.Redacted(), resp.Status)
	}
	return body, err
}

// api reads the data of an answer of Prometheus' HTTP API.
func (s *server) api(ctx context.Context, path string, data any) error {
	body, err := s.get(ctx, path)
	if err != nil {
		return err
	}
	answer := struct {
		Status string `json:"status"`
		Error  string `json:"error"`
		Data   any    `json:"data"`
	}{Data: data}
	if err := json.Unmarshal(body, &answer); err != nil {
		return fmt.Errorf("%s does not answer like a Prometheus: %w", path, err)
	}
	if answer.Status != "success" {
		return fmt.Errorf("%s: %s", path, cmp.Or(answer.Error, "status "+answer.Status))
	}
	return nil
}

// askServer learns the retention and that the server can be reached at all,
// before anything is written.
func (p *Plan) askServer(ctx context.Context) error {
	s, err := newServer(p.spec.WaitURL, p.spec.Client)
	if err != nil {
		return fmt.Errorf("the server to wait for: %w", err)
	}
	p.server = s
	r, err := s.retention(ctx)
	if err != nil {
		return fmt.Errorf("ask the server for its retention: %w", err)
	}
	if p.spec.Retention != 0 {
		r.Time, r.From = p.Target.Retention.Time, p.Target.Retention.From
	}
	p.Target.Retention = r

	// What follows is good to know, and no reason to stop.
	var build struct {
		Version string `json:"version"`
	}
	if err := s.api(ctx, "/api/v1/status/buildinfo", &build); err == nil {
		p.Target.Version = build.Version
	}
	var tsdb struct {
		Head struct {
			NumSeries uint64 `json:"numSeries"`
			MaxTime   int64  `json:"maxTime"`
		} `json:"headStats"`
	}
	if err := s.api(ctx, "/api/v1/status/tsdb", &tsdb); err == nil && tsdb.Head.NumSeries > 0 && tsdb.Head.MaxTime > 0 {
		p.Target.HeadTime = ms(tsdb.Head.MaxTime)
	}
	return nil
}

// retention reads it where this server has it. A section in the config file wins
// as a whole: without a time in it nothing is deleted by its age, whatever the
// flags say.
func (s *server) retention(ctx context.Context) (Retention, error) {
	r := Retention{From: "the server's flags"}
	var flags map[string]string
	if err := s.api(ctx, "/api/v1/status/flags", &flags); err != nil {
		return r, err
	}
	size := flags["storage.tsdb.retention.size"]
	if !isZero(size) {
		r.Size = size
	}
	for _, flag := range []string{"storage.tsdb.retention.time", "storage.tsdb.retention"} {
		if text := flags[flag]; !isZero(text) {
			d, err := model.ParseDuration(text)
			if err != nil {
				return r, fmt.Errorf("flag %s: %w", flag, err)
			}
			r.Time = time.Duration(d)
			break
		}
	}
	if r.Time == 0 && r.Size == "" {
		r.Time = defaultRetention
	}

	var text struct {
		YAML string `json:"yaml"`
	}
	if err := s.api(ctx, "/api/v1/status/config", &text); err != nil {
		return r, err
	}
	var config struct {
		Storage struct {
			TSDB struct {
				Retention *struct {
					Time       string  `json:"time"`
					Size       string  `json:"size"`
					Percentage float64 `json:"percentage"`
				} `json:"retention"`
			} `json:"tsdb"`
		} `json:"storage"`
	}
	if err := yaml.Unmarshal([]byte(text.YAML), &config); err != nil {
		return r, fmt.Errorf("read the server's config: %w", err)
	}
	if c := config.Storage.TSDB.Retention; c != nil {
		r = Retention{From: "the server's config"}
		if !isZero(c.Time) {
			d, err := model.ParseDuration(c.Time)
			if err != nil {
				return r, fmt.Errorf("retention in the server's config: %w", err)
			}
			r.Time = time.Duration(d)
		}
		if !isZero(c.Size) {
			r.Size = c.Size
		}
		if c.Percentage > 0 {
			r.Size = fmt.Sprintf("%g%% of the disk", c.Percentage)
		}
	}
	return r, nil
}

// isZero tells whether a flag or field is unset: "", "0s", "0B", "0".
func isZero(text string) bool { return !strings.ContainsAny(text, "123456789") }

// wait looks at the server until it serves the plan's blocks.
func (p *Plan) wait(ctx context.Context) error {
	want := map[string]bool{}
	for _, b := range p.Blocks {
		if b.Action == Add || p.Target.block(b.ULID) != nil {
			want[b.ULID] = true
		}
	}
	return p.server.wait(ctx, want, p.spec.WaitTimeout, p.progress)
}

// WaitServed waits until the server at a URL, which is asked by the client, serves
// the blocks, at most timeout (0: three minutes).
func WaitServed(ctx context.Context, client *http.Client, url string, ulids []string, timeout time.Duration) error {
	s, err := newServer(url, client)
	if err != nil {
		return fmt.Errorf("the server to wait for: %w", err)
	}
	want := map[string]bool{}
	for _, id := range ulids {
		want[id] = true
	}
	return s.wait(ctx, want, timeout, func(Progress) {})
}

// AskReplaced asks the server at a URL, which answers by now or it is an error,
// which of these blocks it serves and how many series its head has.
func AskReplaced(ctx context.Context, client *http.Client, url string, ulids []string) (served []string, series uint64, err error) {
	s, err := newServer(url, client)
	if err != nil {
		return nil, 0, err
	}
	want := map[string]bool{}
	for _, id := range ulids {
		want[id] = true
	}
	var tsdb struct {
		Head struct {
			NumSeries uint64 `json:"numSeries"`
		} `json:"headStats"`
	}
	if err := s.api(ctx, "/api/v1/status/tsdb", &tsdb); err != nil {
		return nil, 0, err
	}
	left, err := s.missing(ctx, want)
	if errors.Is(err, errNotFound) {
		return nil, tsdb.Head.NumSeries, nil // an older server does not list them
	}
	for _, id := range left {
		delete(want, id)
	}
	return slices.Sorted(maps.Keys(want)), tsdb.Head.NumSeries, err
}

// AskRetention asks the server at a URL for how long it keeps its data; negative:
// it deletes nothing by its age.
func AskRetention(ctx context.Context, client *http.Client, url string) (time.Duration, error) {
	s, err := newServer(url, client)
	if err != nil {
		return 0, err
	}
	r, err := s.retention(ctx)
	if err == nil && r.Time == 0 {
		r.Time = -1
	}
	return r.Time, err
}

func (s *server) wait(ctx context.Context, want map[string]bool, timeout time.Duration, progress func(Progress)) error {
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(timeout, 3*time.Minute))
	defer cancel()
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	var first *gauges
	seen, total := "nothing yet", int64(len(want))
	for {
		left, err := s.missing(ctx, want)
		_, refused := errors.AsType[*AskError](err)
		switch {
		case err == nil && len(left) == 0:
			return nil
		case refused:
			return fmt.Errorf("whether the server serves the blocks is not known: %w", err)
		case err == nil:
			seen = fmt.Sprintf("it serves %d of %d blocks; missing: %s", len(want)-len(left), len(want), some(left))
			progress(Progress{Step: Wait, Done: total - int64(len(left)), Total: total})
		case errors.Is(err, errNotFound):
			now, err := s.gauges(ctx)
			if err == nil {
				if first == nil {
					first = now
				}
				if now.reloads >= first.reloads+2 && now.failures == first.failures {
					return nil
				}
				seen = fmt.Sprintf("it has looked for blocks %g times since, %g times in vain, and has %g loaded",
					now.reloads-first.reloads, now.failures-first.failures, now.loaded)
				progress(Progress{Step: Wait, Total: total})
				break
			}
			seen = err.Error()
		case ctx.Err() == nil:
			seen = err.Error()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the server does not serve all blocks yet: %s: %w", seen, context.Cause(ctx))
		case <-tick.C:
		}
	}
}

// missing tells which blocks the server does not serve (Prometheus 3.6 and
// later). One that was compacted already is served by its child.
func (s *server) missing(ctx context.Context, want map[string]bool) ([]string, error) {
	var list struct {
		Blocks []meta `json:"blocks"`
	}
	if err := s.api(ctx, "/api/v1/status/tsdb/blocks", &list); err != nil {
		return nil, err
	}
	left := maps.Clone(want)
	for _, b := range list.Blocks {
		delete(left, b.ULID)
		for _, parent := range b.Compaction.Parents {
			delete(left, parent.ULID)
		}
	}
	return slices.Sorted(maps.Keys(left)), nil
}

// gauges are the next best: a server that has looked for blocks twice without a
// failure (a look may have begun before the last block was there) has them all.
type gauges struct{ reloads, failures, loaded float64 }

func (s *server) gauges(ctx context.Context) (*gauges, error) {
	body, err := s.get(ctx, "/metrics")
	if err != nil {
		return nil, err
	}
	g := new(gauges)
	names := map[string]*float64{
		"prometheus_tsdb_reloads_total":          &g.reloads,
		"prometheus_tsdb_reloads_failures_total": &g.failures,
		"prometheus_tsdb_blocks_loaded":          &g.loaded,
	}
	found := 0
	lines := bufio.NewScanner(strings.NewReader(string(body)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, ok := strings.Cut(lines.Text(), " ")
		if v := names[name]; ok && v != nil {
			if *v, err = strconv.ParseFloat(value, 64); err != nil {
				return nil, fmt.Errorf("read metric %s: %w", name, err)
			}
			found++
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if found < len(names) {
		return nil, errors.New("the server neither lists its blocks nor tells of them in /metrics")
	}
	return g, nil
}
