package promapi

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Identity identifies one process of a server. Replicas behind one URL may have the
// same config, the same external labels, even the same samples.
type Identity struct {
	Start    time.Time // of the process; zero: the server did not report it, and the identity is unknown
	Hostname string    // empty: unknown, as from an older Prometheus
	Dir      string    // working directory; empty: unknown

	// Seen is when the process last answered, by its own clock.
	Seen time.Time
}

// Known reports whether the server identified itself.
func (id Identity) Known() bool { return !id.Start.IsZero() }

// Same reports whether both are the same process.
func (id Identity) Same(other Identity) bool {
	return id.Known() && id.Start.Equal(other.Start) && id.Hostname == other.Hostname && id.Dir == other.Dir
}

// RestartOf reports whether id may be the next process of the server that old was:
// on the same host, begun after old was last seen. Another replica began before.
func (id Identity) RestartOf(old Identity) bool {
	return id.Known() && old.Known() && id.Hostname == old.Hostname && id.Dir == old.Dir && id.Start.After(old.Seen)
}

// String formats the process for messages.
func (id Identity) String() string {
	if !id.Known() {
		return "a server that does not say when it was started"
	}
	return fmt.Sprintf("%s, started %s", cmp.Or(id.Hostname, "a server"),
		id.Start.UTC().Format("2006-01-02T15:04:05.999Z07:00"))
}

// Runtime reads the answer of [RuntimePath], which Prometheus has since 2.14.
func Runtime(body []byte, header http.Header) (id Identity, err error) {
	all, err := fields(body, "startTime")
	if err != nil {
		return id, err
	}
	get := func(name string, to any) error {
		if text, ok := all[name]; ok && json.Unmarshal(text, to) != nil {
			return shape("with %s %.50s", name, text)
		}
		return nil
	}
	var seen time.Time
	for name, to := range map[string]any{"startTime": &id.Start, "hostname": &id.Hostname, "CWD": &id.Dir, "serverTime": &seen} {
		if err := get(name, to); err != nil {
			return Identity{}, err
		}
	}
	if !id.Known() {
		return Identity{}, shape("without startTime")
	}
	id.Seen = seenAt(seen, header)
	return id, nil
}

// seenAt returns the time of the server: from the answer, else from the header, which
// has whole seconds.
func seenAt(said time.Time, header http.Header) time.Time {
	if !said.IsZero() {
		return said
	}
	if at, err := http.ParseTime(header.Get("Date")); err == nil {
		return at
	}
	return time.Now()
}

// MetricsIdentity reads the answer of [MetricsPath]. Metrics without those of a TSDB,
// like a gateway's in front of many servers, are refused.
func MetricsIdentity(body []byte, header http.Header) (id Identity, err error) {
	const start, tsdb = "process_start_time_seconds", "prometheus_tsdb_head_series"
	m, err := Metrics(body, start, tsdb)
	if err != nil {
		return id, err
	}
	id.Start = time.UnixMilli(int64(m[start] * 1000))
	id.Seen = seenAt(time.Time{}, header)
	return id, nil
}

// Metrics reads metrics without labels from the answer of [MetricsPath]. It is an
// error if one of them is not there.
func Metrics(body []byte, names ...string) (map[string]float64, error) {
	m := map[string]float64{}
	lines := bufio.NewScanner(bytes.NewReader(body))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		for _, n := range names {
			if n != name {
				continue
			}
			value, _, _ = strings.Cut(value, " ") // a timestamp may follow
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return nil, shape("with %s %.50q", name, value)
			}
			m[n] = v
		}
	}
	if err := lines.Err(); err != nil {
		return nil, shape("metrics with a line of more than 1 MiB")
	}
	for _, n := range names {
		if _, ok := m[n]; !ok {
			return nil, shape("without the metric %s", n)
		}
	}
	return m, nil
}
