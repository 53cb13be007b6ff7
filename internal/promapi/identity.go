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

// Identity identifies a server process. It distinguishes replicas behind one URL, which may have the
// same configuration, external labels and samples.
type Identity struct {
	Start    time.Time // of the process; zero if the identity is unknown
	Hostname string    // empty if unknown, as for an older Prometheus
	Dir      string    // working directory; empty if unknown

	// Seen is the time of the last response, by the clock of the server.
	Seen time.Time
}

// Known reports whether the identity is known.
func (id Identity) Known() bool { return !id.Start.IsZero() }

// Same reports whether both are the same process.
func (id Identity) Same(other Identity) bool {
	return id.Known() && id.Start.Equal(other.Start) && id.Hostname == other.Hostname && id.Dir == other.Dir
}

// RestartOf reports whether id may be the server of old after a restart: a process on the same host
// that started after the last response of old. Another replica has started before.
func (id Identity) RestartOf(old Identity) bool {
	return id.Known() && old.Known() && id.Hostname == old.Hostname && id.Dir == old.Dir && id.Start.After(old.Seen)
}

// String returns the host name and the start time for messages.
func (id Identity) String() string {
	if !id.Known() {
		return "a server with an unknown start time"
	}
	return fmt.Sprintf("%s, started %s", cmp.Or(id.Hostname, "a server"),
		id.Start.UTC().Format("2006-01-02T15:04:05.999Z07:00"))
}

// Runtime parses the response of [RuntimePath], which Prometheus has since 2.14. header is that of
// the response.
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
	for name, to := range map[string]any{
		"startTime": &id.Start, "hostname": &id.Hostname, "CWD": &id.Dir, "serverTime": &seen,
	} {
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

// seenAt returns serverTime if it is not zero, otherwise the Date of the header, which has whole
// seconds, otherwise the time of this machine.
func seenAt(serverTime time.Time, header http.Header) time.Time {
	if !serverTime.IsZero() {
		return serverTime
	}
	if at, err := http.ParseTime(header.Get("Date")); err == nil {
		return at
	}
	return time.Now()
}

// MetricsIdentity parses the response of [MetricsPath]. It returns an error for metrics without those
// of a TSDB, for example of a gateway in front of several servers.
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

// Metrics returns the values of metrics without labels in the response of [MetricsPath]. It returns
// an error if one of the names is missing.
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
