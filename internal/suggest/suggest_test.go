package suggest

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"prometheus-k8s-0", "prometheus-k8s-1", "alertmanager-0", "web"}
	for _, c := range []struct{ name, want string }{
		{"prometheus-k8s-2", "prometheus-k8s-0 prometheus-k8s-1"},
		{"prometeus-k8s-0", "prometheus-k8s-0 prometheus-k8s-1"},
		{"alertmanager", "alertmanager-0"},
		{"wep", "web"},
		{"grafana", ""},
		{"x", ""},
	} {
		if got := strings.Join(Nearest(c.name, names), " "); got != c.want {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}
