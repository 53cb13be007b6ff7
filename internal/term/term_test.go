package term

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1024*1024 - 1: "1.0 MiB", 12_897_485: "12.3 MiB", -2048: "-2.0 KiB",
		math.MaxInt64: "8.0 EiB",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		if got := Count(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	if got := Count(uint64(math.MaxUint64)); got != "18,446,744,073,709,551,615" {
		t.Error(got)
	}
	if got := Counted(1, "block", "blocks") + ", " + Counted(2000, "block", "blocks"); got != "1 block, 2,000 blocks" {
		t.Error(got)
	}
}

func TestDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0 s", 420 * time.Millisecond: "0.4 s", 9949 * time.Millisecond: "9.9 s", 9950 * time.Millisecond: "10 s",
		59600 * time.Millisecond: "1 min 0 s", 125 * time.Second: "2 min 5 s", 90 * time.Minute: "1 h 30 min", 50 * time.Hour: "2 d 2 h", -time.Second: "0.0 s",
	} {
		if got := Duration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestTime(t *testing.T) {
	for ms, want := range map[int64]string{
		0: "1970-01-01T00:00:00Z", 1617235200000: "2021-04-01T00:00:00Z", 1617235200025: "2021-04-01T00:00:00.025Z", -1: "1969-12-31T23:59:59.999Z",
		math.MinInt64: "the beginning", math.MaxInt64: "the end", lastPrintable: "9999-12-31T23:59:59.999Z", lastPrintable + 1: "253402300800000ms",
		firstPrintable: "0000-01-01T00:00:00Z", firstPrintable - 1: "-62167219200001ms",
	} {
		if got := Time(ms); got != want {
			t.Errorf("%d: %q, want %q", ms, got, want)
		}
	}
}

func TestTable(t *testing.T) {
	var b bytes.Buffer
	columns := []Column{{Name: "NAME"}, {Name: "SIZE", Right: true}, {Name: "WHY"}}
	if err := Table(&b, columns, [][]string{{"größe", "1", "x"}, {"a", "1,000"}, {"evil\x1b[2J", "2", "y"}}); err != nil {
		t.Fatal(err)
	}
	want := "NAME          SIZE  WHY\ngröße            1  x\na            1,000\nevil\\x1b[2J      2  y\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Error(d)
	}
}

func TestFacts(t *testing.T) {
	var b bytes.Buffer
	if err := Facts(&b, "Title", []Fact{{"A:", "1"}, {"Longer", "2"}}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff("Title\n-----\nA:     | 1\nLonger | 2\n", b.String()); d != "" {
		t.Error(d)
	}
}

func TestFail(t *testing.T) {
	var b bytes.Buffer
	s := Streams{Err: &b}
	s.Fail("promdump", errors.New("open \x1b]0;x\a: no"), "")
	s.Fail("promdump", errors.New("no"), "yes")
	if d := cmp.Diff("promdump: open \\x1b]0;x\\a: no\npromdump: no\nhint: yes\n", b.String()); d != "" {
		t.Error(d)
	}
}

func TestNotATerminal(t *testing.T) {
	var b bytes.Buffer
	if IsTerminal(&b) || (Streams{Err: &b}).Progress("x") != nil {
		t.Error("a buffer is a terminal")
	}
	var none *Progress
	none.Set(1, 2, "")
	none.Done()
}

type screen struct{ writes []string }

func (s *screen) Write(p []byte) (int, error) {
	s.writes = append(s.writes, string(p))
	return len(p), nil
}

func (s *screen) last() string {
	if len(s.writes) == 0 {
		return ""
	}
	return strings.TrimSuffix(strings.TrimPrefix(s.writes[len(s.writes)-1], "\r"), clearRight)
}

func TestProgress(t *testing.T) {
	var s screen
	now, width := time.Unix(0, 0), 80
	p := newProgress(&s, "reading", func() int { return width }, func() time.Time { return now })
	const mib = 1 << 20
	for i := range 1000 { // ten seconds at 10 MiB/s
		now = now.Add(10 * time.Millisecond)
		p.Set(int64(i+1)*mib/10, 200*mib, "3.0 MiB written")
	}
	if n := len(s.writes); n < 49 || n > 51 {
		t.Errorf("drawn %d times in ten seconds, want 50", n)
	}
	now = now.Add(redraw)
	p.Set(102*mib, 200*mib, "3.0 MiB written")
	if got, want := s.last(), "reading 102.0 MiB of 200.0 MiB · 51 % · 10.0 MiB/s · 9.8 s left · 3.0 MiB written"; !strings.HasPrefix(got, "reading 102.0 MiB of 200.0 MiB · 51 % · 10.0 MiB/s · ") || utf8.RuneCountInString(got) > 79 {
		t.Errorf("%q, want like %q", got, want)
	}
	if !strings.Contains(s.last(), " left") {
		t.Errorf("%q has no remaining time", s.last())
	}
	// The rate is not an average since the start: it drops within seconds after a stall.
	now = now.Add(10 * time.Second)
	p.Set(102*mib, 200*mib, "")
	if strings.Contains(s.last(), "/s") {
		t.Errorf("%q has a rate after ten seconds without a byte", s.last())
	}
	for width = range 100 {
		now = now.Add(redraw)
		p.Set(103*mib, 200*mib, "tail")
		if n := utf8.RuneCountInString(s.last()); n > max(0, width-1) {
			t.Errorf("a line of %d columns on a terminal of %d", n, width)
		}
	}
	now = now.Add(redraw)
	p.Set(201*mib, 200*mib, "")
	if got := s.last(); strings.Contains(got, "%") || strings.Contains(got, "left") {
		t.Errorf("%q has a percentage although total is less than done", got)
	}
	p.Done()
	if got := s.writes[len(s.writes)-1]; got != "\r"+clearRight {
		t.Errorf("%q does not clear the line", got)
	}
	n := len(s.writes)
	now = now.Add(time.Second)
	p.Set(1, 2, "")
	p.Done()
	if len(s.writes) != n {
		t.Error("Set draws after Done")
	}
}

// TestProgressEstimate checks that there is no remaining time of days, neither for the first bytes
// after a long start nor for those after a pause.
func TestProgressEstimate(t *testing.T) {
	var s screen
	now := time.Unix(0, 0)
	p := newProgress(&s, "reading", func() int { return 80 }, func() time.Time { return now })
	const gib = 1 << 30
	at := func(d time.Duration, done int64) string {
		now = now.Add(d)
		p.Set(done, gib, "")
		return s.last()
	}
	at(0, 0)
	for _, c := range []struct {
		after time.Duration
		done  int64
		want  string // at the end of the line
	}{
		{20 * time.Second, 1 << 10, "0 %"}, // the agent was uploaded
		{500 * time.Millisecond, 2 << 10, "0 %"},
		{time.Second, 3 << 10, "KiB/s"},
		{3 * time.Second, 20 << 10, "KiB/s"}, // days
		{5 * time.Second, gib / 10, " left"},
		{5 * time.Second, gib / 4, " left"},
		{60 * time.Second, gib/4 + 1<<10, "/s"}, // a pause
		{time.Second, gib/4 + 2<<10, "/s"},
		{9 * time.Second, gib / 2, " left"},
	} {
		if got := at(c.after, c.done); !strings.HasSuffix(got, c.want) || strings.Contains(got, " d ") {
			t.Errorf("after %v: %q, not …%s", now.Sub(time.Unix(0, 0)), got, c.want)
		}
	}
}
