package changed_test

import (
	"strings"

	"github.com/prometheus/prometheus/model/labels"
)

// culprit is what a row must name: one of the metrics, and one of the labels.
type culprit struct {
	metrics []string
	labels  []string // name=value
}

// incident is a kind of incident. Begin is called when it begins, and step at each
// scrape from then on with the share of the window that has passed since.
type incident struct {
	name  string
	hold  bool // not looked at while the statistics were made
	begin func(w *world, v *victim) culprit
	step  func(w *world, v *victim, since float64)
}

// victim is where an incident happens.
type victim struct {
	service *service
	pod     *pod
	node    *node
	size    float64 // of the incident: 1 is usual
	next    int64
}

func (v *victim) byPod() []string { return []string{"pod=" + v.pod.name} }

func (v *victim) byService() []string {
	s := v.service
	out := []string{"job=" + s.name, "deployment=" + s.name, "container=" + s.name, "upstream=" + s.name,
		"instance=https://" + s.name + ".example.com"}
	for _, p := range s.pods {
		out = append(out, "pod="+p.name)
	}
	return out
}

func incidents() []incident {
	return []incident{
		{name: "leak", begin: func(w *world, v *victim) culprit {
			v.pod.leaks = 3 * v.size * v.service.memory / (float64(w.length) / 1000)
			return culprit{[]string{"container_memory_working_set_bytes", "container_memory_rss", "process_resident_memory_bytes"}, v.byPod()}
		}},
		{name: "crash loop", begin: func(_ *world, v *victim) culprit {
			return culprit{[]string{"kube_pod_container_status_restarts_total", "up", "kube_pod_status_ready"}, v.byPod()}
		}, step: func(w *world, v *victim, _ float64) {
			if w.ms >= v.next {
				v.pod.down = !v.pod.down
				v.next = w.ms + 120_000
				if v.pod.down {
					w.stale(func(ls labels.Labels) bool {
						return ls.Get("pod") == v.pod.name && ls.Get("job") != "" && ls.Get("__name__") != "up"
					})
				} else {
					w.reset(v.pod)
				}
			}
		}},
		{name: "noisy neighbour", begin: func(_ *world, v *victim) culprit {
			v.pod.cpu = 4 * v.size / (v.service.rate * 0.012)
			return culprit{[]string{"container_cpu_usage_seconds_total", "process_cpu_seconds_total"}, v.byPod()}
		}},
		{name: "slow dependency", hold: true, begin: func(_ *world, v *victim) culprit {
			v.service.extra["latency"] = 8 * v.size
			return culprit{[]string{"http_request_duration_seconds", "client_request_duration_seconds"}, v.byService()}
		}},
		{name: "bad deploy", begin: func(w *world, v *victim) culprit {
			s := v.service
			s.version++
			n := len(s.pods)
			for _, p := range s.pods {
				w.stop(p)
			}
			for range n {
				w.start(s, w.ms)
			}
			s.extra["fails"] = 0.15 * v.size
			return culprit{[]string{"http_requests_total"}, append(v.byService(), "code=500")}
		}},
		{name: "disk filling", begin: func(w *world, v *victim) culprit {
			v.node.grows = 0.9 * v.size * (100e9 - v.node.disk) / (float64(w.length) / 1000)
			return culprit{[]string{"node_filesystem_avail_bytes", "node_disk_written_bytes_total"}, []string{"instance=" + v.node.name + ":9100"}}
		}},
		{name: "dns", hold: true, begin: func(w *world, v *victim) culprit {
			w.dns, w.dnsFail = 30*v.size, 0.1*v.size
			return culprit{[]string{"coredns_dns_request_duration_seconds", "coredns_dns_responses_total"}, []string{"job=coredns", "rcode=SERVFAIL"}}
		}},
		{name: "clock jump", begin: func(w *world, v *victim) culprit {
			w.clock[v.node.name] = 90 * v.size
			return culprit{[]string{"node_time_seconds", "node_timex_offset_seconds"}, []string{"instance=" + v.node.name + ":9100"}}
		}},
		{name: "cardinality explosion", begin: func(_ *world, v *victim) culprit {
			v.service.extra["explodes"] = 1
			return culprit{[]string{"cache_lookups_total"}, append(v.byService(), "pod="+v.service.pods[0].name)}
		}, step: func(w *world, v *victim, since float64) { w.paths = int(600 * v.size * since) }},
		{name: "missing target", hold: true, begin: func(w *world, v *victim) culprit {
			instance := v.node.name + ":9100"
			w.stale(func(ls labels.Labels) bool { return ls.Get("instance") == instance })
			w.nodes = withoutNode(w.nodes, v.node)
			return culprit{[]string{"up"}, []string{"instance=" + instance}}
		}},
		{name: "cpu throttling", begin: func(_ *world, v *victim) culprit {
			v.pod.throttle = 0.5 * v.size
			return culprit{[]string{"container_cpu_cfs_throttled_periods_total"}, v.byPod()}
		}},
		{name: "certificate expiry", hold: true, begin: func(w *world, v *victim) culprit {
			w.expiry[v.service.name] = float64(w.ms)/1000 + 60
			for _, s := range w.memory.series { // it was known all the time
				ls := s.labels
				if ls.Get("__name__") == "probe_ssl_earliest_cert_expiry" && strings.Contains(ls.Get("instance"), "/"+v.service.name+".") {
					for i := range s.points {
						s.points[i].v = w.expiry[v.service.name]
					}
				}
			}
			v.service.extra["fails"] = 0.3
			return culprit{[]string{"probe_success", "probe_ssl_earliest_cert_expiry"}, v.byService()}
		}},
		{name: "errors of one pod", hold: true, begin: func(_ *world, v *victim) culprit {
			v.pod.fails = 0.2 * v.size
			return culprit{[]string{"http_requests_total"}, append(v.byPod(), "code=500")}
		}},
		{name: "retry storm", hold: true, begin: func(_ *world, v *victim) culprit {
			v.service.extra["traffic"] = 1 + 5*v.size
			return culprit{[]string{"http_requests_total", "http_request_duration_seconds", "container_network_receive_bytes_total",
				"container_cpu_usage_seconds_total", "container_network_transmit_bytes_total", "process_cpu_seconds_total"}, v.byService()}
		}},
	}
}

func withoutNode(all []*node, n *node) (out []*node) {
	for _, x := range all {
		if x != n {
			out = append(out, x)
		}
	}
	return out
}
