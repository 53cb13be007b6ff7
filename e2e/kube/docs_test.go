//go:build linux

package kube

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/promdump/promdump/e2e/docs"
)

// What the pages show of a cluster is what the commands do in this one: of a
// Prometheus with a shell, a distroless one, and one that is restored into, under the
// names that the pages give them.
func TestDocs(t *testing.T) {
	c := booted(t)
	data := seed(t)
	// Namespaces of their own stand for those of the pages: none can be deleted here.
	stands := map[string]string{"monitoring": namespace(t), "stack": namespace(t), "laptop": namespace(t)}
	startPod(t, "ro", podOptions{name: "prometheus-0", namespace: stands["monitoring"], data: data.dir})
	startPod(t, "stack", podOptions{name: "prometheus-0", namespace: stands["stack"], data: data.dir})
	startPod(t, "other", podOptions{name: "prometheus-0", namespace: stands["laptop"], quiet: true})
	pages, err := docs.Pages("../..")
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, page := range pages {
		blocks, err := docs.Read(page)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(blocks, func(b docs.Block) bool { w, _ := b.Where(); return w == "cluster" }) {
			continue
		}
		ran++
		s := &docs.Session{
			Dir: t.TempDir(), Vary: true, Stands: map[string]string{},
			Env: []string{
				"KUBECONFIG=" + c.config, "TMPDIR=" + t.TempDir(), "XDG_CACHE_HOME=" + t.TempDir(),
				"PATH=" + filepath.Dir(program(t, "promdump")) + ":" + filepath.Dir(c.kubectl()) + ":" + os.Getenv("PATH"),
			},
		}
		for shown, here := range stands {
			s.Stands["-n "+shown] = "-n " + here
			s.Stands[shown+"/prometheus-0"] = here + "/prometheus-0"
			s.Stands["\n"+shown+" "] = "\n" + here + " " // in a table
		}
		s.Run(t, page, "cluster")
	}
	if ran == 0 {
		t.Error("no page shows a cluster")
	}
}
