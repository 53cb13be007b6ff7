//go:build linux

package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

type object = map[string]any

// podOptions say what a pod has that its template has not.
type podOptions struct {
	name      string           // default: one of its own
	namespace string           // default: that of the template
	data      string           // a data dir on this machine, copied in before the server starts
	quiet     bool             // scrapes nothing, so that its answers stay the same
	edit      func(pod object) // a last change
	unready   bool             // its server is not waited for: it may never serve
}

// pod is a running Prometheus.
type pod struct {
	t                          *testing.T
	cluster                    *cluster
	namespace, name, container string
	client                     *http.Client

	mu  sync.Mutex // of what follows
	id  string     // of the container
	pid int        // of its first process, on this machine
}

// templates are the pods of ../rig/pods/pods.yaml, by name.
var templates = sync.OnceValues(func() (map[string][]byte, error) {
	cmd := shared.command(context.Background(), shared.config, "create", "--dry-run=client", "-o", "json", "-f", filepath.Join(shared.scripts, "pods", "pods.yaml"))
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("read the pods: %w", err)
	}
	pods := map[string][]byte{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var one json.RawMessage
		if err := d.Decode(&one); err == io.EOF {
			return pods, nil
		} else if err != nil {
			return nil, err
		}
		var named struct{ Metadata struct{ Name string } }
		if err := json.Unmarshal(one, &named); err != nil {
			return nil, err
		}
		pods[named.Metadata.Name] = one
	}
})

// startPod starts a pod of a kind, prom-KIND of pods.yaml, with a name of its
// own, and waits until its server is ready. It is deleted with the test.
func startPod(t *testing.T, kind string, o podOptions) *pod {
	t.Helper()
	p := &pod{t: t, cluster: booted(t), name: fmt.Sprintf("prom-%s-%06x", kind, rand.IntN(1<<24))}
	if o.name != "" {
		p.name = o.name
	}
	all, err := templates()
	if err != nil {
		t.Fatal(err)
	}
	var spec object
	if err := json.Unmarshal(all["prom-"+kind], &spec); err != nil {
		t.Fatalf("no pod of kind %q: %v", kind, err)
	}
	meta := spec["metadata"].(object)
	meta["name"] = p.name
	if o.namespace != "" {
		meta["namespace"] = o.namespace
	}
	p.namespace = meta["namespace"].(string)
	server := p.server(spec)
	p.container = server["name"].(string)
	if o.quiet {
		quiet(server)
	}
	if o.data != "" {
		bring(spec, server, o.data)
	}
	if o.edit != nil {
		o.edit(spec)
	}
	b, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	kubectlIn(t, string(b), "create", "-f", "-")
	t.Cleanup(p.delete)
	p.client = &http.Client{Transport: &http.Transport{DialContext: p.dial}, Timeout: time.Minute}
	if !o.unready {
		p.ready()
	}
	return p
}

// server is the container with the Prometheus in it.
func (p *pod) server(spec object) object {
	for _, c := range spec["spec"].(object)["containers"].([]any) {
		if c := c.(object); strings.Contains(c["image"].(string), "/prom-") {
			return c
		}
	}
	panic("no Prometheus in " + p.name)
}

// quiet takes the configuration that scrapes nothing. Args of the pod replace
// all of the image's.
func quiet(server object) {
	args, ok := server["args"].([]any)
	if !ok {
		args = []any{"", "--storage.tsdb.path=/prometheus", "--web.enable-remote-write-receiver"}
	}
	args[0] = "--config.file=/etc/prometheus/quiet.yml"
	server["args"] = args
}

// uids are the users of the images.
var uids = map[string]int{"rig.local/prom-distroless:1": 65532, "rig.local/prom-busybox:1": 65534, "rig.local/prom-tar:1": 65534}

// bring adds a container that copies a data dir of this machine into the
// server's volume first, as the server's user.
func bring(pod, server object, data string) {
	spec := pod["spec"].(object)
	mount := server["volumeMounts"].([]any)[0].(object)
	spec["volumes"] = append(spec["volumes"].([]any), object{"name": "seed", "hostPath": object{"path": data, "type": "Directory"}})
	init := object{
		"name": "seed", "image": "rig.local/tools:1", "imagePullPolicy": "Never",
		"command":         []any{"cp", "-r", "/seed/.", mount["mountPath"]},
		"volumeMounts":    []any{mount, object{"name": "seed", "mountPath": "/seed", "readOnly": true}},
		"securityContext": object{"runAsUser": uids[server["image"].(string)]},
	}
	if first, ok := spec["initContainers"].([]any); ok {
		spec["initContainers"] = append([]any{init}, first...)
		return
	}
	spec["initContainers"] = []any{init}
}

// ready waits until the container runs and its server serves.
func (p *pod) ready() {
	p.t.Helper()
	wait := p.cluster.run(p.t, p.cluster.config, "-n", p.namespace, "wait", "--for=condition=Ready", "pod/"+p.name, "--timeout=90s")
	if wait.code != 0 {
		p.t.Fatalf("the pod is not ready: %s%s", wait.stderr, p.describe())
	}
	if !poll(60*time.Second, func() bool {
		resp, err := p.client.Get("http://127.0.0.1:9090/-/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}) {
		p.t.Fatalf("the server is not ready: %s", p.describe())
	}
}

func (p *pod) describe() string {
	c := p.cluster
	status := c.run(p.t, c.config, "-n", p.namespace, "get", "pod", p.name, "-o", "jsonpath={.status.phase}, {range .status.containerStatuses[*]}{.name}: {.state} after {.lastState}, {.restartCount} restarts{'\\n'}{end}")
	log := c.run(p.t, c.config, "-n", p.namespace, "logs", p.name, "-c", p.container, "--tail=20")
	return fmt.Sprintf("pod %s/%s is %s%sits log ends with\n%s%s", p.namespace, p.name, status.stdout, status.stderr, log.stdout, log.stderr)
}

func (p *pod) delete() {
	if p.t.Failed() {
		p.t.Log(p.describe())
	}
	p.client.CloseIdleConnections()
	kubectl(p.t, "-n", p.namespace, "delete", "pod", p.name, "--ignore-not-found", "--timeout=60s")
}

// status is what the apiserver says of the server's container.
type status struct {
	Name         string
	ContainerID  string
	RestartCount int
	State        map[string]object
}

func (p *pod) status() (status, error) {
	out, err := p.cluster.command(context.Background(), p.cluster.config, "-n", p.namespace, "get", "pod", p.name, "-o", "json").Output()
	if err != nil {
		return status{}, fmt.Errorf("get pod %s: %w", p.name, err)
	}
	var one struct {
		Status struct{ ContainerStatuses []status }
	}
	if err := json.Unmarshal(out, &one); err != nil {
		return status{}, err
	}
	i := slices.IndexFunc(one.Status.ContainerStatuses, func(s status) bool { return s.Name == p.container })
	if i < 0 {
		return status{}, fmt.Errorf("pod %s has no container %s yet", p.name, p.container)
	}
	return one.Status.ContainerStatuses[i], nil
}

// restarts is how often the container was started anew.
func (p *pod) restarts() int {
	p.t.Helper()
	s, err := p.status()
	if err != nil {
		p.t.Fatal(err)
	}
	return s.RestartCount
}

// exec runs a command in the container, as the admin.
func (p *pod) exec(command ...string) result {
	p.t.Helper()
	return p.execBy(p.cluster.config, command...)
}

// execBy is exec with this kubeconfig.
func (p *pod) execBy(config string, command ...string) result {
	p.t.Helper()
	return p.cluster.run(p.t, config, append([]string{"-n", p.namespace, "exec", p.name, "-c", p.container, "--"}, command...)...)
}
