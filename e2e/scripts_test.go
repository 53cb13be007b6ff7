package e2e

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// section is the label that keeps the scripts' data apart in one server.
const section = "section"

// scripts are what Prometheus' own tests of PromQL load and ask. The data between
// two of their "clear" is a section.
type scripts struct {
	parser  parser.Parser
	samples []scriptSample
	asked   []url.Values
	skipped int // lines and samples that an appender cannot be told
}

type scriptSample struct {
	labels labels.Labels
	t      int64
	value  parser.SequenceValue
}

var (
	scriptLoad    = regexp.MustCompile(`^load(?:_with_nhcb)?\s+(\S+)$`)
	scriptInstant = regexp.MustCompile(`^eval\S*\s+instant\s+at\s+(\S+)\s+(.+)$`)
	scriptRange   = regexp.MustCompile(`^eval\S*\s+range\s+from\s+(\S+)\s+to\s+(\S+)\s+step\s+(\S+)\s+(.+)$`)
)

func (s *scripts) read(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name, sections := filepath.Base(file), 0
	var step time.Duration
	for line := range strings.Lines(string(text)) {
		indented := strings.TrimLeft(line, " \t") != line
		line = strings.TrimSpace(line)
		in := name + "#" + strconv.Itoa(sections)
		switch {
		case line == "" || strings.HasPrefix(line, "#"):
		case line == "clear":
			sections, step = sections+1, 0
		case scriptLoad.MatchString(line):
			d, err := model.ParseDuration(scriptLoad.FindStringSubmatch(line)[1])
			if err != nil {
				t.Fatalf("%s: %s: %v", name, line, err)
			}
			step = time.Duration(d)
		case scriptInstant.MatchString(line):
			m := scriptInstant.FindStringSubmatch(line)
			step = 0
			s.ask(in, m[2], url.Values{"time": {scriptTime(t, m[1])}})
		case scriptRange.MatchString(line):
			m := scriptRange.FindStringSubmatch(line)
			step = 0
			s.ask(in, m[4], url.Values{"start": {scriptTime(t, m[1])}, "end": {scriptTime(t, m[2])}, "step": {m[3]}})
		case indented && step > 0:
			s.load(in, line, step)
		}
	}
}

func (s *scripts) load(in, line string, step time.Duration) {
	ls, values, err := s.parser.ParseSeriesDesc(line)
	if err != nil { // times of creation, which stand on lines of their own
		s.skipped++
		return
	}
	ls = labels.NewBuilder(ls).Set(section, in).Labels()
	for i, v := range values {
		if !v.Omitted {
			s.samples = append(s.samples, scriptSample{ls, int64(i) * step.Milliseconds(), v})
		}
	}
}

// ask asks the section alone.
func (s *scripts) ask(in, text string, params url.Values) {
	if expr, err := s.parser.ParseExpr(text); err == nil { // else it is asked as it is: the error is the answer
		parser.Inspect(expr, func(n parser.Node, _ []parser.Node) error {
			if v, ok := n.(*parser.VectorSelector); ok {
				v.LabelMatchers = append(v.LabelMatchers, labels.MustNewMatcher(labels.MatchEqual, section, in))
			}
			return nil
		})
		text = expr.String()
	}
	params.Set("query", text)
	s.asked = append(s.asked, params)
}

func scriptTime(t *testing.T, s string) string {
	t.Helper()
	if _, err := strconv.ParseFloat(s, 64); err == nil {
		return s
	}
	negative := strings.HasPrefix(s, "-")
	d, err := model.ParseDuration(strings.TrimPrefix(s, "-"))
	if err != nil {
		t.Fatalf("time %q: %v", s, err)
	}
	seconds := time.Duration(d).Seconds()
	if negative {
		seconds = -seconds
	}
	return strconv.FormatFloat(seconds, 'f', 3, 64)
}

// write makes a data dir of the samples, in the order of their times: a head takes
// nothing that is older than an hour.
func (s *scripts) write(t *testing.T, dir string) (maxt int64) {
	t.Helper()
	db, err := tsdb.Open(dir, nil, nil, tsdb.DefaultOptions(), nil)
	if err != nil {
		t.Fatal(err)
	}
	db.DisableCompactions()
	slices.SortStableFunc(s.samples, func(a, b scriptSample) int { return cmp.Compare(a.t, b.t) })
	app := db.Appender(t.Context())
	for _, one := range s.samples {
		if one.value.Histogram != nil {
			_, err = app.AppendHistogram(0, one.labels, one.t, nil, one.value.Histogram.Copy())
		} else {
			_, err = app.Append(0, one.labels, one.t, one.value.Value)
		}
		// A script may load a series twice; what came first stays.
		if err != nil && !errors.Is(err, storage.ErrDuplicateSampleForTimestamp) {
			s.skipped++
			continue
		}
		maxt = max(maxt, one.t)
	}
	if err := errors.Join(app.Commit(), db.Close()); err != nil {
		t.Fatal(err)
	}
	return maxt
}

// The scripts by which Prometheus tests its PromQL: what they load is dumped, and
// what they ask is asked of a Prometheus with the dump restored, and of the dump.
func TestOpenAnswersPrometheusOwnScripts(t *testing.T) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/prometheus/prometheus").Output()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "promql/promqltest/testdata/*.test"))
	if err != nil || len(files) < 20 {
		t.Fatalf("%d scripts, %v", len(files), err)
	}
	s := &scripts{parser: parser.NewParser(parser.Options{
		EnableExperimentalFunctions: true, ExperimentalDurationExpr: true, EnableExtendedRangeSelectors: true, EnableBinopFillModifiers: true,
	})}
	for _, file := range files {
		s.read(t, file)
	}
	dir := t.TempDir()
	data, restored, file := filepath.Join(dir, "data"), filepath.Join(dir, "restored"), filepath.Join(dir, "dump.tar.gz")
	maxt := s.write(t, data)
	promdump(t, "dump", "-d", data, "--min-time", "0", "--max-time", ms(maxt), "-t", file)
	promdump(t, "restore", "-d", restored, "-t", file)
	opened := open(t, file)
	real := start(t, restored, serverOptions{args: []string{
		"--storage.tsdb.retention.time=100y", "--enable-feature=promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,promql-duration-expr",
	}})
	values, errs := 0, 0
	for _, params := range s.asked {
		path := "/api/v1/query"
		if params.Has("step") {
			path = "/api/v1/query_range"
		}
		want, got := ask(t, http.MethodGet, real.url, path, params), ask(t, http.MethodGet, opened.url, path, params)
		if want.code != http.StatusOK {
			errs++
			if got.code == want.code {
				continue // which of two series an error names is the storage's order
			}
		} else if !strings.Contains(want.body, `"result":[]`) {
			values++
		}
		sorted := path == "/api/v1/query_range" || strings.HasPrefix(params.Get("query"), "sort")
		if d := differ(want, got, sorted); d != "" {
			t.Errorf("%v:\n%s", params, d)
		}
	}
	t.Logf("%d samples of %d scripts (%d lines or samples left out); %d answers compared, %d of them with values, %d errors",
		len(s.samples), len(files), s.skipped, len(s.asked), values, errs)
	if len(s.asked) < 2000 || values < 1500 {
		t.Error("too few to prove anything")
	}
}
