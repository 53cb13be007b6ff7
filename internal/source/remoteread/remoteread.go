// Package remoteread is the source for a running server that speaks Prometheus'
// remote read protocol: Prometheus itself, and others that have it, like Mimir.
// It needs nothing but the server's URL.
//
// The selection goes to the server, one request for each window of two hours, as
// Prometheus' blocks lie. What comes back are the chunks as they are stored, of
// blocks, head and out-of-order head together; the server has cut them to the
// window and left out what was deleted. Each window is kept in a file while it
// comes, and told when all of it is here: so a window that breaks can be asked
// for again, and neither side holds one in memory. A window that is too much for
// the server is asked for in halves, and is one again when it is told.
//
// # What is asked for besides
//
// What the server holds and when, so that years without samples are not asked
// for (/api/v1/status/tsdb and below it), and its external labels
// (/api/v1/status/config): remote read puts them on every series, and here they
// come off again. A series may have such a label of its own, with the same value.
// So those that do are asked for in a query of their own. A server that does not
// tell its external labels keeps them on, with a note.
//
// # The end
//
// The stream of chunks has no end marker. What proves that all of it came:
//
//   - each frame has a length and a checksum; an error text that the server
//     appends to its frames is no frame;
//   - HTTP says itself where a body ends, by its length or its last chunk; a body
//     that just stops where the connection does is not taken for whole;
//   - the last query of each request is for one sample that is known to be there.
//     Servers answer queries in their order, so its answer comes when all others
//     were written. Where none is known, or a server does not number its answers,
//     the first two must do.
//
// # One server
//
// All of a read comes from one process of one server, or is refused ([ReplicaError],
// [LabelsError]); session.go says how. An answer of success without the requested data
// is no information: what it lacks is unknown, and never zero ([AnswerError] for a
// remote read, [UnknownError] for an inventory).
//
// What is not promised: that replicas are distinguished if they do not identify
// themselves and add the same external labels; that all windows show one moment; or
// that a server which gave up within a query says so. Prometheus answers with what it
// has got when a remote_read back end of its own fails, and tells its log alone; then
// we say that there are such back ends. Whether two series that differ just in a label
// with an empty value were meant is not known either: an empty label is none.
package remoteread

import (
	"context"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/promdump/promdump/internal/wire"
)

// DefaultConcurrency is how many windows are asked for at a time. A Prometheus
// answers ten remote reads at a time, whoever asks.
const DefaultConcurrency = 2

// Options of a Source.
type Options struct {
	URL *url.URL // of the server, with its path prefix; see ParseURL

	// Client has credentials and TLS; nil: neither. It must not have a timeout: an
	// answer may take its time as long as it moves.
	Client *http.Client

	// NewClient makes such a client with connections of its own: several servers may
	// answer at the URL, and a connection reaches one of them. Nil: Client is copied,
	// which gives its own connections to one whose Transport is an *http.Transport.
	NewClient func() (*http.Client, error)

	Name        string // names the source for a person; empty: the URL
	Staging     string // an existing directory for windows on their way; empty: the system's
	Concurrency int    // windows at a time; 0: DefaultConcurrency

	// Gentle pauses between two windows for as long as the one before took, and makes
	// Concurrency 1 where it is 0.
	Gentle bool

	// KeepExternalLabels leaves the server's external labels on the series.
	KeepExternalLabels bool

	// Note tells a person what is not as it should be, while it happens.
	Note   func(string)
	Logger *slog.Logger

	times times // tests wait less
}

// times are how long is waited for what, and how far windows are halved.
type times struct {
	stall  time.Duration   // an answer without a byte for so long is too much for the server
	floor  time.Duration   // a window of this length is not halved
	sample time.Duration   // a window of a server without chunks begins with this length
	pause  []time.Duration // before the next try; after all of them we give up
}

var usual = times{
	stall:  2 * time.Minute,
	floor:  time.Minute,
	sample: 30 * time.Minute,
	pause:  []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 15 * time.Second, 15 * time.Second},
}

// Source is a running server.
type Source struct {
	o   Options
	met atomic.Bool // the server has answered something
}

// New makes a source. Nothing is done until it is read.
func New(o Options) *Source {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	if o.Concurrency <= 0 && o.Gentle {
		o.Concurrency = 1
	}
	if o.Concurrency <= 0 {
		o.Concurrency = DefaultConcurrency
	}
	if o.times.stall == 0 {
		o.times = usual
	}
	return &Source{o: o}
}

// ParseURL reads the address of a server. People have the one of its remote read
// API at hand, too.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil && strings.Contains(text, "://") {
		return nil, errors.New("not a URL") // url.Parse's own error would repeat a password in it
	}
	switch {
	case err != nil, u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, errors.New("not the URL of a server: it begins with http:// or https://, and has a host")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the URL of a server has no ? and no #")
	}
	u.Path = strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/api/v1/read")
	u.RawPath = ""
	return u, nil
}

// String names the server, without credentials.
func (s *Source) String() string {
	if s.o.Name != "" {
		return s.o.Name
	}
	u := *s.o.URL
	u.User = nil
	return u.String()
}

// Inventory implements source.Source. What a server does not tell is marked as
// not known.
func (s *Source) Inventory(ctx context.Context) (*wire.Inventory, error) {
	_, k, done, err := s.begin(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	return k.inventory()
}

// begin finds out which server answers, and what it says about itself. The caller
// calls done at the end.
func (s *Source) begin(ctx context.Context) (p *pool, k *known, done func(), err error) {
	if p, err = s.newPool(); err != nil {
		return nil, nil, nil, err
	}
	if err = p.begin(ctx); err == nil {
		err = p.with(ctx, "ask the server about itself", func(se *session) (err error) {
			k, err = se.know(ctx)
			return err
		})
	}
	if err != nil {
		p.close()
		return nil, nil, nil, err
	}
	return p, k, p.close, nil
}

// Read implements source.Source. Blocks as they are, a raw head and a dump
// without the head are refused: a server tells samples, not where it has them.
func (s *Source) Read(ctx context.Context, req wire.Request) iter.Seq2[wire.Message, error] {
	return func(yield func(wire.Message, error) bool) {
		if err := s.read(ctx, req, yield); err != nil && !errors.Is(err, errLeft) {
			yield(nil, err)
		}
	}
}

// errLeft: who asked does not want more.
var errLeft = errors.New("left")

// drain reads a short rest, so that the connection can be used again.
func drain(body io.Reader) { _, _ = io.CopyN(io.Discard, body, 64<<10) }
