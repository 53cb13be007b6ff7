// Package promapi reads answers of Prometheus' HTTP API.
//
// Not only a Prometheus answers 200 at a URL: so may a proxy with its login page,
// another program with its own JSON, or a server that implements half of the API. Each
// function here parses the body of an answer and returns either all requested fields or
// a [ShapeError]. A missing field is never taken for zero: an answer without a list of
// blocks does not mean that there are none.
package promapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/prometheus/common/model"
	"sigs.k8s.io/yaml"
)

// The parts of the API, below the URL of the server.
const (
	ReadPath    = "/api/v1/read"
	HeadPath    = "/api/v1/status/tsdb"
	BlocksPath  = "/api/v1/status/tsdb/blocks"
	ConfigPath  = "/api/v1/status/config"
	FlagsPath   = "/api/v1/status/flags"
	RuntimePath = "/api/v1/status/runtimeinfo"
	BuildPath   = "/api/v1/status/buildinfo"
	SeriesPath  = "/api/v1/series"
	QueryPath   = "/api/v1/query"
	MetricsPath = "/metrics"
)

// ShapeError reports an answer that lacks the requested fields.
type ShapeError struct{ What string }

func (e *ShapeError) Error() string { return "the answer is " + e.What }

func shape(format string, args ...any) error { return &ShapeError{fmt.Sprintf(format, args...)} }

// Describe returns a description of a body that is not the expected answer.
func Describe(body []byte) string {
	text := bytes.TrimSpace(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")))
	switch {
	case len(text) == 0:
		return "empty"
	case text[0] == '<':
		return "an HTML page"
	case json.Valid(text):
		return "JSON without the expected fields"
	case text[0] == '{' || text[0] == '[':
		return "JSON that is cut or damaged"
	}
	return "neither JSON nor anything that this API returns"
}

// Data returns the data of an answer.
func Data(body []byte) (json.RawMessage, error) {
	var answer struct {
		Status string          `json:"status"`
		Error  string          `json:"error"`
		Data   json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, shape("%s", Describe(body))
	}
	switch {
	case answer.Status == "error" && answer.Error != "":
		return nil, shape("the error %q", answer.Error)
	case answer.Status != "success":
		return nil, shape("%s: it has no status", Describe(body))
	case len(answer.Data) == 0 || string(answer.Data) == "null":
		return nil, shape("without data")
	}
	return answer.Data, nil
}

// fields parses the data of an answer as an object. It is an error if one of the names
// is missing.
func fields(body []byte, names ...string) (map[string]json.RawMessage, error) {
	data, err := Data(body)
	if err != nil {
		return nil, err
	}
	return object(data, names...)
}

func object(data []byte, names ...string) (map[string]json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil || all == nil {
		return nil, shape("JSON without the expected fields")
	}
	for _, name := range names {
		if _, ok := all[name]; !ok {
			return nil, shape("without %s", name)
		}
	}
	return all, nil
}

// HeadStats is what a server reports about its head.
type HeadStats struct {
	Series  uint64 `json:"numSeries"`
	Chunks  int64  `json:"chunkCount"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"` // included
}

// Empty reports whether there are no samples. Prometheus says so by a first time
// that comes after the last.
func (h HeadStats) Empty() bool { return h.Series == 0 || h.MinTime > h.MaxTime }

// Head reads the answer of [HeadPath].
func Head(body []byte) (h HeadStats, err error) {
	all, err := fields(body, "headStats")
	if err != nil {
		return h, err
	}
	if _, err := object(all["headStats"], "numSeries", "minTime", "maxTime"); err != nil {
		return h, err
	}
	var p struct {
		Series           *uint64 `json:"numSeries"`
		Chunks           int64   `json:"chunkCount"`
		MinTime, MaxTime *int64
	}
	if err := json.Unmarshal(all["headStats"], &p); err != nil || p.Series == nil || p.MinTime == nil || p.MaxTime == nil {
		return h, shape("without the numbers of headStats")
	}
	return HeadStats{Series: *p.Series, Chunks: p.Chunks, MinTime: *p.MinTime, MaxTime: *p.MaxTime}, nil
}

// Block is a block as a server lists it: its meta.json.
type Block struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"` // excluded
	Stats   struct {
		Samples    uint64 `json:"numSamples"`
		Series     uint64 `json:"numSeries"`
		Chunks     uint64 `json:"numChunks"`
		Tombstones uint64 `json:"numTombstones"`
	} `json:"stats"`
	Compaction struct {
		Level   int      `json:"level"`
		Sources []string `json:"sources"`
		Hints   []string `json:"hints"`
		Parents []struct {
			ULID string `json:"ulid"`
		} `json:"parents"`
	} `json:"compaction"`
}

// Blocks reads the answer of [BlocksPath], sorted by time. A server without blocks
// answers null.
func Blocks(body []byte) ([]Block, error) {
	all, err := fields(body, "blocks")
	if err != nil {
		return nil, err
	}
	blocks := []Block{}
	if err := json.Unmarshal(all["blocks"], &blocks); err != nil {
		return nil, shape("without a list of blocks")
	}
	for _, b := range blocks {
		if _, err := ulid.ParseStrict(b.ULID); err != nil || b.MinTime > b.MaxTime {
			return nil, shape("a list with something that is not a block: %.100q", b.ULID)
		}
	}
	slices.SortFunc(blocks, func(a, b Block) int { return int(min(max(a.MinTime-b.MinTime, -1), 1)) })
	return blocks, nil
}

// Config has the settings that promdump needs of a server's config.
type Config struct {
	ExternalLabels map[string]string // put on each series of a remote read
	OutOfOrder     time.Duration     // how far back samples may come late
	BackEnds       int               // remote_read sections
	Retention      *Retention        // nil: the config has no such section

	// Complete is false for an empty text or that of another program: every Prometheus
	// writes its global section. If it is false, the fields above are unknown.
	Complete bool
}

// Retention is a section of a config. If it exists, the retention flags do not apply.
type Retention struct {
	Time       string  `json:"time"`
	Size       string  `json:"size"`
	Percentage float64 `json:"percentage"`
}

// ReadConfig reads the answer of [ConfigPath].
func ReadConfig(body []byte) (c Config, err error) {
	all, err := fields(body, "yaml")
	if err != nil {
		return c, err
	}
	var text string
	if err := json.Unmarshal(all["yaml"], &text); err != nil {
		return c, shape("without the text of a config")
	}
	var conf struct {
		Global *struct {
			ExternalLabels map[string]string `json:"external_labels"`
		} `json:"global"`
		RemoteRead []any `json:"remote_read"`
		Storage    struct {
			TSDB struct {
				Window    string     `json:"out_of_order_time_window"`
				Retention *Retention `json:"retention"`
			} `json:"tsdb"`
		} `json:"storage"`
	}
	if err := yaml.Unmarshal([]byte(text), &conf); err != nil {
		return c, shape("a config that is not Prometheus'")
	}
	c.Retention = conf.Storage.TSDB.Retention
	if c.Complete = conf.Global != nil; !c.Complete {
		return c, nil
	}
	c.BackEnds, c.Retention = len(conf.RemoteRead), conf.Storage.TSDB.Retention
	c.ExternalLabels = map[string]string{}
	for name, value := range conf.Global.ExternalLabels {
		if value != "" { // the same as no label
			c.ExternalLabels[name] = value
		}
	}
	if w := conf.Storage.TSDB.Window; w != "" {
		d, err := model.ParseDuration(w)
		if err != nil {
			return c, shape("a config with out_of_order_time_window %q", w)
		}
		c.OutOfOrder = time.Duration(d)
	}
	return c, nil
}

// Flags reads the answer of [FlagsPath]. A Prometheus with a TSDB has flags for it.
func Flags(body []byte) (map[string]string, error) {
	data, err := Data(body)
	if err != nil {
		return nil, err
	}
	var flags map[string]string
	if err := json.Unmarshal(data, &flags); err != nil {
		return nil, shape("JSON without the expected fields")
	}
	for name := range flags {
		if strings.HasPrefix(name, "storage.tsdb.") {
			return flags, nil
		}
	}
	return nil, shape("without the flags of a TSDB")
}

// List reads an answer whose data is a list.
func List(body []byte) ([]json.RawMessage, error) {
	data, err := Data(body)
	if err != nil {
		return nil, err
	}
	var list []json.RawMessage
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, shape("JSON without the expected fields")
	}
	return list, nil
}

// Version reads the answer of [BuildPath].
func Version(body []byte) (string, error) {
	all, err := fields(body, "version")
	if err != nil {
		return "", err
	}
	var version string
	if err := json.Unmarshal(all["version"], &version); err != nil {
		return "", shape("without a version")
	}
	return version, nil
}

// Times reads the answer of [QueryPath] to a query whose result is a matrix, and
// returns the times of all samples, in Unix milliseconds.
func Times(body []byte) (times []int64, err error) {
	all, err := fields(body, "resultType", "result")
	if err != nil {
		return nil, err
	}
	var series []struct {
		Values, Histograms []json.RawMessage
	}
	if err := json.Unmarshal(all["result"], &series); err != nil {
		return nil, shape("without a matrix")
	}
	for _, s := range series {
		for _, pair := range append(s.Values, s.Histograms...) {
			var p []json.RawMessage
			var at model.Time
			if json.Unmarshal(pair, &p) != nil || len(p) != 2 || json.Unmarshal(p[0], &at) != nil {
				return nil, shape("a matrix without samples")
			}
			times = append(times, int64(at))
		}
	}
	return times, nil
}
