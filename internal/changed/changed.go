package changed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/storage"
)

// Span is a range of time that is closed at both ends, in Unix milliseconds.
type Span struct {
	From int64 `json:"from"`
	To   int64 `json:"to"`
}

// Length returns the length of the span in milliseconds.
func (s Span) Length() int64 { return s.To - s.From }

// Data is a storage and the times of its first and last sample, in Unix milliseconds.
type Data struct {
	Queryable storage.Queryable
	MinTime   int64
	MaxTime   int64
	Series    uint64 // an estimate, for progress and memory; 0: unknown
}

// Options of Run.
type Options struct {
	Data   Data
	Window Span

	// Baseline is what the window is compared with. If it is zero, it is the span of
	// equal length that ends where the window begins.
	Baseline Span

	// Before has the baseline, if it is another storage than Data; see Diff.
	Before *Data

	IgnoreLabels []string            // labels that are removed before series are matched
	Match        [][]*labels.Matcher // a series that any of them selects is read; none: all
	Ignore       [][]*labels.Matcher // a series that any of them selects is not read

	Alerts []Alert // alerts that the caller knows of beside the ALERTS series
	Sort   Sort
	Limit  int // rows at most; 0: DefaultLimit

	Workers  int   // default: two, or GOMAXPROCS if that is less
	Memory   int64 // bytes that a run may hold; default 256 MiB
	Progress func(done, total int64)

	// Charge accounts for memory that the run holds, in bytes; it may be nil. An error
	// ends the run.
	Charge func(bytes int64) error
}

// DefaultLimit is the default of Options.Limit.
const DefaultLimit = 20

const defaultMemory = 256 << 20

// Sort is the order of rows.
type Sort string

const (
	ByStrength Sort = "strength" // the strongest change first
	ByStart    Sort = "start"    // the change that began first is first
)

// Alert is an alert that was firing at some time of the window and not in the baseline.
type Alert struct {
	Labels labels.Labels // with alertname
	Began  int64         // Unix milliseconds
	Ended  int64         // 0: it still fires at the end of the window
	Source string        // for the reason, such as the name of a rules file
}

// Result is what changed.
type Result struct {
	Window   Span   `json:"window"`
	Baseline Span   `json:"baseline"`
	StepMs   int64  `json:"stepMs"`  // of the values that were compared
	Days     int    `json:"days"`    // earlier days whose same hours were compared too
	Series   int64  `json:"series"`  // that were read
	Samples  int64  `json:"samples"` // that were read
	Metrics  int    `json:"metrics"` // that were read
	Changed  int64  `json:"changed"` // series that changed more than their own spread
	Rows     []Row  `json:"rows"`    // the first Options.Limit
	LeftOut  int    `json:"leftOut"` // rows beyond the limit
	Notes    []Note `json:"notes"`   // what limits the result
	Order    Sort   `json:"order"`   // of Rows
	TookMs   int64  `json:"tookMs"`  // of the run
	Quiet    bool   `json:"quiet"`   // nothing changed more than its own spread
}

// Note is something about a result that a reader must know.
type Note struct {
	Text string `json:"text"`
}

// Kind is the kind of a change.
type Kind string

const (
	Value    Kind = "value"    // the values of series changed
	Born     Kind = "born"     // series began
	Ended    Kind = "ended"    // series ended
	Replaced Kind = "replaced" // series ended and as many others began
	Flapping Kind = "flapping" // series ended and began again
	Deadline Kind = "deadline" // a time that a gauge names has passed
	Firing   Kind = "alert"    // an alert fired
)

// Row is a group of series of one metric that changed alike. Times are Unix
// milliseconds.
type Row struct {
	Rank      int               `json:"rank"`
	Score     float64           `json:"score"` // from 0 to 1
	Kind      Kind              `json:"kind"`
	Metric    string            `json:"metric"`
	Aspect    Aspect            `json:"aspect,omitempty"` // of the metric that changed
	Labels    map[string]string `json:"labels"`           // that the changed series share and the others lack
	Common    map[string]string `json:"common"`           // that all series of the metric share
	Up        bool              `json:"up"`
	Before    *float64          `json:"before"` // mean over the series; null: none
	After     *float64          `json:"after"`
	Unit      string            `json:"unit,omitempty"`
	Began     int64             `json:"began"`
	Series    int               `json:"series"` // of the group
	Of        int               `json:"of"`     // series of the metric
	Metrics   int               `json:"metrics"`
	Also      []string          `json:"also,omitempty"` // other metrics with the same labels that changed alike
	Reason    string            `json:"reason"`
	Query     string            `json:"query"` // PromQL for a graph
	Queries   []Query           `json:"queries"`
	Spark     []*float64        `json:"spark"`      // over baseline and window; null: no sample
	SparkStep int64             `json:"sparkStep"`  // milliseconds
	SparkFrom []int64           `json:"sparkFrom"`  // first time of the baseline's part and of the window's
	SparkLen  []int             `json:"sparkParts"` // values in each part

	sortKey  float64
	pairs    []string // of Labels, "name\xffvalue", sorted
	strength float64
	family   string
}

// Query is a PromQL query that shows a change.
type Query struct {
	Title string `json:"title"`
	Expr  string `json:"expr"`
}

// WindowError reports a window that the data does not cover.
type WindowError struct{ Window, Data Span }

func (e *WindowError) Error() string {
	return fmt.Sprintf("the window from %s to %s has no samples: the data is from %s to %s",
		stamp(e.Window.From), stamp(e.Window.To), stamp(e.Data.From), stamp(e.Data.To))
}

// BaselineError reports a baseline without data.
type BaselineError struct{ Baseline, Window, Data Span }

func (e *BaselineError) Error() string {
	return fmt.Sprintf("the baseline from %s to %s has no samples: the data is from %s to %s",
		stamp(e.Baseline.From), stamp(e.Baseline.To), stamp(e.Data.From), stamp(e.Data.To))
}

// ErrNothingSelected reports that no series is selected.
var ErrNothingSelected = errors.New("no series is selected")

// ShortError reports a window or a baseline that has too few steps to compare.
type ShortError struct{ Span Span }

func (e *ShortError) Error() string {
	return fmt.Sprintf("the time from %s to %s is too short to compare", stamp(e.Span.From), stamp(e.Span.To))
}

// OverlapError reports a baseline that has a part of the window in it.
type OverlapError struct{ Baseline, Window Span }

func (e *OverlapError) Error() string {
	return fmt.Sprintf("the baseline from %s to %s overlaps the window from %s to %s",
		stamp(e.Baseline.From), stamp(e.Baseline.To), stamp(e.Window.From), stamp(e.Window.To))
}

func stamp(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05Z") }

// Run reads the window and the baseline and ranks what changed. Its errors are
// [WindowError], [BaselineError], [ShortError], [OverlapError], [ErrNothingSelected],
// those of the storage and of the context.
func Run(ctx context.Context, o Options) (*Result, error) {
	began := time.Now()
	if o.Limit <= 0 {
		o.Limit = DefaultLimit
	}
	if o.Memory <= 0 {
		o.Memory = defaultMemory
	}
	if o.Sort == "" {
		o.Sort = ByStrength
	}
	p, notes, err := newPlan(o)
	if err != nil {
		return nil, err
	}
	e := &engine{Options: o, plan: p}
	rows, err := e.run(ctx)
	if err != nil {
		return nil, err
	}
	if e.series.Load() == 0 {
		return nil, ErrNothingSelected
	}
	notes = append(notes, e.notes...)
	r := &Result{
		Window: p.window, Baseline: p.baseline, StepMs: p.step, Days: len(p.days), Series: e.series.Load(),
		Samples: e.samples.Load(), Metrics: e.metrics, Changed: e.changed.Load(), Notes: notes, Order: o.Sort,
	}
	rows = append(rows, alertRows(p, o.Alerts)...)
	r.Rows, r.LeftOut = rank(p, rows, o.Sort, o.Limit)
	r.Quiet = len(r.Rows) == 0
	if r.Notes == nil {
		r.Notes = []Note{}
	}
	r.TookMs = time.Since(began).Milliseconds()
	return r, nil
}
