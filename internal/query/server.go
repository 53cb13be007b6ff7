package query

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	grafana "github.com/grafana/regexp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/route"
	"github.com/prometheus/prometheus/config"
	"github.com/prometheus/prometheus/model/exemplar"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/rules"
	"github.com/prometheus/prometheus/scrape"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/util/notifications"
	v1 "github.com/prometheus/prometheus/web/api/v1"

	"github.com/promdump/promdump/internal/view"
)

// PrometheusVersion is the version of the Prometheus packages that the server uses.
// Grafana chooses its requests by it.
const PrometheusVersion = "3.15.0"

// ServerConfig configures a [Server].
type ServerConfig struct {
	View    *view.View
	Limits  Limits
	Version string // of this program

	// Addr is the address that the server listens on. Hosts are the host names that
	// requests may use in addition to those of the machine.
	Addr  string
	Hosts []string

	Page   http.Handler // serves all paths that are not of the API; nil: a line of text
	Rules  *Rules       // evaluated for /api/promdump/v1/alerts; nil: none
	Logger *slog.Logger
	Now    func() time.Time

	// Explain returns the text of a limit's error for the client; if nil, the error's
	// own text is used. The caller sets it because only the caller has options that
	// raise a limit.
	Explain func(error) string
}

// Server serves the Prometheus HTTP API over a view.
type Server struct {
	config  ServerConfig
	engine  *Engine
	meter   *meter
	card    *cardinality
	codec   *codec
	handler http.Handler

	described   sync.Once
	description *v1.OpenAPIBuilder
}

// NewServer returns a server. The caller must close it before the view.
func NewServer(c ServerConfig) *Server {
	c.Limits = c.Limits.withDefaults()
	c.View.Held = held
	reg := prometheus.NewRegistry()
	s := &Server{
		config: c, engine: newEngine(c.Limits, newBudget(c.Limits, false), c.Logger, reg), meter: &meter{view: c.View}, codec: &codec{},
		card: newCardinality(c.View),
	}
	chunks := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "prometheus_tsdb_head_chunks", Help: "Chunks of all blocks; status/tsdb reads this metric.",
	})
	for _, d := range c.View.Dumps {
		for _, b := range d.Blocks {
			chunks.Add(float64(b.Meta().Stats.NumChunks))
		}
	}
	reg.MustRegister(chunks)

	router := route.New()
	api := s.api(reg)
	api.ClearCodecs()
	api.InstallCodec(s.codec)
	api.Register(router)
	mux := http.NewServeMux()
	mux.Handle("/api/v1/", http.StripPrefix("/api/v1", s.admit(s.count(s.atTheEnd(router)))))
	mux.Handle("GET /api/v1/openapi.yaml", s.admit(http.HandlerFunc(s.openAPI)))
	mux.Handle("GET /api/promdump/v1/dumps", s.admit(http.HandlerFunc(s.dumps)))
	alerts := s.admit(http.HandlerFunc(s.alerts))
	alerts.endless = true // evaluating all rules over a dump takes longer than a query
	mux.Handle("GET /api/promdump/v1/alerts", alerts)
	mux.HandleFunc("GET /-/ready", text("Prometheus Server is Ready.\n"))
	mux.HandleFunc("GET /-/healthy", text("Prometheus Server is Healthy.\n"))
	mux.Handle("GET /federate", s.admit(http.HandlerFunc(s.federate)))
	page := c.Page
	if page == nil {
		page = text("promdump serves the Prometheus HTTP API below /api/v1/\n")
	}
	mux.Handle("/", page)
	s.handler = newGuard(c.Addr, c.Hosts, mux)
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) { s.handler.ServeHTTP(w, r) }

// Close waits for running queries.
func (s *Server) Close() error { return s.engine.Close() }

func (s *Server) explain(err error) string {
	if s.config.Explain == nil {
		return err.Error()
	}
	return s.config.Explain(err)
}

// count computes the answer of status/tsdb while the request lasts: the API's own call
// has no context.
func (s *Server) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/status/tsdb" {
			if err := s.card.count(r.Context(), s.meter); err != nil {
				accountOf(r.Context()).fail(err)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// now returns the end of the dump, the time of its last sample. Queries without a time are
// evaluated there.
func (s *Server) now() time.Time {
	if s.config.View.Empty() {
		return s.config.Now()
	}
	return time.UnixMilli(s.config.View.MaxTime)
}

// atTheEnd sets the time of an instant query without one to the end of the dump. A
// Prometheus uses the current time, at which a dump has no samples.
func (s *Server) atTheEnd(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/query" && r.FormValue("time") == "" {
			r.Form.Set("time", strconv.FormatFloat(float64(s.now().UnixMilli())/1000, 'f', 3, 64))
		}
		next.ServeHTTP(w, r)
	})
}

func text(s string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(s)) // an error means that the client has disconnected
	}
}

// api returns Prometheus' API with nothing to scrape, alert or write.
func (s *Server) api(reg *prometheus.Registry) *v1.API {
	c := s.config
	cfg := config.DefaultConfig
	flags := map[string]string{
		"web.listen-address": c.Addr, "query.lookback-delta": c.Limits.Lookback.String(), "query.timeout": c.Limits.Timeout.String(),
		"query.max-samples": strconv.Itoa(c.Limits.Samples), "query.max-concurrency": strconv.Itoa(c.Limits.Concurrency),
	}
	none := &nothing{rules: c.Rules}
	born := c.Now()
	return v1.NewAPI(s.engine, s.meter, nil, nil, none,
		func(context.Context) v1.ScrapePoolsRetriever { return none },
		func(context.Context) v1.TargetRetriever { return none },
		func(context.Context) v1.AlertmanagerRetriever { return none },
		func() config.Config { return cfg }, flags,
		v1.GlobalURLOptions{ListenAddress: c.Addr, Host: c.Addr, Scheme: "http"},
		func(f http.HandlerFunc) http.HandlerFunc { return f },
		&admin{view: c.View, card: s.card}, "", false, false, 0, c.Logger,
		func(context.Context) v1.RulesRetriever { return none },
		c.Limits.Samples, c.Limits.Concurrency+1, 1<<20, false,
		grafana.MustCompile("$.^"), // no other origin is allowed: see guard
		func() (v1.RuntimeInfo, error) { return runtimeInfo(born, c.Now()), nil },
		&v1.PrometheusVersion{Version: PrometheusVersion, Revision: c.Version, Branch: "promdump", GoVersion: runtime.Version()},
		func() []notifications.Notification { return nil },
		func() (<-chan notifications.Notification, func(), bool) { return nil, nil, false },
		reg, reg, nil, false, nil, false, false, false, false, c.Limits.Lookback, false, false, nil, nil,
		// The API renders its description at the start, which would take most of it.
		v1.OpenAPIOptions{IncludePaths: []string{"none: see openAPI"}}, NewParser())
}

// openAPI serves the description of the API, which the first request renders.
func (s *Server) openAPI(w http.ResponseWriter, r *http.Request) {
	s.described.Do(func() {
		s.description = v1.NewOpenAPIBuilder(v1.OpenAPIOptions{ExternalURL: "http://" + s.config.Addr, Version: PrometheusVersion}, s.config.Logger)
	})
	s.description.ServeOpenAPI(w, r)
}

func runtimeInfo(born, now time.Time) v1.RuntimeInfo {
	host, _ := os.Hostname()
	return v1.RuntimeInfo{
		StartTime: born, ServerTime: now, Hostname: host, ReloadConfigSuccess: true, LastConfigTime: born,
		GoroutineCount: runtime.NumGoroutine(), GOMAXPROCS: runtime.GOMAXPROCS(0), GOMEMLIMIT: debug.SetMemoryLimit(-1),
	}
}

// nothing implements the parts of a Prometheus that a dump does not have.
type nothing struct{ rules *Rules }

func (*nothing) ScrapePools() []string                       { return []string{} }
func (*nothing) TargetsActive() map[string][]*scrape.Target  { return map[string][]*scrape.Target{} }
func (*nothing) TargetsDropped() map[string][]*scrape.Target { return map[string][]*scrape.Target{} }
func (*nothing) TargetsDroppedCounts() map[string]int        { return map[string]int{} }
func (*nothing) ScrapePoolConfig(string) (*config.ScrapeConfig, error) {
	return nil, errReadOnly
}
func (*nothing) Alertmanagers() []*url.URL        { return nil }
func (*nothing) DroppedAlertmanagers() []*url.URL { return nil }

func (n *nothing) RuleGroups() []*rules.Group           { return nil }
func (n *nothing) AlertingRules() []*rules.AlertingRule { return nil }

func (*nothing) ExemplarQuerier(context.Context) (storage.ExemplarQuerier, error) {
	return &nothing{}, nil
}

func (*nothing) Select(int64, int64, ...[]*labels.Matcher) ([]exemplar.QueryResult, error) {
	return []exemplar.QueryResult{}, nil
}
