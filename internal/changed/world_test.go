package changed_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/value"
)

// world is a Kubernetes cluster that is scraped: nodes, services, their pods, what they
// depend on. An incident changes causes, and the effects follow.
type world struct {
	memory
	r        *rand.Rand
	nodes    []*node
	services []*service
	ms       int64 // now
	interval int64
	counters map[string]float64
	base     int64 // time at which the window begins
	length   int64
	dns      float64 // factor of the latency of DNS
	dnsFail  float64 // share of its answers
	clock    map[string]float64
	noise    map[string]*wave
	gone     map[string]bool // series that have a staleness mark
	paths    int             // values of a label that explodes
	expiry   map[string]float64
}

type node struct {
	name  string
	busy  float64 // processors that are used beside pods
	disk  float64 // bytes used on /
	grows float64 // bytes a second
	pods  []*pod
	slow  float64 // factor for its pods, from contention
	seen  float64 // load
}

type service struct {
	name, namespace string
	rate            float64 // requests a second of a pod
	latency         float64
	memory          float64
	fails           float64
	uses            *service
	pods            []*pod
	version         int
	extra           map[string]float64 // causes: factors by name
	daily           float64
}

type pod struct {
	name, ip string
	service  *service
	node     *node
	born     int64
	cpu      float64 // factor
	leak     float64 // bytes
	leaks    float64 // bytes a second
	throttle float64
	fails    float64
	slow     float64
	restarts float64
	down     bool
	latency  float64 // as it was in this step
	failed   float64
	rate     float64
}

// wave is noise that remembers.
type wave struct{ v, keep, size float64 }

func (w *world) wave(key string, size float64) float64 {
	x := w.noise[key]
	if x == nil {
		x = &wave{keep: 0.5 + 0.45*w.r.Float64(), size: size * (0.5 + w.r.Float64())}
		w.noise[key] = x
	}
	x.v = x.keep*x.v + math.Sqrt(1-x.keep*x.keep)*w.r.NormFloat64()
	return math.Exp(x.size * x.v)
}

var names = []string{
	"cart", "checkout", "ledger", "search", "catalog", "users", "mail", "billing", "images", "orders", "stock", "auth", "quotes", "jobs",
}

func newWorld(seed uint64) *world {
	w := &world{
		memory: memory{series: map[string]*memorySeries{}}, r: rand.New(rand.NewPCG(seed, 7)), counters: map[string]float64{},
		noise: map[string]*wave{}, gone: map[string]bool{}, clock: map[string]float64{}, dns: 1,
		expiry: map[string]float64{}, base: 1_790_000_000_000, interval: 30_000,
	}
	w.base += int64(w.r.IntN(86_400)) * 1000
	w.length = int64(30+w.r.IntN(31)) * 60_000
	for i := range 6 {
		w.nodes = append(w.nodes, &node{name: fmt.Sprintf("worker-%02d", i), busy: 0.3 + w.r.Float64(), disk: (30 + 40*w.r.Float64()) * 1e9, slow: 1})
	}
	for i, n := range names {
		s := &service{
			name: n, namespace: []string{"shop", "payments", "platform"}[i%3], rate: 2 + 40*w.r.Float64(), latency: 0.01 + 0.08*w.r.Float64(),
			memory: (60 + 300*w.r.Float64()) * 1e6, fails: 0.001 * w.r.Float64(), daily: 0.6 * w.r.Float64(), extra: map[string]float64{},
		}
		if i > 3 {
			s.uses = w.services[w.r.IntN(i)]
		}
		w.services = append(w.services, s)
		for range 2 + w.r.IntN(3) {
			w.start(s, 0)
		}
		w.expiry[n] = float64(w.base)/1000 + 86_400*(20+60*w.r.Float64())
	}
	return w
}

func (w *world) start(s *service, at int64) *pod {
	p := &pod{
		name: fmt.Sprintf("%s-%05x-%05x", s.name, 0x6f7c8+s.version*977, w.r.IntN(1<<20)), service: s, node: w.nodes[w.r.IntN(len(w.nodes))],
		born: at, cpu: 1, slow: 1, ip: fmt.Sprintf("10.0.%d.%d:8080", w.r.IntN(200), w.r.IntN(250)),
	}
	s.pods = append(s.pods, p)
	p.node.pods = append(p.node.pods, p)
	return p
}

// stop ends a pod: its series get staleness marks.
func (w *world) stop(p *pod) {
	p.service.pods = without(p.service.pods, p)
	p.node.pods = without(p.node.pods, p)
	w.stale(func(ls labels.Labels) bool { return ls.Get("pod") == p.name })
}

func without(all []*pod, p *pod) (out []*pod) {
	for _, x := range all {
		if x != p {
			out = append(out, x)
		}
	}
	return out
}

func (w *world) stale(is func(labels.Labels) bool) {
	for key, s := range w.series {
		if !w.gone[key] && is(s.labels) {
			w.gone[key] = true
			s.points = append(s.points, point{w.ms, math.Float64frombits(value.StaleNaN)})
			delete(w.counters, key)
		}
	}
}

// reset makes a pod's process begin anew.
func (w *world) reset(p *pod) {
	p.restarts++
	p.leak = 0
	for key := range w.counters {
		if strings.Contains(key, p.name) && !strings.HasPrefix(key, "container_") {
			w.counters[key] = 0
		}
	}
}

func (w *world) set(name string, v float64, pairs ...string) {
	key := name + "\xff" + strings.Join(pairs, "\xff")
	delete(w.gone, key)
	s := w.at(key, func() labels.Labels { return labels.FromStrings(append([]string{"__name__", name}, pairs...)...) })
	s.points = append(s.points, point{w.ms, v})
}

// add increases a counter by v a second, on average.
func (w *world) add(name string, v float64, pairs ...string) {
	key := name + "\xff" + strings.Join(pairs, "\xff")
	w.counters[key] += max(v, 0) * float64(w.interval) / 1000
	w.set(name, w.counters[key], pairs...)
}

// events increases a counter by whole numbers.
func (w *world) events(name string, v float64, pairs ...string) {
	key := name + "\xff" + strings.Join(pairs, "\xff")
	mean := max(v, 0) * float64(w.interval) / 1000
	w.counters[key] += max(0, math.Round(mean+math.Sqrt(mean)*w.r.NormFloat64()+w.r.Float64()-0.5))
	w.set(name, w.counters[key], pairs...)
}

// scrape appends one sample to each series.
func (w *world) scrape() {
	day := math.Sin(2 * math.Pi * float64(w.ms%86_400_000) / 86_400_000)
	for _, n := range w.nodes {
		used := n.busy
		for _, p := range n.pods {
			used += p.cpu * p.service.rate * 0.012
		}
		n.seen = used * w.wave("load"+n.name, 0.1)
		n.slow = 1 + 2*max(0, n.seen-3.2)
	}
	for _, s := range w.services {
		s.load(w, day)
	}
	for _, s := range w.services {
		for _, p := range s.pods {
			w.scrapePod(p)
		}
		w.scrapeService(s)
	}
	for _, n := range w.nodes {
		w.scrapeNode(n)
	}
	w.scrapeRest()
}

// load computes what the pods of a service do in this step.
func (s *service) load(w *world, day float64) {
	for _, p := range s.pods {
		p.rate = s.rate * (1 + s.daily*day) * w.wave("rate"+s.name, 0.06) * w.wave("rate"+p.name, 0.03) * max(s.extra["traffic"], 1)
		p.latency = s.latency * p.slow * p.node.slow * (1 + 3*p.throttle) * w.wave("latency"+p.name, 0.08) * max(s.extra["latency"], 1)
		p.failed = min(1, s.fails+p.fails+s.extra["fails"])
		p.latency += 0.001 * (w.dns - 1)
		p.failed = min(1, p.failed+w.dnsFail*0.5)
		if s.uses != nil && len(s.uses.pods) > 0 {
			u := s.uses.pods[w.r.IntN(len(s.uses.pods))]
			p.latency += 0.3 * u.latency
			p.failed = min(1, p.failed+0.3*u.failed)
		}
	}
}

func (w *world) scrapePod(p *pod) {
	s := p.service
	t := []string{"instance", p.ip, "job", s.name, "namespace", s.namespace, "pod", p.name}
	up := 1.0
	if p.down {
		up = 0
	}
	c := []string{"container", s.name, "namespace", s.namespace, "node", p.node.name, "pod", p.name}
	k := []string{"container", s.name, "namespace", s.namespace, "pod", p.name}
	w.set("up", up, t...)
	w.set("kube_pod_container_status_restarts_total", p.restarts, k...)
	w.set("kube_pod_info", 1, "node", p.node.name, "namespace", s.namespace, "pod", p.name)
	w.set("kube_pod_status_ready", up, "condition", "true", "namespace", s.namespace, "pod", p.name)
	w.set("container_spec_memory_limit_bytes", s.memory*4, c...)
	if p.down {
		return
	}
	p.leak += p.leaks * float64(w.interval) / 1000
	cpu := p.cpu * p.rate * 0.012 * w.wave("cpu"+p.name, 0.1)
	mem := s.memory*w.wave("mem"+p.name, 0.02) + p.leak + 2e5*p.rate*p.latency
	w.add("container_cpu_usage_seconds_total", cpu, c...)
	w.events("container_cpu_cfs_periods_total", 10, c...)
	w.events("container_cpu_cfs_throttled_periods_total", 10*min(1, p.throttle+0.005), c...)
	w.set("container_memory_working_set_bytes", mem*1.1, c...)
	w.set("container_memory_rss", mem, c...)
	w.add("container_network_receive_bytes_total", p.rate*900*w.wave("rx"+p.name, 0.1), c...)
	w.add("container_network_transmit_bytes_total", p.rate*4000*w.wave("tx"+p.name, 0.1), c...)
	w.add("process_cpu_seconds_total", cpu, t...)
	w.set("process_resident_memory_bytes", mem*1.02, t...)
	w.set("process_start_time_seconds", float64(p.born)/1000+60*p.restarts, t...)
	w.set("process_open_fds", math.Round(20+p.rate*p.latency*4+3*w.r.Float64()), t...)
	w.set("go_goroutines", math.Round(30+20*p.rate*p.latency+4*w.r.Float64()), t...)
	w.set("go_memstats_heap_inuse_bytes", mem*(0.5+0.2*w.r.Float64()), t...)
	w.events("go_gc_duration_seconds_count", 0.05+cpu*0.1, t...)
	w.scrapeRequests(p, t)
}

func (w *world) scrapeRequests(p *pod, t []string) {
	for i, h := range []string{"/", "/api/items", "/api/submit"} {
		rate := p.rate * []float64{0.6, 0.3, 0.1}[i]
		pairs := append(t, "handler", h)
		for _, c := range []struct {
			code  string
			share float64
		}{{"200", 1 - p.failed - 0.01}, {"404", 0.01}, {"500", p.failed}} {
			if n := rate * c.share; c.code != "500" || n*float64(w.interval)/1000 > w.r.Float64() || w.counters["seen"+p.name+h] > 0 {
				if c.code == "500" {
					w.counters["seen"+p.name+h] = 1
				}
				w.events("http_requests_total", n, append(pairs, "code", c.code)...)
			}
		}
		seen := 0.0
		slow := p.latency * []float64{1, 2, 4}[i]
		for _, le := range []float64{0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, math.Inf(1)} {
			share := 1 - math.Exp(-le/slow)
			w.add("http_request_duration_seconds_bucket", math.Round(100*rate*max(share, seen))/100,
				append(pairs, "le", strconv.FormatFloat(le, 'g', -1, 64))...)
			seen = share
		}
		w.add("http_request_duration_seconds_count", math.Round(100*rate)/100, pairs...)
		w.add("http_request_duration_seconds_sum", rate*slow, pairs...)
	}
	if u := p.service.uses; u != nil && len(u.pods) > 0 {
		pairs := append(t, "upstream", u.name)
		w.events("client_requests_total", p.rate, pairs...)
		w.add("client_request_duration_seconds_sum", p.rate*u.pods[0].latency*0.6, pairs...)
		w.add("client_request_duration_seconds_count", p.rate, pairs...)
	}
	for i := range w.paths {
		if p.service.extra["explodes"] > 0 && p == p.service.pods[0] {
			w.events("cache_lookups_total", 0.1, append(t, "key", "user-"+strconv.Itoa(i))...)
		}
	}
	w.events("cache_lookups_total", p.rate, append(t, "key", "all")...)
}

func (w *world) scrapeService(s *service) {
	t := []string{"deployment", s.name, "namespace", s.namespace}
	ready := 0.0
	for _, p := range s.pods {
		if !p.down {
			ready++
		}
	}
	w.set("kube_deployment_status_replicas_available", ready, t...)
	w.set("kube_deployment_spec_replicas", float64(len(s.pods)), t...)
	w.set("kube_deployment_status_observed_generation", float64(3+s.version), t...)
	host := []string{"instance", "https://" + s.name + ".example.com", "job", "blackbox"}
	left := w.expiry[s.name] - float64(w.ms)/1000
	ok := 1.0
	if left < 0 || ready == 0 {
		ok = 0
	}
	w.set("probe_success", ok, host...)
	w.set("probe_ssl_earliest_cert_expiry", w.expiry[s.name], host...)
	w.set("probe_duration_seconds", 0.05*w.wave("probe"+s.name, 0.15)*(1+0.05*(w.dns-1)), host...)
}

func (w *world) scrapeNode(n *node) {
	t := []string{"instance", n.name + ":9100", "job", "node-exporter"}
	w.set("up", 1, t...)
	for i := range 4 {
		busy := min(0.98, n.seen/4)
		for _, m := range []struct {
			mode  string
			share float64
		}{{"user", busy * 0.7}, {"system", busy * 0.25}, {"iowait", 0.01}, {"idle", 1 - busy}} {
			w.add("node_cpu_seconds_total", m.share*w.wave("cpu"+n.name+m.mode, 0.05), append(t, "cpu", strconv.Itoa(i), "mode", m.mode)...)
		}
	}
	for _, load := range []string{"node_load1", "node_load5", "node_load15"} {
		w.set(load, n.seen*1.2*w.wave(load+n.name, 0.1), t...)
	}
	used := 0.0
	for _, p := range n.pods {
		used += p.service.memory + p.leak
	}
	n.disk += n.grows * float64(w.interval) / 1000
	w.set("node_memory_MemTotal_bytes", 16e9, t...)
	w.set("node_memory_MemAvailable_bytes", (16e9-2e9-used)*w.wave("mem"+n.name, 0.01), t...)
	for _, mount := range []string{"/", "/boot"} {
		avail := 100e9 - n.disk + 2e8*w.r.Float64()
		if mount == "/boot" {
			avail = 4e8
		}
		w.set("node_filesystem_avail_bytes", max(avail, 0), append(t, "mountpoint", mount)...)
		w.set("node_filesystem_size_bytes", 100e9, append(t, "mountpoint", mount)...)
	}
	w.add("node_disk_written_bytes_total", n.grows+2e6*w.wave("disk"+n.name, 0.4), append(t, "device", "sda")...)
	w.set("node_time_seconds", float64(w.ms)/1000+w.clock[n.name]+0.01*w.r.Float64(), t...)
	w.set("node_timex_offset_seconds", w.clock[n.name]/1000+1e-5*w.r.NormFloat64(), t...)
	w.set("node_boot_time_seconds", float64(w.base)/1000-4e6+w.clock[n.name], t...)
}

func (w *world) scrapeRest() {
	for i := range 2 {
		t := []string{"instance", "10.0.9." + strconv.Itoa(i) + ":9153", "job", "coredns"}
		rate := 80 * w.wave("dns"+t[1], 0.05)
		w.set("up", 1, t...)
		w.add("coredns_dns_request_duration_seconds_sum", rate*0.002*w.dns*w.wave("dnsl"+t[1], 0.1), t...)
		w.add("coredns_dns_request_duration_seconds_count", rate, t...)
		w.events("coredns_dns_responses_total", rate*(1-w.dnsFail-0.1), append(t, "rcode", "NOERROR")...)
		w.events("coredns_dns_responses_total", rate*0.1, append(t, "rcode", "NXDOMAIN")...)
		w.events("coredns_dns_responses_total", rate*w.dnsFail+0.001, append(t, "rcode", "SERVFAIL")...)
	}
	t := []string{"instance", "localhost:9090", "job", "prometheus"}
	w.set("prometheus_tsdb_head_series", float64(len(w.series)-len(w.gone)), t...)
	w.events("prometheus_tsdb_head_samples_appended_total", float64(len(w.series))/30, t...)
}
