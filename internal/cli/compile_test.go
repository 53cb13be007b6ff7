package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/promdump/promdump/internal/archive"
	"github.com/promdump/promdump/internal/restore"
	"github.com/promdump/promdump/internal/wire"
)

// The border between flags as typed and what they mean, from both sides.

func TestSpan(t *testing.T) {
	now := noon.UnixMilli()
	const hour = int64(3600_000)
	for name, c := range map[string]struct {
		flags spanFlags
		want  span
	}{
		"nothing: the last hour":         {spanFlags{}, span{now - hour, now}},
		"both":                           {spanFlags{min: "1000", max: "2000.5"}, span{1000_000, 2000_500}},
		"the seed's names":               {spanFlags{start: "1000", end: "now"}, span{1000_000, now}},
		"one moment":                     {spanFlags{min: "1000", max: "1000"}, span{1000_000, 1000_000}},
		"only the first":                 {spanFlags{min: "0"}, span{0, now}},
		"only the last: the hour before": {spanFlags{max: "1617272430"}, span{1617272430_000 - hour, 1617272430_000}},
		"since":                          {spanFlags{since: "2h"}, span{now - 2*hour, now}},
		"since until":                    {spanFlags{since: "2h", max: "2026-11-22 11:00"}, span{now - 2*hour, now - hour}},
		"around":                         {spanFlags{around: "now", window: "2h"}, span{now - hour, now + hour}},
		"around without a window":        {spanFlags{around: "now"}, span{now - hour/4, now + hour/4}},
		"an end in the future":           {spanFlags{max: "2027-01-01", min: "now"}, span{now, 1798761600_000}},
		"finer than ms: inwards":         {spanFlags{min: "1.0001", max: "2.0009"}, span{1001, 2000}},
		"finer than ms, before 1970":     {spanFlags{min: "-2.0009", max: "-1.0001"}, span{-2000, -1001}},
		"a second is its first ms":       {spanFlags{min: "2021-04-01", max: "2021-04-01 10:00:00"}, span{1617235200_000, 1617271200_000}},
	} {
		got, err := c.flags.compile(noon)
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v, want %+v", name, got, err, c.want)
		}
	}
	for name, f := range map[string]spanFlags{
		"both names of the first": {min: "1", start: "1"},
		"both names of the last":  {max: "1", end: "1"},
		"since and first":         {since: "1h", min: "1"},
		"since and its alias":     {since: "1h", start: "1"},
		"window alone":            {window: "1h"},
		"around and first":        {around: "now", min: "1"},
		"around and last":         {around: "now", end: "1"},
		"around and since":        {around: "now", since: "1h"},
		"the wrong way round":     {min: "2000", max: "1000"},
		"since after the last":    {since: "1h", max: "2026-11-22 10:00"},
		"no millisecond within":   {min: "1.0001", max: "1.0002"},
		"no time":                 {min: "x"},
		"no length":               {since: "x"},
		"no window":               {around: "now", window: "0s"},
	} {
		got, err := f.compile(noon)
		if codeOf(err) != Usage {
			t.Errorf("%s: %+v, %v, want a usage error", name, got, err)
		}
	}
}

func TestMatch(t *testing.T) {
	got, err := compileMatch([]string{`up`, `{namespace="shop",pod=~"a.*",x!="",y!~"z"}`, `{"http.requests", "län.d"="ü"}`})
	if err != nil {
		t.Fatal(err)
	}
	want := [][]wire.Matcher{
		{{Type: "=", Name: "__name__", Value: "up"}},
		{{Type: "=", Name: "namespace", Value: "shop"}, {Type: "=~", Name: "pod", Value: "a.*"}, {Type: "!=", Name: "x"}, {Type: "!~", Name: "y", Value: "z"}},
		{{Type: "=", Name: "__name__", Value: "http.requests"}, {Type: "=", Name: "län.d", Value: "ü"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if got, err := compileMatch(nil); err != nil || got != nil {
		t.Errorf("no selector: %v, %v", got, err)
	}
	for _, s := range []string{``, `{}`, `{a=~".*"}`, `{a=""}`, `{a!="b"}`, `up{`, `up[5m]`, `up offset 5m`, `sum(up)`, `{a=~"("}`} {
		if got, err := compileMatch([]string{"up", s}); codeOf(err) != Usage || hintOf(err) == "" {
			t.Errorf("%q: %v, %v, want a usage error with a hint", s, got, err)
		}
	}
}

func TestDumpConfig(t *testing.T) {
	f := dumpFlags{span: spanFlags{min: "1", max: "2"}, match: []string{"up"}, head: "raw", wholeBlocks: true, file: "x.tar.zst", tempDir: "tmp", dryRun: true}
	got, err := f.compile(noon)
	if err != nil {
		t.Fatal(err)
	}
	want := dumpConfig{
		request: wire.Request{
			Version: wire.Version, Head: wire.HeadRaw, WholeBlocks: true,
			Selection: wire.Selection{MinTime: 1000, MaxTime: 2000, Matchers: [][]wire.Matcher{{{Type: "=", Name: "__name__", Value: "up"}}}},
		},
		selectors: []string{"up"}, compression: archive.Zstd, file: "x.tar.zst", tempDir: "tmp", dryRun: true, now: noon,
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(dumpConfig{})); d != "" {
		t.Error(d)
	}
	for name, want := range map[string]archive.Compression{
		"-": archive.Gzip, "a.tar.gz": archive.Gzip, "a.tgz": archive.Gzip, "a.TAR.ZST": archive.Zstd, "a.tzst": archive.Zstd, "a.tar": archive.None, "a": archive.Gzip, "dir.tar/a": archive.Gzip,
	} {
		if got, err := (dumpFlags{head: "block", file: name}).compile(noon); err != nil || got.compression != want {
			t.Errorf("%s: %q, %v, want %q", name, got.compression, err, want)
		}
	}
	if got, err := (dumpFlags{head: "block", file: "a.tar", compression: "gzip"}).compile(noon); err != nil || got.compression != archive.Gzip {
		t.Errorf("the flag wins: %q, %v", got.compression, err)
	}
	for _, f := range []dumpFlags{{head: "", file: "-"}, {head: "block"}, {head: "block", file: "-", compression: "lz4"}} {
		if _, err := f.compile(noon); codeOf(err) != Usage {
			t.Errorf("%+v: %v, want a usage error", f, err)
		}
	}
}

func TestRestoreConfig(t *testing.T) {
	f := restoreFlags{dir: "d", file: "-", tempDir: "t", replace: true, yes: true, retention: "30d", ignoreRetention: true, ignoreSpace: true, allowUpload: true, dryRun: true}
	got, err := f.compile()
	if err != nil {
		t.Fatal(err)
	}
	want := restoreConfig{
		spec: restore.Spec{Dir: "d", Staging: "t", Replace: true, IgnoreRetention: true, IgnoreSpace: true, AllowUpload: true, Retention: 30 * 24 * time.Hour},
		file: "-", dryRun: true, yes: true,
	}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(restoreConfig{})); d != "" {
		t.Error(d)
	}
	if got, err := (restoreFlags{dir: "d", file: "f", retention: "none", wait: "http://x", waitTimeout: "1m"}).compile(); err != nil || got.spec.Retention >= 0 || got.spec.WaitTimeout != time.Minute || got.spec.WaitURL != "http://x" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestMetaAndVerifyConfig(t *testing.T) {
	for _, c := range []struct {
		flags metaFlags
		args  []string
		data  bool
		ok    bool
	}{
		{metaFlags{output: "table"}, nil, true, true},
		{metaFlags{output: "json"}, []string{"f"}, false, true},
		{metaFlags{output: "table"}, nil, false, false},
		{metaFlags{output: "table"}, []string{"f"}, true, false},
		{metaFlags{output: "xml"}, []string{"f"}, false, false},
	} {
		if _, err := c.flags.compile(c.args, &localDir{path: map[bool]string{true: "/data"}[c.data]}); (err == nil) != c.ok || err != nil && codeOf(err) != Usage {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if c, err := (verifyFlags{}).compile([]string{"f"}); err != nil || c.file != "f" {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := (verifyFlags{}).compile(nil); codeOf(err) != Usage {
		t.Error(err)
	}
}

func TestInterruptibleReadsAll(t *testing.T) {
	text := strings.Repeat("0123456789", 100_000)
	var got strings.Builder
	r := newInterruptible(t.Context(), strings.NewReader(text))
	buf := make([]byte, 7777)
	for {
		n, err := r.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if got.String() != text {
		t.Error("what was read is not what was written")
	}
}
