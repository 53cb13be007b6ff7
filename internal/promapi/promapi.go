// Package promapi parses responses of Prometheus' HTTP API.
//
// A response with status 200 need not be from a Prometheus: it may be the login page of a
// proxy, the JSON of another program, or from a server that implements a part of the API.
// Each function parses the body of a response and returns either all requested fields or a
// [ShapeError]. It never returns zero for a missing field: a response without a list of
// blocks does not mean that the server has no blocks.
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

// Paths of the API, relative to the URL of the server.
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

// ShapeError reports a response that is not that of a Prometheus or lacks a requested field.
type ShapeError struct {
	What string // what the response is, to complete "the answer is …"
}

// Error implements error.
func (e *ShapeError) Error() string { return "the answer is " + e.What }

// shape returns a *ShapeError.
func shape(format string, args ...any) error { return &ShapeError{fmt.Sprintf(format, args...)} }

// Describe describes a body that is not the expected response, to complete "the answer is …".
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
		return "truncated or damaged JSON"
	}
	return "not JSON"
}

// Data returns the field data of a response with the status success.
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
		return nil, shape("%s: no status", Describe(body))
	case len(answer.Data) == 0 || string(answer.Data) == "null":
		return nil, shape("without data")
	}
	return answer.Data, nil
}

// fields returns the data of a response, which must be an object with the named fields.
func fields(body []byte, names ...string) (map[string]json.RawMessage, error) {
	data, err := Data(body)
	if err != nil {
		return nil, err
	}
	return object(data, names...)
}

// object parses an object that must have the named fields.
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

// HeadStats has a server's statistics of its head. The times are Unix milliseconds, inclusive.
type HeadStats struct {
	Series  uint64 `json:"numSeries"`
	Chunks  int64  `json:"chunkCount"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"`
}

// Empty reports whether the head has no samples. MinTime is after MaxTime then.
func (h HeadStats) Empty() bool { return h.Series == 0 || h.MinTime > h.MaxTime }

// Head parses the response of [HeadPath].
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
	err = json.Unmarshal(all["headStats"], &p)
	if err != nil || p.Series == nil || p.MinTime == nil || p.MaxTime == nil {
		return h, shape("without the numbers of headStats")
	}
	return HeadStats{Series: *p.Series, Chunks: p.Chunks, MinTime: *p.MinTime, MaxTime: *p.MaxTime}, nil
}

// Block is a block in a server's list: its meta.json. The times are Unix milliseconds.
type Block struct {
	ULID    string `json:"ulid"`
	MinTime int64  `json:"minTime"`
	MaxTime int64  `json:"maxTime"` // exclusive
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

// Blocks parses the response of [BlocksPath] and returns the blocks sorted by MinTime. A server
// without blocks returns null in place of the list.
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
			return nil, shape("a list with an invalid block: %.100q", b.ULID)
		}
	}
	slices.SortFunc(blocks, func(a, b Block) int { return int(min(max(a.MinTime-b.MinTime, -1), 1)) })
	return blocks, nil
}

// Config has the settings that promdump uses of a server's configuration.
type Config struct {
	ExternalLabels map[string]string // without empty ones; the server adds them to each series of a remote read
	OutOfOrder     time.Duration     // out_of_order_time_window
	BackEnds       int               // number of remote_read sections
	Retention      *Retention        // nil if the configuration has no such section

	// Complete is false for an empty configuration and for that of another program, which
	// lack the global section of every Prometheus. The other fields are unknown then.
	Complete bool
}

// Retention is the retention section of a configuration. The server ignores its retention flags
// if the section exists.
type Retention struct {
	Time       string  `json:"time"`
	Size       string  `json:"size"`
	Percentage float64 `json:"percentage"`
}

// ReadConfig parses the response of [ConfigPath].
func ReadConfig(body []byte) (c Config, err error) {
	all, err := fields(body, "yaml")
	if err != nil {
		return c, err
	}
	var text string
	if err := json.Unmarshal(all["yaml"], &text); err != nil {
		return c, shape("without a configuration")
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
		return c, shape("not a configuration of Prometheus")
	}
	c.Retention = conf.Storage.TSDB.Retention
	if c.Complete = conf.Global != nil; !c.Complete {
		return c, nil
	}
	c.BackEnds, c.Retention = len(conf.RemoteRead), conf.Storage.TSDB.Retention
	c.ExternalLabels = map[string]string{}
	for name, value := range conf.Global.ExternalLabels {
		if value != "" { // an empty value means no label
			c.ExternalLabels[name] = value
		}
	}
	if w := conf.Storage.TSDB.Window; w != "" {
		d, err := model.ParseDuration(w)
		if err != nil {
			return c, shape("a configuration with an invalid out_of_order_time_window %q", w)
		}
		c.OutOfOrder = time.Duration(d)
	}
	return c, nil
}

// Flags parses the response of [FlagsPath]. It returns an error if there are no flags of a TSDB.
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

// List parses a response whose data is a list.
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

// Version parses the response of [BuildPath].
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

// Times parses the response of [QueryPath] to a query whose result is a matrix. It returns the times
// of all samples, in Unix milliseconds, not sorted.
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
