package page_test

import (
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

const in = "#token=" + goodToken

// TestPage tries the page in a real browser; each part has a world and a tab of its own.
func TestPage(t *testing.T) {
	browser := startBrowser(t)
	for _, test := range []struct {
		name string
		try  func(t *testing.T, w *world, open opener)
	}{
		{"log in", tryLogIn}, {"sentence", trySentence}, {"map", tryMap}, {"explain", tryExplain}, {"drain", tryDrain}, {"editor", tryEditor},
		{"conflict", tryConflict}, {"history", tryHistory}, {"keys", tryKeys}, {"health", tryHealth}, {"viewer", tryViewer}, {"keyboard", tryKeyboard}, {"phone", tryPhone},
		{"empty", tryEmpty}, {"not live", tryNotLive}, {"dark", tryDark}, {"real world", tryRealWorld},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t)
			test.try(t, w, func(address string, width, height int64) *tab {
				if !strings.HasPrefix(address, "http") {
					address = w.url + "/" + address
				}
				return open(t, browser, address, width, height)
			})
		})
	}
}

// opener opens the page at an address, or at a fragment of the world's.
type opener = func(address string, width, height int64) *tab

func tryLogIn(t *testing.T, w *world, open opener) {
	p := open("", 1100, 800)
	p.see("h1", "Isochrone")
	p.write("input[name=token]", "isot_wrong")
	p.click("form.login button")
	p.see("main", "does not know this token")
	p.picture("view-login", false)
	p.write("input[name=token]", goodToken)
	p.click("form.login button")
	p.see("#sentence", "All 6 PoPs and 3 clusters are well.")
	if kept := js[string](p, `sessionStorage.getItem("isochrone.token") + " " + localStorage.length + " " + document.cookie`); kept != goodToken+" 0 " {
		t.Errorf("kept: %q, want the token in the session's storage only", kept)
	}
	p.click("#logout")
	p.see("main", "Log in with a token")
	if js[bool](p, `sessionStorage.length > 0`) {
		t.Error("a token is left after log-out")
	}

	p = open(in, 1100, 800)
	p.see("#sentence", "All 6 PoPs")
	if address := js[string](p, "location.href"); address != w.url+"/#/" {
		t.Errorf("the address is %s: the token should be gone from it", address)
	}
}

func trySentence(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6 PoPs and 3 clusters are well.")
	p.see("#live", "live")
	w.change("status", func() { w.down["fra1"] = "timeout" })
	p.see("#sentence", "fra1 is down: timeout, for 3 min.")
	p.see("#sentence", "5 of 6 PoPs and all 3 clusters are well.")
	p.see("#pops tr.down", "down for 3 min: timeout")
	w.change("status", func() {
		w.overrides["drain-sin1"] = map[string]any{"schema": 1, "kind": "drain", "pop": "sin1", "reason": "power works", "author": "ops", "created": w.began, "expires": time.Now().Add(40 * time.Minute)}
	})
	p.see("#sentence", "sin1 is drained by ops for 40 min")
	p.see("#pops", "drained by ops: power works")
	w.change("status", func() {
		w.faults = []topology.Fault{{Path: "pops.sin1.location.lat", Message: "135 is not in -90..90"}, {Path: "pops.nrt1.<img src=x onerror=alert(1)>", Message: "<b>no</b>"}}
	})
	p.see("#sentence", "a newer topology is invalid and not in force: 2 faults")
	p.see("#faults", "edit 44 by outside")
	p.see("#faults", "<b>no</b>") // as text
	p.see("#spoken", "fra1 is down: timeout; a newer topology")
	p.picture("view-troubles", true)
	w.change("status", func() { w.down["nrt1"], w.down["iad1"], w.down["gru1"] = "timeout", "timeout", "timeout" })
	p.see("#sentence", "4 of 6 PoPs are down: fra1, gru1, iad1 and 1 other")
	w.change("status", func() {
		w.faults = nil
		clear(w.overrides)
		clear(w.down)
	})
	p.see("#sentence", "All 6 PoPs and 3 clusters are well.")
}

func tryMap(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 1000)
	p.await("document.querySelectorAll('.cells path').length >= 5 && document.querySelector('path.land').getAttribute('d')?.length > 50000")
	p.see(".legend", "100–200 ms")
	p.see("#pops", "/s of 2000") // a rate, after two readings
	p.see("#pops", "25 %, gets 26 %")
	p.see("#shares", "because a PoP had too much: 3.1 % of the requests moved")
	p.see("#shares", "If fra1 were lost, iad1 would get 2200 requests a second, and can do 2000.")
	p.picture("page-overview", false)
	p.click("[data-key=by-pop]")
	p.see(".legend", "gru1")
	p.picture("view-pops", false)
	// Brazil is at a bit less than two fifths of the width.
	js[any](p, `{ const r = document.querySelector(".world").getBoundingClientRect(); document.querySelector(".world").dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: r.left + r.width * 0.375, clientY: r.top + r.height * 0.66})); null }`)
	p.see(".readout", "clients are answered gru1")
}

func tryExplain(t *testing.T, w *world, open opener) {
	w.down["fra1"] = "timeout"
	p := open(in+"", 1280, 1000)
	p.see("#sentence", "fra1 is down")
	p.visit("#/explain")
	p.write("input[name=client]", "nonsense")
	p.press("main", "Explain")
	p.see("main .told.bad", "neither an address nor a prefix")
	p.write("input[name=client]", "192.0.2.7")
	p.press("main", "Explain")
	p.see(".answer h2", "Answered sin1")
	p.see(".answer", "Bangkok, TH, AS64500")
	p.see("tr.chosen", "nearest that is well")
	p.see(".answer", "down: timeout")
	p.await("document.querySelectorAll('.way').length === 6 && document.querySelectorAll('.way.chosen').length === 1")
	js[any](p, `document.querySelector("details.suppose").open = true`)
	p.write("select[aria-label=PoP]", "sin1")
	p.press("main", "Suppose")
	p.see(".answer h2", "Would be answered")
	p.see(".chips", "pop sin1 down")
	if address := js[string](p, "location.hash"); address != "#/explain?service=intake.isochrone.test&client=192.0.2.7&family=A&if=pop+sin1+down" {
		t.Errorf("the address is %s, which cannot be given to a colleague", address)
	}
}

func tryDrain(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6")
	p.visit("#/overrides?pop=fra1")
	p.see(".safety", "No, it is not safe to lose fra1")
	p.see(".safety", "over its capacity")
	p.write("select[name=target]", "sin1")
	p.see(".safety", "Yes, it is safe to lose sin1")
	p.picture("view-drain", true)
	p.write("input[name=reason]", "power works")
	p.press("main", "Drain sin1")
	p.see("#sentence", "sin1 is drained by ops for 60 min more.")
	p.see("main > section:last-child", "power works")
	w.mu.Lock()
	if o := w.overrides["drain-sin1"]; o["kind"] != "drain" || o["pop"] != "sin1" {
		t.Errorf("stored: %v", o)
	}
	w.mu.Unlock()
	p.press("main", "Undrain")
	p.see("dialog", "Undrain sin1?")
	p.press("dialog", "Undrain")
	p.see("#sentence", "All 6 PoPs")
	// What is not safe is asked about.
	p.write("select[name=target]", "fra1")
	p.see(".safety", "No, it is not safe")
	p.write("input[name=reason]", "fire")
	p.press("main", "Drain fra1")
	p.see("dialog", "although it is not safe")
	p.press("dialog", "Go back")
	p.await("!document.querySelector('dialog')")
	w.mu.Lock()
	if len(w.overrides) > 0 {
		t.Errorf("drained without a yes: %v", w.overrides)
	}
	w.mu.Unlock()
	// A verdict is forced, a share pinned.
	p.write("select[name=kind]", "down")
	p.see(".safety", "No, it is not safe")
	p.write("select[name=kind]", "pin")
	p.write("input[name=share]", "25")
	p.press("main", "Pin fra1")
	p.see("#sentence", "fra1 is pinned to 25 % by ops")
}

func tryEditor(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6")
	p.visit("#/topology?object=pops/sin1")
	p.await(`document.querySelector("textarea").value.includes("capacity_rps: 2000")`)
	p.edit("lat: 1.2897", "lat: 135")
	p.press("main", "Validate")
	p.see(".told.bad", "135 is not in -90..90")
	if got, want := js[int](p, `Number(document.querySelector(".gutter .bad")?.textContent)`), p.line("lat: 135"); got != want {
		t.Errorf("line %d is marked, want %d", got, want)
	}
	p.picture("view-editor", true)
	// What is typed stays when one looks elsewhere.
	p.visit("#/history")
	p.see("h1", "History")
	p.visit("#/topology?object=pops/sin1")
	p.await(`document.querySelector("textarea")?.value.includes("lat: 135")`)
	p.edit("lat: 135", "lat: 1.2897")
	p.edit("capacity_rps: 2000", "capacity_rps: 3000")
	p.write("main input[maxlength='500']", "more room")
	p.press("main", "Apply…")
	p.see("dialog", "21 % of clients are answered otherwise")
	p.picture("view-apply", false)
	p.press("dialog", "Apply")
	p.see("main .told.good", "Applied as revision 42.")
	w.mu.Lock()
	defer w.mu.Unlock()
	if got := w.top.PoPs["sin1"].CapacityRPS; got != 3000 || w.history[0].Message != "more room" {
		t.Errorf("capacity %d with message %q, want 3000 with the message", got, w.history[0].Message)
	}
}

func tryConflict(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6")
	p.visit("#/topology?object=pops/sin1")
	p.await(`document.querySelector("textarea")?.value.includes("capacity_rps: 2000")`)
	p.edit("capacity_rps: 2000", "capacity_rps: 3000")
	w.change("status", func() {
		other := *w.top.PoPs["sin1"]
		other.CapacityRPS = 2500
		w.put(topology.Ref{Kind: topology.PoPs, Name: "sin1"}, &other, "")
	})
	p.press("main", "Apply…")
	p.press("dialog", "Apply")
	p.see("main .told.warn", "Somebody else has changed this object meanwhile.")
	p.see("main .told.warn pre", "capacity_rps: 2500")
	if !js[bool](p, `document.querySelector("textarea").value.includes("capacity_rps: 3000")`) {
		t.Fatal("the text is lost")
	}
	p.press("main", "Keep mine, on top of it")
	p.see("main .told.good", "It is valid")
	p.press("main", "Apply…")
	p.press("dialog", "Apply")
	p.see("main .told.good", "Applied as revision 43.")
}

func tryHistory(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6")
	p.visit("#/history")
	p.see("main table", "more room in Singapore")
	p.click("[data-key='from-12']")
	p.click("[data-key='to-41']")
	p.press("main", "Compare 12 with 41")
	p.see(".unified", "+capacity_rps: 2000")
	p.see("main", "21 % of clients are answered otherwise")
	p.picture("view-history", true)
	p.click("[data-key='back-30']")
	p.see("dialog", "Make the topology what it was at 30?")
	p.see("dialog", "sin1")
	p.press("dialog", "Go back to it")
	p.see("main .told.good", "as revision 42")
	p.see("main table", "back to 30")
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.top.PoPs["sin1"].CapacityRPS != 1000 {
		t.Error("it was not rolled back")
	}
}

func tryKeys(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6")
	p.visit("#/keys")
	p.see("main", "There is no key.")
	p.press("main", "New key…")
	p.write("dialog input[placeholder='whose it is']", "the shop")
	p.press("dialog", "Make the key")
	p.await(`document.querySelector("dialog .secret")?.value === "isok_k7f3_secret"`)
	p.press("dialog", "I have kept it")
	p.see("main table", "the shop")
	if js[bool](p, `document.documentElement.outerHTML.includes("isok_k7f3_secret")`) {
		t.Error("the secret is still in the page")
	}
}

func tryViewer(t *testing.T, w *world, open opener) {
	w.role = controlplane.Viewer
	p := open(in, 1280, 900)
	p.see("#me", "viewer")
	for _, view := range []string{"", "overrides", "keys", "history", "topology"} {
		p.visit("#/" + view)
		p.await("document.querySelector('main table, main textarea, main .nothing')")
		if writes := js[[]string](p, `[...document.querySelectorAll("main button, main a")].map((b) => b.textContent).filter((t) => /drain|apply|delete|new key|rotate|revoke|back to|^end$|force/i.test(t))`); len(writes) > 0 {
			t.Errorf("%q: a viewer sees %q", view, writes)
		}
	}
}

// tryKeyboard goes from the address bar to a drain without a mouse.
func tryKeyboard(t *testing.T, w *world, open opener) {
	p := open("", 1280, 900)
	p.await(`document.activeElement?.name === "token"`)
	p.run(chromedp.KeyEvent(goodToken), chromedp.KeyEvent(kb.Enter))
	p.see("#sentence", "All 6")
	tabTo := func(what string) {
		t.Helper()
		for range 60 {
			p.run(chromedp.KeyEvent(kb.Tab))
			if js[bool](p, "Boolean(document.activeElement?.matches("+what+"))") {
				if outline := js[string](p, `getComputedStyle(document.activeElement).outlineStyle + getComputedStyle(document.activeElement.closest("label, .numbered") ?? document.activeElement).outlineStyle`); outline == "nonenone" {
					t.Errorf("the focus on %s is not seen", what)
				}
				return
			}
		}
		t.Fatalf("Tab does not come to %s", what)
	}
	p.await("document.querySelector('.cells path')")
	tabTo("'.world'")
	p.run(chromedp.KeyEvent(kb.ArrowRight), chromedp.KeyEvent(kb.ArrowLeft), chromedp.KeyEvent(kb.Enter))
	p.see(".readout", "clients are answered")
	tabTo("'[data-key=drain-iad1]'")
	p.run(chromedp.KeyEvent(kb.Enter))
	p.see(".safety", "Yes, it is safe to lose iad1")
	tabTo("'[name=reason]'")
	p.run(chromedp.KeyEvent("by keys"), chromedp.KeyEvent(kb.Enter))
	p.see("#sentence", "iad1 is drained by ops")
	tabTo("'[data-key=end-drain-iad1]'")
	p.run(chromedp.KeyEvent(kb.Enter))
	p.see("dialog", "Undrain iad1?")
	p.run(chromedp.KeyEvent(kb.Escape))
	p.await(`!document.querySelector("dialog") && document.activeElement?.dataset.key === "end-drain-iad1"`)
}

// tryHealth looks at who says what: votes, regions, a vantage that is not believed, DNS nodes, and a PoP that is degraded.
func tryHealth(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#sentence", "All 6 PoPs")
	w.change("status", func() {
		w.worn = map[string]string{"fra1": "it says itself: no cluster can be reached"}
		sees := func(target string, status health.Status) controlplane.VantageSees {
			return controlplane.VantageSees{Target: target, Status: status, Reason: "a reason of " + string(status), Since: time.Now().Add(-time.Minute)}
		}
		w.vantages = []controlplane.VantageStatus{
			{Name: "dns:a", Region: "EU", Statements: []controlplane.VantageSees{sees("pop/fra1", health.Up), sees("dns/b", health.Down)}},
			{Name: "pop:sin1", Region: "AS", Doubted: "it says of 3 of 4 targets that they are down", Statements: []controlplane.VantageSees{sees("pop/fra1", health.Down)}},
		}
		w.dns = []controlplane.DNSStatus{{Name: "b", Address: "192.0.2.53:53", Health: health.Verdict{Status: health.Down, Reason: "no answer in time", Since: time.Now().Add(-time.Minute)}}}
	})
	p.see("#sentence", "DNS node b is down: no answer in time")
	p.see("#sentence", "fra1 is degraded: it says itself: no cluster can be reached")
	p.see("#sentence", "pop:sin1 is not believed")
	p.see("main", "degraded for 2 min")
	p.visit("#/health")
	p.see("main", "6 of 7; down in AS")
	p.see("main", "192.0.2.53:53")
	p.see("main", "no: it says of 3 of 4 targets that they are down")
	p.run(chromedp.Click(`details[data-key="who-pop/fra1"] summary`))
	p.see("details[open]", "dns:a (EU) says up for 1 min: a reason of up")
	p.see("details[open]", "pop:sin1 (AS), which is not believed, says down")
	w.change("status", func() { w.dns[0].Health.Reason = "another reason" })
	p.see("main", "another reason")
	p.see("details[open]", "says up") // it stays open
	p.picture("view-health", true)
}

func tryPhone(t *testing.T, w *world, open opener) {
	w.down["jnb1"] = "connection refused by a host with a name that has no place to break, such as abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz.example"
	w.keys = []map[string]any{{"id": "0123456789abcdef", "note": "a client", "quota_per_minute": 1000, "created": w.began, "services": []string{topology.ExampleService}}}
	p := open(in, 320, 640)
	p.see("#sentence", "jnb1 is down")
	for _, view := range []string{"", "explain?client=192.0.2.7", "services", "keys", "health", "overrides", "history?from=12&to=41", "topology"} {
		p.visit("#/" + view)
		p.await("document.querySelector('main table, main textarea, main .nothing')")
		p.fits()
		if view == "" {
			p.picture("view-phone", true)
		}
	}
}

// tryEmpty looks at a world that has nothing yet.
func tryEmpty(t *testing.T, w *world, open opener) {
	w.top, w.history = &topology.Topology{}, nil
	p := open(in, 1280, 900)
	p.see("#sentence", "There is no PoP and no cluster yet.")
	for _, view := range []string{"explain", "services", "keys", "health", "overrides", "history", ""} {
		p.visit("#/" + view)
		p.await("document.querySelector('main form, main .nothing')")
	}
	p.visit("#/topology")
	p.await(`document.querySelector("textarea")?.value.includes("capacity_rps")`) // of a new PoP
	p.write("main input[placeholder^='name']", "ams1")
	p.edit("lat: 0.0", "lat: 52.37")
	p.edit("lon: 0.0", "lon: 4.9")
	p.edit("country: XX", "country: NL")
	p.edit("addresses: []", "addresses: [192.0.2.1]")
	p.press("main", "Apply…")
	p.press("dialog", "Apply")
	p.see("main .told.good", "Applied as revision 42.")
	p.see("#sentence", "The PoP is well.")
}

func tryNotLive(t *testing.T, w *world, open opener) {
	p := open(in, 1280, 900)
	p.see("#live", "live")
	p.await(`document.querySelector(".live.on")`)
	w.mu.Lock()
	for c := range w.followers {
		close(c)
		delete(w.followers, c)
	}
	w.down["gru1"] = "timeout" // nobody is told
	w.mu.Unlock()
	p.await(`document.querySelector(".live.off")`)
	p.see("#live", "not live for")
	p.await(`document.querySelector(".live.on")`)
	p.see("#sentence", "gru1 is down")
}

func tryDark(t *testing.T, w *world, open opener) {
	w.overrides["drain-nrt1"] = map[string]any{"schema": 1, "kind": "drain", "pop": "nrt1", "reason": "power works", "author": "ops", "created": w.began, "expires": time.Now().Add(40 * time.Minute)}
	p := open(in, 1120, 1340)
	p.dark()
	p.see("#sentence", "nrt1 is drained")
	if got := js[string](p, "getComputedStyle(document.body).backgroundColor"); got != "rgb(16, 23, 26)" {
		t.Errorf("the paper is %s in the dark", got)
	}
	p.picture("view-dark", false)
	p.visit("#/explain?client=192.0.2.7")
	p.see(".answer h2", "Answered sin1")
	p.await("document.querySelectorAll('.way').length === 6")
	js[any](p, "scrollTo(0, 0)")
	p.picture("page-explain", false)
}
