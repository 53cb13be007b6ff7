package browser

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// patience is for a machine that does much else.
const patience = 45 * time.Second

func chromium(t *testing.T) string {
	t.Helper()
	names := []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable"}
	if name := os.Getenv("PROMDUMP_E2E_CHROMIUM"); name != "" {
		names = []string{name}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const why = "there is no Chromium (apt-get install --no-install-recommends chromium)"
	if os.Getenv("PROMDUMP_E2E_REQUIRE_BROWSER") == "1" {
		t.Fatal(why + ", and PROMDUMP_E2E_REQUIRE_BROWSER=1")
	}
	t.Skip("SKIPPED, proves nothing here: " + why + " (PROMDUMP_E2E_REQUIRE_BROWSER=1 makes this an error)")
	return ""
}

// browser starts a Chromium without a past. It knows no name of any host.
func browser(t *testing.T) context.Context {
	t.Helper()
	options := append([]chromedp.ExecAllocatorOption{chromedp.ExecPath(chromium(t)), chromedp.UserDataDir(t.TempDir())}, chromedp.DefaultExecAllocatorOptions[:]...)
	for _, flag := range []string{"no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking", "disable-component-update", "disable-sync", "hide-scrollbars"} {
		options = append(options, chromedp.Flag(flag, true))
	}
	options = append(options, chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"), chromedp.WindowSize(1280, 800),
		chromedp.ModifyCmdFunc(func(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }))
	allocator, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("Chromium did not start: %v", err)
	}
	return ctx
}

// tab is one page, and what went wrong on it.
type tab struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	problems []string
	allowed  []string
	requests int
}

type action = chromedp.Action[chromedp.Void]

type option func(*tab) action

// call is a command of the browser's protocol that answers nothing.
func call[P any](command cdp.Command[P, cdp.Empty], params P) action {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

func size(width, height int64) option {
	return func(*tab) action { return chromedp.EmulateViewport(width, height) }
}

func prefers(scheme string) option {
	return func(*tab) action {
		return call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
	}
}

// before runs a script ahead of the page's own.
func before(script string) option {
	return func(*tab) action {
		return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
			_, err := cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: script})
			return err
		})
	}
}

// allow is for a test that makes the browser log something.
func allow(text string) option {
	return func(p *tab) action {
		p.allowed = append(p.allowed, text)
		return chromedp.Steps()
	}
}

// visit opens the page of the server at base.
func visit(t *testing.T, browser context.Context, base, hash string, options ...option) *tab {
	t.Helper()
	p := &tab{t: t, base: base}
	// What one test makes the page remember is not remembered in the next.
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext(), chromedp.WithListener(p.event))
	p.ctx = ctx
	actions := []action{
		call(network.Enable, network.EnableParams{}), call(log.Enable, cdp.Empty{}), call(runtime.Enable, cdp.Empty{}),
		call(emulation.SetTimezoneOverride, emulation.SetTimezoneOverrideParams{TimezoneID: "America/St_Johns"}),
	}
	for _, o := range options {
		actions = append(actions, o(p))
	}
	// The first context to run a page must not have a deadline.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatal(err)
	}
	p.do(append(actions, chromedp.Navigate(base+hash))...)
	t.Cleanup(func() {
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, problem := range p.problems {
			t.Errorf("the browser says: %s", problem)
		}
		if p.requests < 4 {
			t.Errorf("just %d requests were seen, that can't be all", p.requests)
		}
	})
	p.wait(`document.querySelector("main")`)
	return p
}

func (p *tab) event(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	problem := ""
	switch e := event.(type) {
	case *runtime.EventConsoleAPICalled:
		if e.Type != "error" && e.Type != "warning" && e.Type != "assert" {
			return
		}
		problem = "console." + string(e.Type)
		for _, arg := range e.Args {
			problem += " " + string(arg.Value) + arg.Description
		}
	case *runtime.EventExceptionThrown:
		problem = "exception: " + e.ExceptionDetails.Text
		if e.ExceptionDetails.Exception != nil {
			problem += " " + e.ExceptionDetails.Exception.Description
		}
	case *log.EventEntryAdded:
		if e.Entry.Level != log.EntryLevelError && e.Entry.Level != log.EntryLevelWarning {
			return
		}
		problem = fmt.Sprintf("%s %s: %s %s", e.Entry.Source, e.Entry.Level, e.Entry.Text, e.Entry.URL)
	case *network.EventRequestWillBeSent:
		p.requests++
		u, err := url.Parse(e.Request.URL)
		if err != nil || u.Scheme != "data" && !strings.HasPrefix(e.Request.URL, p.base) {
			problem = "asked somebody else: " + e.Request.URL
		}
	}
	if problem == "" {
		return
	}
	for _, a := range p.allowed {
		if strings.Contains(problem, a) {
			return
		}
	}
	p.problems = append(p.problems, problem)
}

func (p *tab) do(actions ...action) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatalf("%v\n%s", err, p.text())
	}
}

// text is what a person could read, and what the editors hold and offer.
func (p *tab) text() string {
	ctx, cancel := context.WithTimeout(p.ctx, time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`[location.href, document.body.innerText, "focus: " + document.activeElement.className,
    ...[...document.querySelectorAll(".editor")].map(({ shadowRoot: r }) => "editor: " + JSON.stringify(r.querySelector(".cm-content").innerText) + ", offers: " + (r.querySelector(".cm-tooltip-autocomplete")?.innerText ?? "none"))].join("\n")`))
	if err != nil {
		return err.Error()
	}
	return text
}

// eval gives the value of an expression of JavaScript.
func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v\n%s", expression, err, p.text())
	}
	return v
}

// wait until the expression holds. It is asked from here: what a page polls by
// itself it has to compile, which its policy forbids.
func (p *tab) wait(expression string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !eval[bool](p, "!!("+expression+")"); time.Sleep(25 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("never so: %s\n%s", expression, p.text())
		}
	}
}

func (p *tab) waitText(want string) {
	p.t.Helper()
	p.wait("document.body.innerText.includes(" + quote(want) + ")")
}

// keys presses keys, one after the other. A key and its character are one event,
// as they come from a keyboard: chromedp's own keys write the character also when
// the page has taken the key for something else.
func (p *tab) keys(keys string, m ...chromedp.Modifier) {
	p.t.Helper()
	for _, r := range keys {
		var press *input.DispatchKeyEventParams
		for _, k := range kb.Encode(r) {
			chromedp.KeyModifiers(m...)(k)
			switch k.Type {
			case kb.KeyChar:
				if k.Modifiers&^int64(chromedp.ModifierShift) == 0 {
					press.Type, press.Text, press.UnmodifiedText = kb.KeyDown, k.Text, k.UnmodifiedText
				}
			case kb.KeyUp:
				p.do(call(input.DispatchKeyEvent, *press), call(input.DispatchKeyEvent, *k))
			default:
				press = k
			}
		}
	}
}

func (p *tab) hash() string {
	p.t.Helper()
	return eval[string](p, "decodeURIComponent(location.hash.replaceAll('+', ' '))")
}

// query types into the first editor and runs it.
func (p *tab) query(promql string) {
	p.t.Helper()
	p.keys("/")
	p.wait(`document.activeElement.matches(".editor")`)
	p.do(call(input.InsertText, input.InsertTextParams{Text: promql}))
	p.keys("\r", chromedp.ModifierCtrl)
}

// hover moves the pointer about a place, as a hand does, until something shows.
func (p *tab) hover(x, y float64, expression string) {
	p.t.Helper()
	for end, i := time.Now().Add(patience), 0; !eval[bool](p, "!!("+expression+")"); i++ {
		if time.Now().After(end) {
			p.t.Fatalf("never so: %s\n%s", expression, p.text())
		}
		p.do(chromedp.MouseEvent(chromedp.MouseMoved, x+float64(i%2), y))
	}
}

// take takes the offer of completion that is shown. For 75 ms the editor takes an
// Enter for one that was meant for the text.
func (p *tab) take() {
	p.t.Helper()
	eval[bool](p, `(window.shown = performance.now(), true)`)
	p.wait(`performance.now() > window.shown + 100`)
	p.keys("\r")
}

// fill types into a field instead of what is in it.
func (p *tab) fill(selector, text string) {
	p.t.Helper()
	eval[bool](p, "(document.querySelector("+quote(selector)+").select(), true)")
	p.keys(text + "\r")
}

// drag with the pointer, from and to in parts of the element's width.
func (p *tab) drag(selector string, from, to float64) {
	p.t.Helper()
	box := eval[[]float64](p, `(() => { const r = document.querySelector(`+quote(selector)+`).getBoundingClientRect(); return [r.left, r.top, r.width, r.height] })()`)
	at := func(part float64) (x, y float64) { return box[0] + part*box[2], box[1] + box[3]*0.5 }
	x, y := at(from)
	p.do(chromedp.MouseEvent(chromedp.MouseMoved, x, y), chromedp.MouseEvent(chromedp.MousePressed, x, y, chromedp.ButtonLeft, chromedp.ClickCount(1)))
	for i := 1; i <= 5; i++ {
		x, y = at(from + (to-from)*float64(i)/5)
		p.do(chromedp.MouseEvent(chromedp.MouseMoved, x, y, chromedp.ButtonLeft))
	}
	p.do(chromedp.MouseEvent(chromedp.MouseReleased, x, y, chromedp.ButtonLeft, chromedp.ClickCount(1)))
}

func quote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string
	}
	return string(text)
}

// open serves dumps by `promdump open` until the test ends, and gives the page's address.
func open(t *testing.T, bin string, args ...string) string {
	t.Helper()
	url, _ := start(t, bin, args...)
	return url
}

func start(t *testing.T, bin string, args ...string) (url string, stop func()) {
	t.Helper()
	cmd := exec.Command(bin, append([]string{"open", "--no-browser", "--listen", "127.0.0.1:0", "--cache-dir", t.TempDir()}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait() // how it ends is another test's
	})
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "http://127.0.0.1:") {
		t.Fatalf("promdump open says %q, %v\n%s", line, err, stderr.String())
	}
	return strings.TrimSpace(line), stop
}

// program builds promdump.
func program(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("PROMDUMP_BIN"); bin != "" {
		return bin
	}
	bin := filepath.Join(t.TempDir(), "promdump")
	cmd := exec.Command("go", "build", "-o", bin, "./cmd/promdump")
	cmd.Dir = "../.."
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build promdump: %v\n%s", err, out)
	}
	return bin
}
