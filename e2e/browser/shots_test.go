package browser

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
)

// Pictures to be looked at; the first ones are those of docs/img.
func TestScreenshots(t *testing.T) {
	dir := os.Getenv("PROMDUMP_E2E_SCREENSHOTS")
	if dir == "" {
		t.Skip("not asked for: PROMDUMP_E2E_SCREENSHOTS=DIR")
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	bin := program(t)
	file := incident(t, bin)
	url := open(t, bin, "--rules", rulesFile(t), file)
	several := open(t, bin, file, big(t, bin))
	tabs := browser(t)
	for _, shot := range []struct {
		name, url, hash, scheme, ready string
		width, height                  int64
	}{
		{"overview", url, "", "light", `document.querySelectorAll(".bars li").length > 20 && document.querySelector(".count")`, 1280, 800},
		{"explore", url, "#explore?from=2026-11-24T20:40:00Z&to=2026-11-24T22:10:00Z&q=sum+by+(pod)+(rate(http_requests_total{code%3D%22500%22}[2m]))&q=container_memory_working_set_bytes%7Bnamespace%3D%22shop%22%7D", "dark", `document.querySelectorAll(".u-over").length === 2`, 1280, 1000},
		{"alerts", url, "#alerts?from=2026-11-24T20:40:00Z&to=2026-11-24T22:10:00Z", "light", `document.querySelectorAll(".strip button").length > 3`, 1280, 720},
		{"overview-dark-800", url, "", "dark", `document.querySelectorAll(".bars li").length > 20`, 800, 1000},
		{"explore-light-800", url, "#explore?q=sum+by+(code)+(rate(http_requests_total[2m]))&stacked=1&q=rpc_duration_seconds&show=table&at=2026-11-24T21:10:00Z&q=sum+by+(x", "light", `document.querySelector(".failure") && document.querySelector(".buckets")`, 800, 1100},
		{"alerts-dark-800", url, "#alerts", "dark", `document.querySelectorAll(".strip button").length > 3`, 800, 800},
		{"several", several, "", "light", `document.querySelectorAll(".bars li").length > 20`, 1280, 900},
		{"many", several, "#explore?from=2026-11-24T21:40:00Z&to=2026-11-24T22:40:00Z&q=big&q=nothing", "light", `document.querySelector("[data-capped]")`, 1280, 1000},
	} {
		t.Run(shot.name, func(t *testing.T) {
			p := visit(t, tabs, shot.url, shot.hash, prefers(shot.scheme), size(shot.width, shot.height), allow("400 (Bad Request)"))
			p.wait(shot.ready)
			p.wait(`!document.querySelector('[aria-busy="true"]')`)
			if shot.name == "explore" {
				box := eval[[]float64](p, `(() => { const r = document.querySelector(".u-over").getBoundingClientRect(); return [r.left + r.width * 0.36, r.top + r.height * 0.5] })()`)
				p.hover(box[0], box[1], `document.querySelector(".tip:not([hidden])")`)
			}
			png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, shot.name+".png"), png, 0o666); err != nil {
				t.Fatal(err)
			}
		})
	}
}
