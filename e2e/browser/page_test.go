package browser

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// One Chromium and three servers for all: each of them takes a while to start.
func TestPage(t *testing.T) {
	bin := program(t)
	tabs := browser(t)
	file := incident(t, bin)
	url := open(t, bin, "--rules", rulesFile(t), file)
	plain := open(t, bin, file)
	many := open(t, bin, file, big(t, bin))
	for _, test := range []struct {
		name string
		run  func(t *testing.T, tabs context.Context, url string)
		url  string
	}{
		{"first view", firstView, plain},
		{"several dumps", severalDumps, many},
		{"a query", aQuery, url},
		{"typed at once", typedAtOnce, url},
		{"completion", completion, url},
		{"zoom", zoom, url},
		{"time line", timeLine, url},
		{"panels", panels, url},
		{"a URL is the view", shared, url},
		{"errors", errorsInPlace, url},
		{"nothing found", nothingFound, url},
		{"native histograms", histograms, url},
		{"alerts", alerts, url},
		{"no rules", noRules, plain},
		{"dark and light", darkAndLight, url},
		{"local time", localTime, url},
		{"keys alone", keysAlone, url},
		{"ten thousand series", tenThousand, many},
		{"nothing gets in or out", policy, url},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, tabs, test.url) })
	}
	t.Run("server gone", func(t *testing.T) { serverGone(t, tabs, bin, file) })
}

func firstView(t *testing.T, tabs context.Context, url string) {
	begun := time.Now()
	p := visit(t, tabs, url, "")
	p.wait(`document.querySelectorAll(".bars li").length > 10`)
	t.Logf("shown after %v", time.Since(begun).Round(time.Millisecond))
	for _, want := range []string{
		"incident.tar.gz", "verified", "shop-prometheus", "data directory", "2026-11-24 16:40:00 – 22:40:00 UTC", "2 whole of 2 blocks, and its head as blocks", "Made by",
		"http_request_duration_seconds_bucket", "rpc_duration_seconds", "namespace", "job=kubernetes-pods",
	} {
		p.waitText(want)
	}
	if n := eval[int](p, `document.querySelectorAll("button.block").length`); n < 3 {
		t.Errorf("%d blocks on the time line", n)
	}
	if got := eval[string](p, "document.title"); got != "incident.tar.gz · promdump" {
		t.Errorf("the title is %q", got)
	}
	// A metric is one click away from its graph.
	p.do(chromedp.Click(chromedp.CSS(`[aria-label="rate of http_requests_total"]`)))
	p.wait(`document.querySelector(".u-over")`)
	if got, want := p.hash(), "#explore?q=rate(http_requests_total[5m])"; got != want {
		t.Errorf("the URL is %q, want %q", got, want)
	}
}

func severalDumps(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "")
	p.waitText("2 dumps")
	p.waitText("big.tar.gz")
	p.waitText("incident.tar.gz")
	p.waitText("no data, 5h 30m")
	if n := eval[int](p, `document.querySelectorAll(".facts").length`); n != 2 {
		t.Errorf("%d dumps are described", n)
	}
}

func aQuery(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore")
	p.keys("/")
	p.wait(`document.activeElement.matches(".editor")`)
	p.keys(`sum by (pod) (up{namespace="shop"})`) // each key by itself: brackets close themselves
	p.keys("\r")
	p.wait(`document.querySelector(".u-over")`)
	p.waitText("8 series")
	if got, want := p.hash(), `#explore?q=sum by (pod) (up{namespace="shop"})`; got != want {
		t.Errorf("the URL is %q, want %q", got, want)
	}
	// What was drawn is what Prometheus would answer: there are pixels of the first line's colour.
	if n := eval[int](p, `(() => { const c = document.querySelector("canvas"); const d = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4) if (d[i+3] > 200 && Math.max(d[i], d[i+1], d[i+2]) - Math.min(d[i], d[i+1], d[i+2]) > 60) n++; return n })()`); n < 300 {
		t.Errorf("%d coloured pixels", n)
	}
	// The table is at the end of the dump, not now.
	p.do(chromedp.Click(chromedp.JSPath(`[...document.querySelectorAll(".choice button")].find(b => b.textContent === "Table")`)))
	p.wait(`document.querySelectorAll(".answer tbody tr").length === 8`)
	p.wait(`document.querySelector('[aria-label="Instant of the table"]').value === "2026-11-24 22:40:00"`)
	p.waitText("checkout-0")
	// The one that was killed is not up then.
	p.fill(`[aria-label="Instant of the table"]`, "2026-11-24 21:21:00")
	p.wait(`[...document.querySelectorAll(".answer tbody tr")].some(r => r.innerText.replace(/\s+/g, " ").trim() === "0 checkout-0")`)
}

// typedAtOnce: who types as soon as there is something to type into loses nothing.
// Effects that wait for the page to be painted come only after these keys.
func typedAtOnce(t *testing.T, tabs context.Context, url string) {
	for _, hash := range []string{"#explore", ""} {
		p := visit(t, tabs, url, hash, before(`{
      let pressed = false;
      new MutationObserver((_, seen) => {
        if (document.querySelector("main") && !pressed) pressed = dispatchEvent(new KeyboardEvent("keydown", { key: "/" })) || true;
        if (!document.activeElement?.matches(".editor")) return;
        seen.disconnect();
        document.execCommand("insertText", false, "up");
      }).observe(document, { childList: true, subtree: true });
    }`))
		p.wait(`document.documentElement.dataset.theme`) // by such an effect
		p.wait(`document.activeElement.matches(".editor")`)
		p.keys("\r", chromedp.ModifierCtrl)
		p.wait(`document.querySelector(".u-over")`)
		if got := p.hash(); got != "#explore?q=up" {
			t.Errorf("from %q, typed at once: the URL is %q", hash, got)
		}
	}
}

func completion(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore")
	const offers = `[...document.querySelector(".editor").shadowRoot.querySelectorAll(".cm-tooltip-autocomplete li")].map(e => e.innerText).join("\n")`
	p.keys("/")
	p.wait(`document.activeElement.matches(".editor")`)
	p.keys("rate(http_requ")
	p.wait(offers + `.includes("http_requests_total")`)
	p.take() // the first offer, and does not run anything
	p.wait(`!document.querySelector(".failure") && document.querySelector(".editor").shadowRoot.querySelector(".cm-content").innerText.startsWith("rate(http_request")`)
	// What is offered after a whole query, Enter does not take: operators.
	p.keys("a", chromedp.ModifierCtrl)
	p.keys("vector(1)")
	p.wait(offers + `.includes("unless")`)
	p.take()
	p.wait(`location.hash === "#explore?q=vector(1)"`)
	// Labels and their values are the dump's, though it is long ago.
	p.keys("a", chromedp.ModifierCtrl)
	p.keys("up{nam")
	p.wait(offers + `.includes("namespace")`)
	p.take()
	p.keys("=\"pay")
	p.wait(offers + `.includes("payments")`)
	p.take()
	p.keys("\r", chromedp.ModifierCtrl)
	p.wait(`document.querySelector(".u-over")`)
	p.waitText("2 series")
	// Colours: the language is known.
	if n := eval[int](p, `new Set([...document.querySelector(".editor").shadowRoot.querySelectorAll(".cm-line span")].map(e => getComputedStyle(e).color)).size`); n < 2 {
		t.Errorf("the query has %d colours", n)
	}
}

func zoom(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore?q=go_goroutines")
	p.wait(`document.querySelector(".u-over")`)
	p.drag(".u-over", 0.5, 0.75)
	p.wait(`location.hash.includes("from=")`)
	from, to := eval[float64](p, `Date.parse(new URLSearchParams(location.hash.split("?")[1]).get("from"))`), eval[float64](p, `Date.parse(new URLSearchParams(location.hash.split("?")[1]).get("to"))`)
	for _, c := range []struct{ got, part float64 }{{from, 0.5}, {to, 0.75}} {
		want := float64(begin.UnixMilli()) + c.part*float64(now.Sub(begin).Milliseconds())
		if diff := time.Duration(c.got-want) * time.Millisecond; diff.Abs() > 3*time.Minute {
			t.Errorf("zoomed to %v from where it was dragged", diff)
		}
	}
	p.waitText("every 30s") // the step goes with the range
	p.do(chromedp.NavigateBack())
	p.wait(`!location.hash.includes("from=")`)
	p.waitText("every 2m")
	p.do(chromedp.NavigateForward())
	p.waitText("every 30s")
	p.do(chromedp.DoubleClick(chromedp.CSS(".u-over")))
	p.wait(`!location.hash.includes("from=")`)
	p.waitText("every 2m")
	// The pointer on a line tells its series.
	box := eval[[]float64](p, `(() => { const r = document.querySelector(".u-over").getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height * 0.9] })()`)
	p.hover(box[0], box[1], `/2026-11-24 19:[34]\d:\d\d[^]*pod=/.test(document.querySelector(".tip:not([hidden])")?.innerText)`)
	// A click keeps the instant for tables.
	p.do(chromedp.MouseClickXY(box[0], box[1]))
	p.wait(`/at=2026-11-24T19:[34]/.test(location.hash)`)
	// A series is hidden by its swatch, and all others with Ctrl.
	p.do(chromedp.Click(chromedp.CSS(".swatch")))
	p.wait(`document.querySelectorAll('.swatch[aria-pressed="true"]').length === 10`)
}

func timeLine(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "")
	p.wait(`document.querySelector("button.block")`)
	p.drag(".track", 0.25, 0.5) // over blocks, too
	p.wait(`location.hash.startsWith("#overview?from=2026-11-24T18:")`)
	p.do(chromedp.Click(chromedp.CSS("nav a:nth-child(2)")))
	p.wait(`location.hash.startsWith("#explore?from=2026-11-24T18:")`)
	p.wait(`/^2026-11-24 18:/.test(document.querySelector('[aria-label="From"]').value)`)
	// The window can be moved, and its length stays.
	length := eval[string](p, `document.querySelector(".length").innerText`)
	p.drag(".window", 0.5, 0.9)
	p.wait(`!location.hash.startsWith("#explore?from=2026-11-24T18:1")`)
	if got := eval[string](p, `document.querySelector(".length").innerText`); got != length {
		t.Errorf("moved, the range is %s long, was %s", got, length)
	}
	// A block's range by a click on it.
	p.keys("1")
	p.keys("0")
	p.wait(`location.hash === ""`)
	p.do(chromedp.MouseEvent(chromedp.MouseMoved, 400, 300))
	p.do(chromedp.Click(chromedp.CSS("button.block:nth-of-type(2)")))
	p.wait(`location.hash.startsWith("#overview?from=2026-11-24T18:00:00Z&to=2026-11-24T19:59:")`)
	p.waitText("254 series") // what the pointer is on is told
	p.waitText("level 1")
}

func panels(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore?q=up&q=go_goroutines&show=table")
	p.wait(`document.querySelectorAll(".panel").length === 2 && document.querySelector(".u-over")`)
	p.do(chromedp.Click(chromedp.CSS(`.panel [aria-label="Move down"]`)))
	p.wait(`location.hash === "#explore?q=go_goroutines&show=table&q=up"`)
	p.do(chromedp.Click(chromedp.CSS(`.panel [aria-label="Duplicate"]`)))
	p.wait(`location.hash === "#explore?q=go_goroutines&show=table&q=go_goroutines&show=table&q=up"`)
	p.do(chromedp.Click(chromedp.CSS(`.panel [aria-label="Remove"]`)))
	p.wait(`location.hash === "#explore?q=go_goroutines&show=table&q=up"`)
	p.do(chromedp.Click(chromedp.CSS(".add")))
	p.wait(`document.querySelectorAll(".panel").length === 3`)
	p.do(chromedp.Click(chromedp.JSPath(`[...document.querySelectorAll(".quiet")].at(0)`)))
	p.wait(`location.hash.includes("q=up&stacked=1")`)
	p.wait(`document.querySelector(".u-over")`)
	p.do(chromedp.NavigateBack(), chromedp.NavigateBack())
	p.wait(`document.querySelectorAll(".panel").length === 2`)
}

// shared: whoever gets the URL sees the same.
func shared(t *testing.T, tabs context.Context, url string) {
	hash := "#explore?from=2026-11-24T21:00:00Z&to=2026-11-24T21:30:00Z&at=2026-11-24T21:10:00Z&q=sum+by+(code)+(rate(http_requests_total%7Bpod%3D%22checkout-0%22%7D[1m]))&stacked=1&step=30&q=up+%3D%3D+1&show=table"
	see := func(p *tab) string {
		p.wait(`document.querySelector(".u-over") && document.querySelectorAll(".panel").length === 2 && document.querySelectorAll(".panel:last-of-type tbody tr").length > 5`)
		return eval[string](p, `[...document.querySelectorAll("main .stats")].map(e => e.innerText.replace(/ · [\d.]+ m?s$/, "")).join("\n") + [...document.querySelectorAll("main input, main table, .choice")].map(e => e.value ?? e.innerText).join("\n") + document.querySelectorAll('[aria-pressed="true"]').length`)
	}
	p := visit(t, tabs, url, hash)
	first := see(p)
	if !strings.Contains(first, "every 30s") || !strings.Contains(first, "2026-11-24 21:10:00") || !strings.Contains(first, "gateway-1") {
		t.Errorf("the view of the URL is not what it says:\n%s", first)
	}
	p.do(chromedp.Reload())
	p.wait(`document.querySelector("main")`)
	if again := see(p); again != first {
		t.Errorf("reloaded, it is\n%s\nand was\n%s", again, first)
	}
	other := visit(t, tabs, url, eval[string](p, "location.hash"))
	if again := see(other); again != first {
		t.Errorf("for somebody else it is\n%s\nand was\n%s", again, first)
	}
}

func errorsInPlace(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore", allow("400 (Bad Request)"), allow("422 (Unprocessable Entity)"))
	p.query("sum by (pod) (rate(up[5m])))")
	p.wait(`document.querySelector(".failure")`)
	failure := eval[string](p, `document.querySelector(".failure").innerText`)
	if !strings.Contains(failure, "unexpected right parenthesis") || !strings.Contains(failure, "\n"+strings.Repeat(" ", 28)+"^") {
		t.Errorf("the error does not show where it is:\n%s", failure)
	}
	p.wait(`document.querySelector(".editor").shadowRoot.querySelector(".cm-lintRange-error")`)
	if got := eval[string](p, `document.querySelector(".failure").getAttribute("role")`); got != "alert" {
		t.Errorf("a screen reader is not told: role %q", got)
	}
	// It goes with the next answer.
	p.keys("\b")
	p.keys("\r", chromedp.ModifierCtrl)
	p.wait(`!document.querySelector(".failure") && document.querySelector(".u-over")`)
	// What fails while it is evaluated has no place.
	p.keys("a", chromedp.ModifierCtrl)
	p.keys("up + on (job) up")
	p.keys("\r", chromedp.ModifierCtrl) // Enter alone would take what completion offers
	p.wait(`document.querySelector(".failure")?.innerText.includes("many-to-many")`)
	// Annotations of an answer are shown with it.
	p.keys("/")
	p.keys("a", chromedp.ModifierCtrl)
	p.keys("rate(go_goroutines[5m])")
	p.keys("\r", chromedp.ModifierCtrl)
	p.wait(`document.querySelector(".note.info")?.innerText.includes("might not be a counter")`)
}

func nothingFound(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore?from=2026-11-24T20:00:00Z&to=2026-11-24T21:00:00Z")
	p.query("sum(rate(http_request_total[5m]))")
	p.waitText("The dump holds 2026-11-24 16:40:00 – 22:40:00 UTC")
	p.waitText("No metric of this dump is named http_request_total")
	p.do(chromedp.Click(chromedp.JSPath(`[...document.querySelectorAll(".nothing button")].find(b => b.textContent === "http_requests_total")`)))
	p.wait(`document.querySelector(".u-over")`)
	if got := p.hash(); !strings.HasSuffix(got, "q=sum(rate(http_requests_total[5m]))") {
		t.Errorf("the nearest name gave %q", got)
	}
}

func histograms(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore?q=rpc_duration_seconds&show=table&q=rpc_duration_seconds")
	p.wait(`document.querySelectorAll(".buckets i").length > 10`)
	p.do(chromedp.Click(chromedp.JSPath(`[...document.querySelectorAll("button")].find(b => b.textContent === "draw the 90th percentile")`)))
	p.wait(`document.querySelector(".u-over")`)
}

func alerts(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#alerts")
	p.wait(`document.querySelectorAll(".strip button.firing").length >= 4`)
	for _, want := range []string{"of 5 rules would have fired", "HighErrorRate", "PodDown", "ExporterGone", "never", "More than 5% of the requests", `{namespace="shop", pod="checkout-0"}`} {
		p.waitText(want)
	}
	// The pod was down from 21:20 to 21:23, which is pending for a minute.
	told := eval[string](p, `document.querySelector('[aria-label="Alert PodDown: firing"] button.firing').title`)
	if !strings.HasPrefix(told, "firing 2026-11-24 21:21:") || !strings.Contains(told, "– 21:2") {
		t.Errorf("PodDown is told as %q", told)
	}
	// A lane leads to its time, an expression to its graph.
	p.do(chromedp.Click(chromedp.CSS(`[aria-label="Alert PodDown: firing"] button.firing`)))
	p.wait(`location.hash.startsWith("#alerts?from=2026-11-24T21:")`)
	p.do(chromedp.Click(chromedp.JSPath(`[...document.querySelectorAll(".expr")].find(b => b.textContent === "up == 0")`)))
	p.wait(`document.querySelector(".u-over")`)
	if got := p.hash(); !strings.HasSuffix(got, "&q=up == 0") {
		t.Errorf("the URL is %q", got)
	}
}

func noRules(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#alerts")
	p.waitText("No rules were given")
	p.waitText("promdump open --rules rules.yaml")
}

func darkAndLight(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "", size(800, 900), allow("400 (Bad Request)"))
	for _, hash := range []string{"#overview", "#explore?q=up&q=rpc_duration_seconds&q=sum+by+(x&q=nothing&q=", "#alerts"} {
		eval[bool](p, "(location.hash = "+quote(hash)+", true)")
		for _, scheme := range []string{"light", "dark"} {
			p.do(prefers(scheme)(p))
			p.wait(`document.documentElement.dataset.theme === ` + quote(scheme))
			p.wait(`document.querySelector(".bars, .failure, .strip") && !document.querySelector('[aria-busy="true"]')`)
			if bad := eval[[]string](p, contrast); len(bad) > 0 {
				t.Errorf("%s%s: contrast below 4.5:\n%s", scheme, hash, strings.Join(bad, "\n"))
			}
		}
		if wide := eval[float64](p, `document.documentElement.scrollWidth - innerWidth`); wide > 0 {
			t.Errorf("%s: %v pixels do not fit into 800", hash, wide)
		}
	}
	p.do(prefers("light")(p))
	p.wait(`document.documentElement.dataset.theme === "light"`)
	p.keys("t")
	p.wait(`document.documentElement.dataset.theme === "dark" && getComputedStyle(document.documentElement).backgroundColor === "rgb(18, 23, 26)"`)
	p.do(chromedp.Reload())
	p.wait(`document.documentElement.dataset.theme === "dark"`)
}

// contrast gives the texts that WCAG AA would not let pass.
const contrast = `(() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = (c) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = c; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const lum = (c) => c.slice(0, 3).map((v) => v / 255).map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)).reduce((n, v, i) => n + v * [0.2126, 0.7152, 0.0722][i], 0);
  const parent = (e) => e.parentElement ?? e.getRootNode().host;
  const ground = (e) => { for (; e; e = parent(e)) { const c = rgba(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; } return [255, 255, 255]; };
  const bad = [];
  const walk = (root) => { for (const e of root.querySelectorAll("*")) {
    if (e.shadowRoot) walk(e.shadowRoot);
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || !e.checkVisibility() || e.closest("button:disabled")) continue;
    const [a, b] = [lum(rgba(getComputedStyle(e).color)), lum(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(ratio.toFixed(2) + " " + e.className + " " + e.textContent.slice(0, 40));
  } };
  walk(document);
  return bad;
})()`

func localTime(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore?q=up") // in Newfoundland, 3:30 behind
	p.wait(`document.querySelector('[aria-label="To"]').value === "2026-11-24 22:40:00"`)
	p.keys("u")
	p.wait(`document.querySelector('[aria-label="To"]').value === "2026-11-24 19:10:00"`)
	p.fill(`[aria-label="From"]`, "2026-11-24 18:10")
	p.wait(`location.hash.includes("from=2026-11-24T21:40:00Z")`)
	p.fill(`[aria-label="From"]`, "yesterday")
	p.wait(`document.querySelector('[aria-label="From"]').ariaInvalid === "true"`)
}

// keysAlone does the main things without a pointer, and looks at what Tab comes to.
func keysAlone(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "")
	p.keys("?")
	p.wait(`document.querySelector("dialog").open`)
	p.keys("\x1b")
	p.wait(`!document.querySelector("dialog").open`)
	p.query("up")
	p.wait(`document.querySelector(".u-over")`)
	p.keys("\x1b") // leaves the query
	p.wait(`document.activeElement.matches(".panel")`)
	p.keys("+")
	p.wait(`location.hash.includes("from=")`)
	p.keys("0")
	p.wait(`!location.hash.includes("from=")`)
	p.keys("3")
	p.wait(`document.querySelector("main.alerts")`)
	p.keys("2")
	p.wait(`document.querySelector(".u-over")`)
	// Through everything there is: each is named, and one sees where one is.
	p.do(chromedp.Reload()) // begins at the top
	p.wait(`document.querySelector(".u-over")`)
	seen := map[string]bool{}
	for range 60 {
		p.keys("\t")
		at := eval[[]string](p, `(() => {
      const host = document.activeElement, e = host.shadowRoot?.activeElement ?? host;
      const style = getComputedStyle(host.matches(".editor") ? host : e);
      const name = e.getAttribute("aria-label") || e.innerText || e.getAttribute("placeholder") || "";
      const focus = style.outlineStyle !== "none" || style.boxShadow !== "none" ? "seen" : "unseen";
      return [host === document.body ? "body" : e.tagName + "." + e.className, name.trim().slice(0, 50), focus];
    })()`)
		if at[0] == "body" {
			break
		}
		if at[1] == "" {
			t.Errorf("Tab comes to %s, which has no name", at[0])
		}
		if at[2] != "seen" {
			t.Errorf("Tab comes to %s %q, and nobody sees it", at[0], at[1])
		}
		seen[at[1]] = true
	}
	for _, want := range []string{"Explore", "Local", "Start of the range", "End of the range", "From", "Query 1, PromQL", "Run", "Table", "Remove", "Add a query"} {
		if !seen[want] {
			t.Errorf("Tab never came to %q: %v", want, seen)
		}
	}
	// A graph's cursor and the range's handles.
	eval[bool](p, `(document.querySelector(".graph").focus(), true)`)
	p.keys(arrowRight + arrowRight + "\r")
	p.wait(`location.hash.includes("at=2026-11-24T16:42:00Z")`)
	eval[bool](p, `(document.querySelector(".grip.from").focus(), true)`)
	p.keys(arrowRight)
	p.wait(`location.hash.includes("from=2026-11-24T16:43:36Z")`)
}

const arrowRight = kb.ArrowRight

func tenThousand(t *testing.T, tabs context.Context, url string) {
	p := visit(t, tabs, url, "#explore?from=2026-11-24T22:25:00Z&to=2026-11-24T22:40:00Z")
	eval[bool](p, `(window.longest = 0, new PerformanceObserver((l) => { for (const e of l.getEntries()) window.longest = Math.max(window.longest, e.duration) }).observe({ type: "longtask" }), true)`)
	begun := time.Now()
	p.query("big")
	p.wait(`document.querySelector("[data-capped]") && document.querySelector(".u-over")`)
	p.waitText("Drawn: 200 of 10,000 series")
	took := time.Since(begun)
	// There are few rows in the document, and all of them can be come to.
	if n := eval[int](p, `document.querySelectorAll(".answer tbody tr").length`); n > 60 {
		t.Errorf("the table has %d rows in the document", n)
	}
	eval[bool](p, `(document.querySelector(".answer .table").scrollTop = 1e9, true)`)
	p.wait(`document.querySelector('.answer tbody tr[aria-rowindex="10001"]')`)
	p.wait(`document.querySelector('.answer tbody tr[aria-rowindex="10001"] .swatch').ariaPressed === "false"`)
	p.do(chromedp.Click(chromedp.CSS(`.answer tbody tr[aria-rowindex="10001"] .swatch`)))
	p.wait(`document.querySelector('.answer tbody tr[aria-rowindex="10001"] .swatch').ariaPressed === "true"`)
	longest := time.Duration(eval[float64](p, "window.longest")) * time.Millisecond
	t.Logf("10,000 series, 61 points each: shown after %v, the page stood still for %v at most", took.Round(time.Millisecond), longest)
	// On two cores that do nothing else it is a tenth of that.
	if took > 40*time.Second || longest > 3*time.Second {
		t.Errorf("10,000 series took %v, and the page stood still for %v", took, longest)
	}
	p.do(chromedp.Click(chromedp.JSPath(`[...document.querySelectorAll(".choice button")].find(b => b.textContent === "Table")`)))
	p.wait(`document.querySelector('table[aria-rowcount="10001"]')`)
	p.waitText("10,000 series")
}

// policy tries to reach out and to bring a script in.
func policy(t *testing.T, tabs context.Context, url string) {
	var reached atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		reached.Add(1)
		w.Header().Set("Access-Control-Allow-Origin", "*")
	}))
	defer other.Close()
	p := visit(t, tabs, url, "", allow("Content Security Policy"), allow("Refused to"), allow("TrustedHTML"), allow("TrustedScript"), allow("TrustedTypePolicy"), allow("asked somebody else: "+other.URL))
	eval[bool](p, `(window.violations = [], document.addEventListener("securitypolicyviolation", (e) => window.violations.push(e.effectiveDirective)), true)`)
	for what, script := range map[string]string{
		"connect-src":   `fetch(OTHER).catch(() => 0)`,
		"img-src":       `new Image().src = OTHER`,
		"script-src":    `(() => { const s = document.createElement("script"); try { s.textContent = "window.broken = 1"; document.body.append(s) } catch {} })()`,
		"style-src":     `(() => { const s = document.createElement("link"); s.rel = "stylesheet"; s.href = OTHER; document.head.append(s) })()`,
		"frame-src":     `(() => { const s = document.createElement("iframe"); s.src = OTHER; document.body.append(s) })()`,
		"trusted-types": `(() => { try { trustedTypes.createPolicy("evil", {}) } catch {} })()`,
	} {
		eval[bool](p, "("+strings.ReplaceAll(script, "OTHER", quote(other.URL+"/"))+", true)")
		p.wait(fmt.Sprintf(`window.violations.some((v) => v.startsWith(%s) || %s === "script-src" && /script|types/.test(v))`, quote(what), quote(what)))
	}
	if eval[bool](p, `"broken" in window`) {
		t.Error("an inline script ran")
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("another server was reached %d times", n)
	}
}

func serverGone(t *testing.T, tabs context.Context, bin, file string) {
	url, stop := start(t, bin, file)
	p := visit(t, tabs, url, "#explore", allow("ERR_CONNECTION_REFUSED"))
	p.wait(`document.querySelector(".start")`)
	stop()
	p.query("up")
	p.waitText("The server does not answer")
	p.waitText("Ask again")
}
