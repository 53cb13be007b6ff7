package cli

import (
	"net"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestListen(t *testing.T) {
	for typed, want := range map[string]string{
		"9100": "127.0.0.1:9100", ":9100": ":9100", "0.0.0.0:9100": "0.0.0.0:9100", "example.com:1": "example.com:1",
		"example.com": "example.com:9090", "[::1]:80": "[::1]:80", "127.0.0.1:0": "127.0.0.1:0",
	} {
		if got, err := compileListen(typed); err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q: %v, %v, want %s", typed, got, err, want)
		}
	}
	for _, typed := range []string{"http://127.0.0.1:9090", "127.0.0.1:port", "a b", "127.0.0.1:99999"} {
		if got, err := compileListen(typed); err == nil {
			t.Errorf("%q: %v", typed, got)
		}
	}
}

// The next port that is free is taken, and none when one was asked for.
func TestListenNext(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	l, err := listen(t.Context(), []string{taken.Addr().String(), "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := listen(t.Context(), []string{taken.Addr().String()}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("a port that is taken: %v", err)
	}
	if all, err := compileListen(""); err != nil || all[0] != "127.0.0.1:9090" || all[1] != "127.0.0.1:9091" {
		t.Errorf("by default: %v, %v", all[:2], err)
	}
}

func TestBytes(t *testing.T) {
	for typed, want := range map[string]int64{"0": 0, "1": 1, "20GiB": 20 << 30, "500MB": 500e6, "1.5 kib": 1536, "7b": 7} {
		if got, err := typedBytes("--x", typed); err != nil || got != want {
			t.Errorf("%q: %d, %v", typed, got, err)
		}
	}
	for _, typed := range []string{"", "-1", "x", "1e300GiB", "NaN", "1 2"} {
		if got, err := typedBytes("--x", typed); err == nil {
			t.Errorf("%q: %d", typed, got)
		}
	}
}

// fromDir is a Data that is named by -d.
type fromDir struct {
	Data
	given bool
}

func (f fromDir) Given() bool             { return f.given }
func (f fromDir) AddFlags(*pflag.FlagSet) {}

func TestViewConfig(t *testing.T) {
	view := viewFlags{cacheSize: "1GiB"}
	c, err := view.compile(nil, fromDir{given: true}, true, noon)
	if err != nil || c.span != (span{0, noon.UnixMilli()}) {
		t.Errorf("of a data dir here, all: %+v, %v", c.span, err)
	}
	c, err = view.compile(nil, fromDir{given: true}, false, noon)
	if err != nil || c.span != (span{noon.UnixMilli() - 3_600_000, noon.UnixMilli()}) {
		t.Errorf("of a pod, the last hour: %+v, %v", c.span, err)
	}
	for name, f := range map[string]viewFlags{
		"no size": {}, "bad label": {cacheSize: "1", label: "1a"}, "reserved label": {cacheSize: "1", label: "__name__"},
		"bad length": {cacheSize: "1", timeout: "x"}, "bad match": {cacheSize: "1", match: []string{"{"}}, "bad samples": {cacheSize: "1", samples: -1},
	} {
		if _, err := f.compile([]string{"a"}, fromDir{}, true, noon); codeOf(err) != Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}
