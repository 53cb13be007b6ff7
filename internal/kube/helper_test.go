package kube

import (
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"sigs.k8s.io/yaml"
)

// podOf is a pod that runs, made of the YAML of its spec.
func podOf(t *testing.T, name, spec string, change ...func(*corev1.Pod)) *corev1.Pod {
	t.Helper()
	p := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(spec), &p.Spec); err != nil {
		t.Fatal(err)
	}
	p.Namespace, p.Name = "mon", name
	if ns, n, ok := strings.Cut(name, "/"); ok {
		p.Namespace, p.Name = ns, n
	}
	p.UID = types.UID("uid of " + p.Name)
	p.Status.Phase = corev1.PodRunning
	for _, c := range p.Spec.Containers {
		p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{
			Name: c.Name, Ready: true, State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
		})
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func labelled(kv ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Labels = map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			p.Labels[kv[i]] = kv[i+1]
		}
	}
}

func ownedBy(kind, name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, UID: types.UID("uid of " + kind + " " + name), Controller: &yes}}
	}
}

func inState(s corev1.ContainerState, last *corev1.ContainerStateTerminated) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		c := &p.Status.ContainerStatuses[0]
		c.State, c.Ready, c.LastTerminationState.Terminated = s, false, last
	}
}

func fakeClient(objects ...runtime.Object) (*Client, *fake.Clientset) {
	f := fake.NewClientset(objects...)
	return &Client{
		Namespace: "mon", core: f.CoreV1(), authz: f.AuthorizationV1(), authn: f.AuthenticationV1(),
		times: times{grace: 100 * time.Millisecond, poll: time.Millisecond, dial: 2 * time.Second},
	}, f
}

// told is what a person and a script are told of an error.
func told(err error) (message, hint string, code int) {
	if e, ok := errors.AsType[interface {
		error
		Hint() string
	}](err); ok {
		hint = e.Hint()
	}
	if e, ok := errors.AsType[interface {
		error
		ExitCode() int
	}](err); ok {
		code = e.ExitCode()
	}
	return err.Error(), hint, code
}

const (
	plain = `containers: [{name: prometheus, image: "prom/prometheus:v3"}]`

	chart = `
containers:
- {name: configmap-reload, image: "quay.io/prometheus-operator/prometheus-config-reloader:v0.88"}
- name: prometheus-server
  image: quay.io/prometheus/prometheus:v3.14.0
  args: [--storage.tsdb.retention.time=15d, --config.file=/etc/config/prometheus.yml, --storage.tsdb.path=/data]
  ports: [{containerPort: 9090}]
  volumeMounts: [{name: storage, mountPath: /data}]
volumes: [{name: storage, persistentVolumeClaim: {claimName: prometheus-server}}]
`
	operator = `
containers:
- name: prometheus
  image: quay.io/prometheus/prometheus@sha256:1111111111111111111111111111111111111111111111111111111111111111
  args: [--config.file=/etc/prometheus/config_out/prometheus.env.yaml, --storage.tsdb.path=/prometheus, --web.route-prefix=/, "--web.external-url=http://x/prom"]
  ports: [{name: web, containerPort: 9090}]
  volumeMounts: [{name: db, mountPath: /prometheus, subPath: prometheus-db}, {name: config, mountPath: /etc/prometheus/config_out}]
- {name: config-reloader, image: "quay.io/prometheus-operator/prometheus-config-reloader:v0.88"}
- name: thanos-sidecar
  image: quay.io/thanos/thanos:v0.40
  args: [sidecar, --tsdb.path=/thanos]
  volumeMounts: [{name: db, mountPath: /thanos, subPath: prometheus-db}]
volumes: [{name: db, emptyDir: {}}, {name: config, emptyDir: {}}]
`
)
