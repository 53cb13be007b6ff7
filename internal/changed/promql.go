package changed

import (
	"fmt"
	"strings"

	"github.com/prometheus/common/model"
)

// limits are pairs of metrics, one of which is the limit of the other. The labels are
// those that both have.
var limits = []struct{ metric, limit, on string }{
	{"container_memory_working_set_bytes", "container_spec_memory_limit_bytes", ""},
	{"container_memory_usage_bytes", "container_spec_memory_limit_bytes", ""},
	{"container_memory_rss", "container_spec_memory_limit_bytes", ""},
	{"container_memory_working_set_bytes", `kube_pod_container_resource_limits{resource="memory"}`, "namespace, pod, container"},
	{"container_cpu_usage_seconds_total", `kube_pod_container_resource_limits{resource="cpu"}`, "namespace, pod, container"},
	{"container_cpu_cfs_throttled_periods_total", "container_cpu_cfs_periods_total", ""},
	{"node_filesystem_avail_bytes", "node_filesystem_size_bytes", ""},
	{"node_filesystem_free_bytes", "node_filesystem_size_bytes", ""},
	{"node_filesystem_files_free", "node_filesystem_files", ""},
	{"node_memory_MemAvailable_bytes", "node_memory_MemTotal_bytes", ""},
	{"node_nf_conntrack_entries", "node_nf_conntrack_entries_limit", ""},
	{"kubelet_volume_stats_used_bytes", "kubelet_volume_stats_capacity_bytes", ""},
	{"kubelet_volume_stats_available_bytes", "kubelet_volume_stats_capacity_bytes", ""},
	{"kubelet_volume_stats_inodes_used", "kubelet_volume_stats_inodes", ""},
	{"process_open_fds", "process_max_fds", ""},
	{"jvm_memory_used_bytes", "jvm_memory_max_bytes", ""},
	{"kube_deployment_status_replicas_available", "kube_deployment_spec_replicas", ""},
}

// selector writes a selector of a metric's series.
func selector(name string, pairs []pair) string {
	var list []string
	if name != "" && !model.LegacyValidation.IsValidMetricName(name) {
		list, name = append(list, quote(name)), ""
	}
	for _, p := range pairs {
		label := p.name
		if !model.LegacyValidation.IsValidLabelName(label) {
			label = quote(label)
		}
		list = append(list, label+"="+quote(p.value))
	}
	if len(list) == 0 {
		return name
	}
	return name + "{" + strings.Join(list, ",") + "}"
}

// queries are those that show a row in a graph, the right one first.
func (t *table) queries(r *Row, g group) (out []Query) {
	pairs := make([]pair, 0, len(g.by))
	for _, id := range g.by {
		pairs = append(pairs, t.pairs[id].pair)
	}
	window := rateWindow(t.plan.step)
	plain := selector(t.name, pairs)
	classic := t.classic
	if classic {
		plain = selector(t.name+"_count", pairs)
	}
	switch {
	case r.Kind == Born || r.Kind == Ended || r.Kind == Replaced || r.Kind == Flapping:
		if n := r.Series; n <= 20 && r.Kind != Born {
			out = append(out, Query{"series", plain})
		}
		out = append(out, Query{"number of series", "count(" + plain + ")"})
	case r.Aspect == Rate:
		out = append(out, Query{"rate", rateOf(plain, window, t.native)})
	case r.Aspect == Mean && classic:
		sum := selector(t.name+"_sum", pairs)
		out = append(out, Query{"mean", fmt.Sprintf("rate(%s[%s]) / rate(%s[%s])", sum, window, plain, window)})
	case r.Aspect == Mean:
		out = append(out, Query{"mean", fmt.Sprintf("histogram_avg(rate(%s[%s]))", plain, window)})
	case r.Aspect == P99 && classic:
		buckets := selector(t.name+"_bucket", pairs)
		out = append(out, Query{"99th percentile", fmt.Sprintf("histogram_quantile(0.99, sum by (%s) (rate(%s[%s])))",
			strings.Join(append(t.by(g), "le"), ", "), buckets, window)})
	case r.Aspect == P99:
		out = append(out, Query{"99th percentile", fmt.Sprintf("histogram_quantile(0.99, rate(%s[%s]))", plain, window)})
	case r.Aspect == Age:
		out = append(out, Query{"age", "time() - " + plain})
	default:
		out = append(out, Query{"value", plain})
	}
	if r.Kind == Value {
		out = t.ratios(out, r, pairs, window)
	}
	return out
}

func rateOf(plain, window string, native bool) string {
	if native {
		return fmt.Sprintf("histogram_count(rate(%s[%s]))", plain, window)
	}
	return fmt.Sprintf("rate(%s[%s])", plain, window)
}

// ratios adds the ratio to the limit where the data has the limit too. It is the first
// query: a value says little without it.
func (t *table) ratios(out []Query, r *Row, pairs []pair, window string) []Query {
	for _, l := range limits {
		limit, matcher, _ := strings.Cut(l.limit, "{")
		if l.metric != t.name || !t.engine.has[limit] {
			continue
		}
		above, below := out[0].Expr, selector(limit, pairs)
		if matcher != "" {
			below = limit + "{" + strings.TrimSuffix(matcher, "}") + pairsAfter(pairs) + "}"
		}
		if r.Aspect == Rate && counterName(limit) {
			below = fmt.Sprintf("rate(%s[%s])", below, window)
		}
		on := ""
		if l.on != "" {
			on = "on (" + l.on + ") group_left () "
		}
		return append([]Query{{"ratio to the limit", above + " / " + on + below}}, out...)
	}
	return out
}

func pairsAfter(pairs []pair) string {
	s := selector("", pairs)
	if s == "" {
		return ""
	}
	return "," + strings.TrimSuffix(strings.TrimPrefix(s, "{"), "}")
}

// by returns the labels by which a percentile of a group is kept apart: those that name
// the place of the group.
func (t *table) by(g group) (names []string) {
	for _, id := range g.by {
		if name := t.pairs[id].name; model.LegacyValidation.IsValidLabelName(name) {
			names = append(names, name)
		} else {
			names = append(names, quote(name))
		}
	}
	return names
}

// rateWindow returns the range of a rate that has some samples.
func rateWindow(step int64) string {
	minutes := max(5, (2*step+59_999)/60_000)
	return fmt.Sprintf("%dm", minutes)
}
