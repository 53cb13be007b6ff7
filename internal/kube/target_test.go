package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestChooseContainer(t *testing.T) {
	for _, c := range []struct {
		name, spec, annotation, ask, want string
	}{
		{"single", `containers: [{name: any, image: any}]`, "", "", "any"},
		{"asked for", chart, "", "configmap-reload", "configmap-reload"},
		{"not there", chart, "", "nope", ""},
		{"flag", `containers: [{name: prometheus, image: prom/prometheus}, {name: b, image: x, args: [--storage.tsdb.path=/d]}]`, "prometheus", "", "b"},
		{"annotation", `containers: [{name: prometheus, image: x}, {name: b, image: x}]`, "b", "", "b"},
		{"annotation decides among two", `containers: [{name: a, image: x, args: [--storage.tsdb.path=/a]}, {name: b, image: x, args: [--storage.tsdb.path=/b]}]`, "b", "", "b"},
		{"annotation of none", `containers: [{name: prometheus, image: x}, {name: b, image: x}]`, "c", "", "prometheus"},
		{"name", `containers: [{name: proxy, image: x}, {name: prometheus-server, image: x}]`, "", "", "prometheus-server"},
		{"image", `containers: [{name: proxy, image: x}, {name: p, image: "r:5000/prometheus/prometheus:v3@sha256:ab"}]`, "", "", "p"},
		{"image by digest", `containers: [{name: proxy, image: x}, {name: p, image: "quay.io/prometheus/prometheus@sha256:ab"}]`, "", "", "p"},
		{"no image of it", `containers: [{name: a, image: x}, {name: p, image: "quay.io/prometheus/alertmanager:1"}]`, "", "", ""},
		{"sidecar", `{containers: [{name: a, image: x}], initContainers: [{name: init, image: x}, {name: side, image: x, restartPolicy: Always}]}`, "", "side", "side"},
		{"init container", `{containers: [{name: a, image: x}], initContainers: [{name: init, image: x}]}`, "", "init", ""},
	} {
		p := podOf(t, "p", c.spec, func(p *corev1.Pod) { p.Annotations = map[string]string{defaultContainer: c.annotation} })
		got, err := choose(p, c.ask)
		switch {
		case c.want == "":
			e, ok := errors.AsType[*ContainerError](err)
			if !ok || len(e.Containers) != len(containers(p)) || e.ExitCode() != 10 {
				t.Errorf("%s: %v", c.name, err)
			}
		case err != nil || got.Name != c.want:
			t.Errorf("%s: %v, %v, want %s", c.name, got, err, c.want)
		}
	}
}

func TestLooksLike(t *testing.T) {
	const other = `containers: [{name: a, image: x}]`
	for _, c := range []struct {
		name   string
		spec   string
		labels []string
		want   bool
	}{
		{"image", plain, nil, true},
		{"operator", operator, nil, true},
		{"chart", chart, nil, true},
		{"other", other, nil, false},
		{"label", other, []string{"app.kubernetes.io/name", "prometheus"}, true},
		{"label of the server", other, []string{"app.kubernetes.io/name", "prometheus", "app.kubernetes.io/component", "server"}, true},
		{"label of kube-prometheus", other, []string{"app.kubernetes.io/name", "prometheus", "app.kubernetes.io/component", "prometheus"}, true},
		{"label of an old chart's other part", other, []string{"app", "prometheus", "component", "alertmanager"}, false},
		{"old label", other, []string{"app", "prometheus"}, true},
		{"operator itself", `containers: [{name: a, image: "quay.io/prometheus-operator/prometheus-operator:v1"}]`, []string{"app.kubernetes.io/name", "prometheus-operator"}, false},
		{"exporter", `containers: [{name: a, image: "prom/node-exporter"}]`, []string{"app.kubernetes.io/name", "node-exporter"}, false},
		{"agent", `containers: [{name: prometheus, image: prom/prometheus, args: [--agent, --storage.agent.path=/d]}]`, nil, false},
		{"agent by feature", `containers: [{name: prometheus, image: prom/prometheus, args: ["--enable-feature=x,agent"]}]`, nil, false},
		{"flag alone", `containers: [{name: a, image: x, args: [--storage.tsdb.path=/d]}]`, nil, true},
	} {
		if got := looksLike(podOf(t, "p", c.spec, labelled(c.labels...))); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestDataDir(t *testing.T) {
	for _, c := range []struct {
		name, spec string
		q          Query
		dir, from  string
		first      []string // candidates
	}{
		{"given", chart, Query{DataDir: "/x"}, "/x", "given", []string{"/x"}},
		{"flag", chart, Query{}, "/data", "--storage.tsdb.path", []string{"/data"}},
		{"operator", operator, Query{}, "/prometheus", "--storage.tsdb.path", []string{"/prometheus"}},
		{"shared", operator, Query{Container: "thanos-sidecar"}, "/thanos", "volume db, shared with container prometheus", []string{"/thanos"}},
		{"not shared", operator, Query{Container: "config-reloader"}, "", "not in the pod's spec", []string{"/prometheus", "/data"}},
		{"whole volume shared", `
containers:
- {name: prometheus, image: x, args: [--storage.tsdb.path=/p/tsdb], volumeMounts: [{name: v, mountPath: /p, subPath: db}]}
- {name: side, image: x, volumeMounts: [{name: v, mountPath: /all}]}
volumes: [{name: v, emptyDir: {}}]`, Query{Container: "side"}, "/all/db/tsdb", "volume v, shared with container prometheus", []string{"/all/db/tsdb"}},
		{"another part of the volume", `
containers:
- {name: prometheus, image: x, args: [--storage.tsdb.path=/p], volumeMounts: [{name: v, mountPath: /p, subPath: db}]}
- {name: side, image: x, volumeMounts: [{name: v, mountPath: /all, subPath: other}]}
volumes: [{name: v, emptyDir: {}}]`, Query{Container: "side"}, "", "not in the pod's spec", []string{"/prometheus"}},
		{"image decides", plain, Query{}, "", "not in the pod's spec", []string{"/prometheus", "/data", "/prometheus/data"}},
		{"arguments without it", `containers: [{name: prometheus, image: prom/prometheus, args: [--config.file=x]}]`, Query{}, "", "not in the pod's spec", []string{"/prometheus/data", "/prometheus", "/data"}},
		{"arguments without it, a working directory", `containers: [{name: prometheus, image: x, workingDir: /w, args: [--config.file=x]}]`, Query{}, "", "not in the pod's spec", []string{"/w/data", "/prometheus"}},
		{"relative", `containers: [{name: prometheus, image: x, args: [--storage.tsdb.path=db]}]`, Query{}, "", "not in the pod's spec", []string{"/prometheus/db"}},
		{"usual mount", `containers: [{name: prometheus, image: x, volumeMounts: [{name: v, mountPath: /data}]}]`, Query{}, "", "not in the pod's spec", []string{"/data", "/prometheus"}},
		{"other mount", `containers: [{name: prometheus, image: x, volumeMounts: [{name: c, mountPath: /etc/prometheus}, {name: r, mountPath: /ro, readOnly: true}, {name: v, mountPath: /var/lib/prom}]}]`, Query{}, "", "not in the pod's spec", []string{"/prometheus", "/data", "/var/lib/prom", "/var/lib/prom/data", "/prometheus/data"}},
	} {
		got, err := newTarget(podOf(t, "p", c.spec), c.q)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if got.DataDir != c.dir || got.DataDirFrom != c.from || len(got.Dirs()) < len(c.first) || cmp.Diff(c.first, got.Dirs()[:len(c.first)]) != "" {
			t.Errorf("%s: %q from %q, candidates %q", c.name, got.DataDir, got.DataDirFrom, got.Dirs())
		}
	}
}

func TestVolume(t *testing.T) {
	for _, c := range []struct {
		volume, want string
		lasting      bool
	}{
		{`persistentVolumeClaim: {claimName: c}`, "PersistentVolumeClaim c", true},
		{`emptyDir: {}`, "emptyDir", false},
		{`emptyDir: {medium: Memory}`, "emptyDir in memory", false},
		{`hostPath: {path: /h}`, "hostPath /h", true},
		{`ephemeral: {}`, "ephemeral volume", false},
		{`nfs: {server: s, path: p}`, "volume v", true},
	} {
		p := podOf(t, "p", `{containers: [{name: a, image: x, args: [--storage.tsdb.path=/p/data], volumeMounts: [{name: other, mountPath: /}, {name: v, mountPath: /p/}]}], volumes: [{name: other, emptyDir: {}}, {name: v, `+c.volume+`}]}`)
		got, err := newTarget(p, Query{})
		if err != nil || got.Volume != c.want || got.Lasting != c.lasting {
			t.Errorf("%s: %q, %v, %v", c.volume, got.Volume, got.Lasting, err)
		}
	}
	got, err := newTarget(podOf(t, "p", `{containers: [{name: a, image: x, args: [--storage.tsdb.path=/prom], volumeMounts: [{name: v, mountPath: /pro}]}], volumes: [{name: v, hostPath: {path: /}}]}`), Query{})
	if err != nil || got.Lasting || got.Volume != "the container's own filesystem" {
		t.Errorf("no volume: %q, %v, %v", got.Volume, got.Lasting, err)
	}
}

func TestWeb(t *testing.T) {
	for _, c := range []struct {
		spec   string
		port   int
		prefix string
	}{
		{plain, 9090, ""},
		{operator, 9090, ""},
		{`containers: [{name: a, image: x, args: ["--web.listen-address=127.0.0.1:9091", "--web.external-url=http://h/a/b/"]}]`, 9091, "/a/b"},
		{`containers: [{name: a, image: x, args: ["--web.listen-address=:9092", "--web.external-url=http://h/a", "--web.route-prefix=c"]}]`, 9092, "/c"},
		{`containers: [{name: a, image: x, ports: [{containerPort: 80}]}]`, 80, ""},
		{`containers: [{name: a, image: x, ports: [{name: grpc, containerPort: 1}, {name: http, containerPort: 2}]}]`, 2, ""},
		{`containers: [{name: a, image: x, ports: [{name: grpc, containerPort: 1}, {name: y, containerPort: 2}]}]`, 9090, ""},
	} {
		got, err := newTarget(podOf(t, "p", c.spec), Query{})
		if err != nil || got.Port != c.port || got.Prefix != c.prefix {
			t.Errorf("%s: %d %q, %v", c.spec, got.Port, got.Prefix, err)
		}
	}
	if got, _ := newTarget(podOf(t, "p", strings.Replace(operator, "route-prefix=/,", "x=1,", 1)), Query{Container: "thanos-sidecar"}); got.Prefix != "/prom" {
		t.Errorf("from a sidecar: %q", got.Prefix)
	}
}

func TestState(t *testing.T) {
	oom := &corev1.ContainerStateTerminated{Reason: "OOMKilled", ExitCode: 137}
	wait := func(reason, message string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	}
	for _, c := range []struct {
		name   string
		change func(*corev1.Pod)
		want   string
	}{
		{"running", func(*corev1.Pod) {}, ""},
		{"crash loop", inState(wait("CrashLoopBackOff", "back-off 10s"), oom), "CrashLoopBackOff, it ended with OOMKilled, exit code 137"},
		{"no image", inState(wait("ImagePullBackOff", "no such image\nmore"), nil), "ImagePullBackOff, no such image"},
		{"ended", inState(corev1.ContainerState{Terminated: oom}, nil), "OOMKilled, exit code 137"},
		{"terminating", func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }, "Terminating"},
		{"evicted", func(p *corev1.Pod) {
			inState(corev1.ContainerState{Terminated: oom}, nil)(p)
			p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "Evicted", "low on memory"
		}, "Evicted, low on memory"},
		{"unschedulable", func(p *corev1.Pod) {
			p.Status = corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionFalse}, {Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes"}}}
		}, "Unschedulable, 0/3 nodes"},
		{"nothing known", func(p *corev1.Pod) { p.Status = corev1.PodStatus{} }, "Pending"},
		{"init", func(p *corev1.Pod) {
			inState(wait("PodInitializing", ""), nil)(p)
			p.Status.Phase = corev1.PodPending
			p.Status.InitContainerStatuses = []corev1.ContainerStatus{{Name: "i", State: wait("CrashLoopBackOff", "x")}}
		}, "Init:CrashLoopBackOff, init container i"},
	} {
		got, err := newTarget(podOf(t, "p", plain, c.change), Query{})
		if err != nil {
			t.Fatal(err)
		}
		if c.want == "" {
			if !got.Running || !got.Ready || got.Phase != "Running" || got.Reason != "" {
				t.Errorf("%s: %+v", c.name, got)
			}
			continue
		}
		if got.Running || join(got.Phase, got.Reason) != c.want {
			t.Errorf("%s: %v, %q", c.name, got.Running, join(got.Phase, got.Reason))
		}
	}
}
