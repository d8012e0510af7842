package page_test

import (
	"context"
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

var screenshots = flag.String("screenshots", "", "`folder` to write pictures of the page to")

// patience is how long a condition of the page is waited for.
const patience = 20 * time.Second

// startBrowser starts the one browser of all tests, or skips them where there is none; with CI in the environment that is a failure.
func startBrowser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("there is no chromium, which is needed to try the page")
		}
		t.Skip("there is no chromium to try the page in")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("lang", "en-GB"), chromedp.Flag("host-resolver-rules", "MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	browser, stop := chromedp.NewContext(allocator)
	t.Cleanup(stop)
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return browser
}

// tab is one tab of the browser, with what went wrong in it.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	wrong []string
	hosts map[string]bool
}

// open opens a tab of some size with the page at an address. When the test ends it fails if the page has told an error, was refused something
// by its policy, or asked another host.
func open(t *testing.T, browser context.Context, address string, width, height int64) *tab {
	t.Helper()
	p := &tab{t: t, hosts: map[string]bool{}}
	ctx, closeTab := chromedp.NewContext(browser, chromedp.WithListener(p.listen))
	t.Cleanup(closeTab)
	p.ctx = ctx
	if err := chromedp.Do(ctx); err != nil { // a tab lives as long as the context of the first thing that is done in it
		t.Fatal(err)
	}
	p.run(chromedp.EmulateViewport(width, height))
	p.run(chromedp.Navigate(address))
	own, _ := url.Parse(address)
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, wrong := range p.wrong {
			t.Errorf("the browser tells: %s", wrong)
		}
		for host := range p.hosts {
			if host != own.Host {
				t.Errorf("the page asks %s", host)
			}
		}
	})
	return p
}

func (p *tab) listen(event any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork { // what the API refuses is no error of the page
			p.wrong = append(p.wrong, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		p.wrong = append(p.wrong, fmt.Sprint(e.ExceptionDetails.Text, " ", e.ExceptionDetails.Exception))
	case *runtime.EventConsoleAPICalled:
		if e.Type == runtime.ConsoleAPICalledTypeError || e.Type == runtime.ConsoleAPICalledTypeWarning {
			p.wrong = append(p.wrong, fmt.Sprintf("console: %s", e.Args[0].Value))
		}
	case *network.EventRequestWillBeSent:
		if u, err := url.Parse(e.Request.URL); err == nil && u.Scheme != "data" {
			p.hosts[u.Host] = true
		}
	}
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// call sends a command of the protocol.
func call[P, R any](p *tab, command cdp.Command[P, R], params P) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if _, err := chromedp.Call(ctx, command, params); err != nil {
		p.t.Fatal(err)
	}
}

// js evaluates an expression.
func js[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	result, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return result
}

// await waits until an expression is true. It asks from here: what the page's policy allows is not stretched for it.
func (p *tab) await(expression string) {
	p.t.Helper()
	again := time.NewTicker(25 * time.Millisecond)
	defer again.Stop()
	for began := time.Now(); !js[bool](p, "Boolean("+expression+")"); <-again.C {
		if time.Since(began) > patience {
			p.t.Fatalf("waited in vain for %s; the page is:\n%s", expression, js[string](p, "document.body.innerText.slice(0, 1500)"))
		}
	}
}

// see waits until a part of the page has a text.
func (p *tab) see(selector, text string) {
	p.t.Helper()
	p.await(fmt.Sprintf("document.querySelector(%q)?.innerText.includes(%q)", selector, text))
}

func (p *tab) click(selector string) {
	p.t.Helper()
	p.await(fmt.Sprintf("document.querySelector(%q) && !document.querySelector(%[1]q).disabled", selector))
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Click(chromedp.CSS(selector))); err != nil && !strings.Contains(err.Error(), "Could not find node") {
		p.t.Fatal(err)
	} else if err != nil { // the page drew itself anew in between
		js[any](p, fmt.Sprintf("document.querySelector(%q).click()", selector))
	}
}

// press clicks a button by its text, in a part of the page.
func (p *tab) press(within, text string) {
	p.t.Helper()
	find := fmt.Sprintf("[...document.querySelectorAll(%q)].find((b) => b.textContent.trim() === %q && !b.disabled)", within+" button", text)
	p.await(find)
	js[any](p, find+".click()")
}

// write replaces the text of a field, as typing does.
func (p *tab) write(selector, text string) {
	p.t.Helper()
	p.await(fmt.Sprintf("document.querySelector(%q)", selector))
	js[any](p, fmt.Sprintf(`{ const f = document.querySelector(%q); f.value = %q; f.dispatchEvent(new Event("input", {bubbles: true})); f.dispatchEvent(new Event("change", {bubbles: true})); null }`, selector, text))
}

// edit replaces a part of the text in the editor, and line tells in which line of it a part is.
func (p *tab) edit(from, to string) {
	p.t.Helper()
	js[any](p, fmt.Sprintf(`{ const a = document.querySelector("textarea"); a.value = a.value.replace(%q, %q); a.dispatchEvent(new Event("input")); null }`, from, to))
}

func (p *tab) line(part string) int {
	p.t.Helper()
	return js[int](p, fmt.Sprintf(`document.querySelector("textarea").value.split("\n").findIndex((l) => l.includes(%q)) + 1`, part))
}

// visit opens a view by its address.
func (p *tab) visit(hash string) {
	p.t.Helper()
	js[any](p, fmt.Sprintf("location.hash = %q", hash))
}

// dark asks for dark colours.
func (p *tab) dark() {
	p.t.Helper()
	call(p, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
}

// fits fails if the page is wider than its window.
func (p *tab) fits() {
	p.t.Helper()
	if wide := js[[]string](p, `(() => { const w = document.documentElement.clientWidth; return document.documentElement.scrollWidth <= w ? [] :
		[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > w + 1).slice(0, 5).map((e) => e.tagName + "." + (e.getAttribute("class") ?? "") + "#" + e.id + " " + Math.round(e.getBoundingClientRect().right)) })()`); len(wide) > 0 {
		p.t.Errorf("at %s the page is wider than its window: %s", js[string](p, "location.hash"), strings.Join(wide, ", "))
	}
}

// picture saves what is seen, when pictures are asked for.
func (p *tab) picture(name string, whole bool) {
	p.t.Helper()
	if *screenshots == "" {
		return
	}
	take := chromedp.CaptureScreenshot()
	if whole {
		take = chromedp.FullScreenshot(100)
	}
	p.await("document.querySelectorAll('.cells path').length > 0 || !document.querySelector('.world')")
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, take)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(*screenshots, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
