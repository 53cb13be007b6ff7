//go:build linux

package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/prometheus/prometheus/prompb"
)

// get asks the server's API for the data of its answer.
func (p *pod) get(path string, params url.Values) json.RawMessage {
	p.t.Helper()
	resp, err := p.client.Get("http://127.0.0.1:9090" + path + "?" + params.Encode())
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	var answer struct {
		Status string
		Data   json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		p.t.Fatalf("GET %s?%s: %s %.500s", path, params.Encode(), resp.Status, body)
	}
	return answer.Data
}

// answer has a series' values by its labels, both as JSON: it is the same for
// servers that hold the same, whatever order they answer in.
type answer map[string]string

// query evaluates PromQL at a time.
func (p *pod) query(promql string, at time.Time) answer {
	p.t.Helper()
	return p.ask("/api/v1/query", url.Values{"query": {promql}, "time": {seconds(at)}})
}

// queryRange evaluates PromQL at many times.
func (p *pod) queryRange(promql string, from, to time.Time, step time.Duration) answer {
	p.t.Helper()
	return p.ask("/api/v1/query_range", url.Values{
		"query": {promql}, "start": {seconds(from)}, "end": {seconds(to)}, "step": {fmt.Sprint(step.Seconds())},
	})
}

func (p *pod) ask(path string, params url.Values) answer {
	p.t.Helper()
	return answerOf(p.t, p.get(path, params))
}

// answerOf reads what the API answers as its data.
func answerOf(t *testing.T, raw json.RawMessage) answer {
	t.Helper()
	var data struct {
		ResultType string
		Result     []struct {
			Metric                               map[string]string
			Value, Values, Histogram, Histograms json.RawMessage
		}
	}
	if err := json.Unmarshal(raw, &data); err != nil {
		t.Fatalf("%v\n%.500s", err, raw)
	}
	all := answer{}
	for _, r := range data.Result {
		labels, err := json.Marshal(r.Metric)
		if err != nil {
			t.Fatal(err)
		}
		all[string(labels)] = string(r.Value) + string(r.Values) + string(r.Histogram) + string(r.Histograms)
	}
	return all
}

// number is the one value of an instant query; 0 where there is no series.
func (p *pod) number(promql string, at time.Time) float64 {
	p.t.Helper()
	all := p.query(promql, at)
	if len(all) > 1 {
		p.t.Fatalf("%s has %d answers", promql, len(all))
	}
	for _, one := range all {
		var pair [2]any
		if err := json.Unmarshal([]byte(one), &pair); err != nil {
			p.t.Fatalf("%s: %v: %s", promql, err, one)
		}
		text, _ := pair[1].(string)
		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			p.t.Fatalf("%s: %v", promql, err)
		}
		return v
	}
	return 0
}

// samples counts what is served of a selector, such as {job="a"}, from from until
// before to. It asks for each metric alone: two of them may have the same labels.
func (p *pod) samples(selector string, from, to time.Time) (n int) {
	p.t.Helper()
	var names []string
	raw := p.get("/api/v1/label/__name__/values", url.Values{"match[]": {selector}, "start": {seconds(from)}, "end": {seconds(to)}})
	if err := json.Unmarshal(raw, &names); err != nil {
		p.t.Fatal(err)
	}
	for _, name := range names {
		matchers := strings.TrimSuffix(selector, "}") + fmt.Sprintf(",__name__=%q}", name)
		// A range has its end, and lacks its begin.
		query := fmt.Sprintf("sum(count_over_time(%s[%dms]))", matchers, to.Sub(from).Milliseconds())
		n += int(p.number(query, to.Add(-time.Millisecond)))
	}
	return n
}

// head is the time range of the server's head, Unix milliseconds.
func (p *pod) head() (minTime, maxTime int64) {
	p.t.Helper()
	var s struct {
		HeadStats struct{ MinTime, MaxTime int64 }
	}
	if err := json.Unmarshal(p.get("/api/v1/status/tsdb", nil), &s); err != nil {
		p.t.Fatal(err)
	}
	return s.HeadStats.MinTime, s.HeadStats.MaxTime
}

// write sends series by remote write. Samples may be 48 h late.
func (p *pod) write(series ...prompb.TimeSeries) {
	p.t.Helper()
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		p.t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPost, "http://127.0.0.1:9090/api/v1/write", bytes.NewReader(snappy.Encode(nil, b)))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := p.client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		body, err := io.ReadAll(resp.Body)
		p.t.Fatalf("remote write: %s %.300s (%v)", resp.Status, body, err)
	}
}

func seconds(t time.Time) string { return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64) }
