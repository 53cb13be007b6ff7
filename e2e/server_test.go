package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	config "github.com/prometheus/common/config"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/prompb"
	"github.com/prometheus/prometheus/storage/remote"

	"github.com/golang/snappy"
	"github.com/promdump/promdump/internal/tsdbtest"
	"github.com/promdump/promdump/internal/wire"
)

// server is a running Prometheus.
type server struct {
	client remote.ReadClient // nil until it is asked
	t      *testing.T
	url    string
	dir    string
	cmd    *exec.Cmd
	log    *logBuffer
	done   chan struct{}
	once   sync.Once
}

// serverOptions say how a server is started.
type serverOptions struct {
	binary string   // default: the one built from the module
	target string   // host:port to scrape every half second; empty: none
	window string   // of out-of-order samples; empty: none
	args   []string // more flags
	global string   // more lines of the config's global section
	config string   // more sections of the config
	prefix string   // of its routes
	login  func(*http.Request)
}

// quick makes a server compact every few seconds.
var quick = []string{
	"--storage.tsdb.min-block-duration=4s", "--storage.tsdb.max-block-duration=36s", "--storage.tsdb.block-reload-interval=1s",
	"--storage.tsdb.wal-segment-size=10MB", "--web.enable-remote-write-receiver",
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// start runs a server on the data dir until it is ready.
func start(t *testing.T, dir string, o serverOptions) *server {
	t.Helper()
	old := o.binary != ""
	if !old {
		o.binary = binary(t).prometheus
	}
	cfg := "global:\n  scrape_interval: 500ms\n  scrape_timeout: 400ms\n" + o.global
	if o.target != "" {
		cfg += "scrape_configs:\n- job_name: target\n"
		if !old {
			cfg += "  scrape_native_histograms: true\n"
		}
		cfg += "  static_configs:\n  - targets: [\"" + o.target + "\"]\n"
	}
	if o.window != "" {
		cfg += "storage:\n  tsdb:\n    out_of_order_time_window: " + o.window + "\n"
	}
	cfg += o.config
	file := filepath.Join(t.TempDir(), "prometheus.yml")
	if err := os.WriteFile(file, []byte(cfg), 0o666); err != nil {
		t.Fatal(err)
	}
	// A port that is free now may be taken by the time that the server binds it.
	for attempt := range 3 {
		s := &server{t: t, dir: dir, log: &logBuffer{}, done: make(chan struct{})}
		if s.try(file, o) {
			t.Cleanup(s.stop)
			return s
		}
		s.stop()
		if attempt == 2 || !strings.Contains(s.log.String(), "address already in use") {
			t.Fatalf("the server did not start:\n%s", s.log)
		}
	}
	panic("unreachable")
}

func (s *server) try(file string, o serverOptions) bool {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		s.t.Fatal(err)
	}
	s.url = "http://" + addr + o.prefix
	args := append([]string{"--config.file=" + file, "--storage.tsdb.path=" + s.dir, "--web.listen-address=" + addr}, o.args...)
	s.cmd = exec.Command(o.binary, args...)
	s.cmd.Stdout, s.cmd.Stderr = s.log, s.log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // not left behind by a test that dies
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() {
		_ = s.cmd.Wait() // its exit is seen in the log
		close(s.done)
	}()
	return poll(60*time.Second, func() bool {
		select {
		case <-s.done:
			return true
		default:
		}
		req, err := http.NewRequest(http.MethodGet, s.url+"/-/ready", nil)
		if err != nil {
			s.t.Fatal(err)
		}
		if o.login != nil {
			o.login(req)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	}) && s.alive()
}

func (s *server) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// stop ends the server as Kubernetes would, and shows its log if the test failed.
func (s *server) stop() {
	s.once.Do(func() {
		_ = s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.done:
		case <-time.After(30 * time.Second):
			_ = s.cmd.Process.Kill()
			<-s.done
			s.t.Errorf("the server did not end on SIGTERM")
		}
		if s.t.Failed() {
			log := s.log.String()
			s.t.Logf("log of the server on %s, its end:\n%s", s.dir, log[max(0, len(log)-6000):])
		}
	})
}

// poll asks until the answer is yes or the time is over.
func poll(limit time.Duration, ready func() bool) bool {
	deadline := time.Now().Add(limit)
	for !ready() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(50 * time.Millisecond)
	}
	return true
}

// export is everything that the server serves of a selection, by its remote
// read API, streamed: chunks of blocks, head and out-of-order head.
func (s *server) export(sel wire.Selection) tsdbtest.Served {
	s.t.Helper()
	client := s.reader()
	lists, err := tsdbtest.Matchers(sel)
	if err != nil {
		s.t.Fatal(err)
	}
	served := tsdbtest.Served{}
	for _, list := range lists {
		for _, m := range list {
			if m.Name == "" { // the API wants a label; every series has a name
				m.Name = "__name__"
			}
		}
		q, err := remote.ToQuery(sel.MinTime, sel.MaxTime, list, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		set, err := client.Read(s.t.Context(), q, true)
		if err != nil {
			s.t.Fatalf("remote read: %v", err)
		}
		if err := tsdbtest.Collect(served, set, sel.MinTime, sel.MaxTime); err != nil {
			s.t.Fatalf("remote read: %v", err)
		}
	}
	return served
}

// reader is one for all reads: each has connections of its own that stay open,
// and a server takes 512.
func (s *server) reader() remote.ReadClient {
	if s.client != nil {
		return s.client
	}
	u, err := url.Parse(s.url + "/api/v1/read")
	if err != nil {
		s.t.Fatal(err)
	}
	s.client, err = remote.NewReadClient("e2e", &remote.ClientConfig{
		URL: &config.URL{URL: u}, Timeout: model.Duration(time.Minute), ChunkedReadLimit: 1 << 28,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return s.client
}

// get asks the API and gives the data of its answer, or false if it could not
// be executed.
func (s *server) get(path string, params url.Values) (string, bool) {
	s.t.Helper()
	resp, err := http.Get(s.url + path + "?" + params.Encode())
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	if resp.StatusCode == http.StatusUnprocessableEntity {
		return "", false
	}
	var answer struct {
		Status string
		Data   json.RawMessage
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.Status != "success" {
		s.t.Fatalf("GET %s: %s %.500s", path, resp.Status, body)
	}
	return string(answer.Data), true
}

// blocks lists the names of the block directories.
func blocks(t *testing.T, dir string) []string {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(dir, "*", "meta.json"))
	if err != nil {
		t.Fatal(err)
	}
	return metas
}

// write sends series by remote write. An answer other than success is an error.
func (s *server) write(ctx context.Context, series ...prompb.TimeSeries) error {
	b, err := (&prompb.WriteRequest{Timeseries: series}).Marshal()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/api/v1/write", bytes.NewReader(snappy.Encode(nil, b)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Encoding", "snappy")
	req.Header.Set("Content-Type", "application/x-protobuf")
	req.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		body, err := io.ReadAll(resp.Body)
		return errors.Join(fmt.Errorf("remote write: %s %.300s", resp.Status, body), err)
	}
	return nil
}

// label makes labels of name, value, name, value, …, sorted by name.
func label(pairs ...string) (ls []prompb.Label) {
	for i := 0; i < len(pairs); i += 2 {
		ls = append(ls, prompb.Label{Name: pairs[i], Value: pairs[i+1]})
	}
	return ls
}

// ms is a time as the command line and the TSDB have it.
func ms(t int64) string { return fmt.Sprint(t) }
