package kube

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

func container(t *testing.T, spec string) *corev1.Container {
	t.Helper()
	c := &corev1.Container{}
	if err := yaml.UnmarshalStrict([]byte(spec), c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestPathFlag(t *testing.T) {
	for _, c := range []struct{ spec, want string }{
		{`{}`, ""},
		{`args: [--storage.tsdb.path=/data]`, "/data"},
		{`args: [--storage.tsdb.path, /data]`, "/data"},
		{`args: [--storage.tsdb.path]`, ""},
		{`args: [--storage.tsdb.path.x=/data, --xstorage.tsdb.path=/data]`, ""},
		{`command: [/bin/prometheus, --storage.tsdb.path=/a]`, "/a"},
		{`args: [--storage.tsdb.path=/data/]`, "/data"},
		{`args: [--storage.tsdb.path=db]`, "db"},
		{`{args: [--storage.tsdb.path=db], workingDir: /w}`, "/w/db"},
		{`{args: [--storage.tsdb.path=/db], workingDir: /w}`, "/db"},
		{`{args: ["--storage.tsdb.path=$(DIR)/x"], env: [{name: ROOT, value: /r}, {name: DIR, value: "$(ROOT)/d"}]}`, "/r/d/x"},
		{`args: ["--storage.tsdb.path=$(DIR)/x"]`, ""},
		{`{args: ["--storage.tsdb.path=$$(DIR)"], env: [{name: DIR, value: /d}]}`, ""},
		{`{args: ["--storage.tsdb.path=$(DIR)/x"], env: [{name: DIR, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}`, ""},
		{`command: [sh, -c, "exec prometheus --config.file=x --storage.tsdb.path=/s --web.x"]`, "/s"},
		{`{command: [/bin/sh, -ec], args: ["prometheus --storage.tsdb.path /s; sleep 1"]}`, "/s"},
		{`command: [sh, -c, "prometheus --storage.tsdb.path=/s;true"]`, "/s"},
		{`command: [sh, -c, "prometheus \\\n  --storage.tsdb.path='/s p' \\\n  --x"]`, "/s p"},
		{`command: [bash, -c, 'prometheus --storage.tsdb.path="/s"'] `, "/s"},
		{`{command: [sh, -c, "prometheus --storage.tsdb.path=${D}/$E"], env: [{name: D, value: /d}, {name: E, value: e}]}`, "/d/e"},
		{`command: [sh, -c, "prometheus --storage.tsdb.path=$D"]`, ""},
		{`command: [tini, --, sh, -c, "prometheus --storage.tsdb.path=/s"]`, "/s"},
		{`args: [-c, "prometheus --storage.tsdb.path=/s"]`, "/s"},
		{`command: [prometheus, --web.page-title, "a --storage.tsdb.path=/no", --storage.tsdb.path=/yes]`, "/yes"},
	} {
		if got := pathOf(container(t, c.spec)); got != c.want {
			t.Errorf("%s: %q, want %q", c.spec, got, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for _, c := range []struct {
		in   string
		want []string
	}{
		{"", nil},
		{" a  b\tc\n", []string{"a", "b", "c"}},
		{`a'b c'"d e"f`, []string{"ab cd ef"}},
		{`'' ""`, []string{"", ""}},
		{`a\ b \"c`, []string{"a b", `"c`}},
		{`'a\b'`, []string{`a\b`}},
		{"a&&b|c>d", []string{"a", "b", "c", "d"}},
		{"'open", []string{"open"}},
	} {
		if d := cmp.Diff(c.want, split(c.in)); d != "" {
			t.Errorf("%q (-want +got):\n%s", c.in, d)
		}
	}
}
