package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

// others posts by programs of others: a browser over HTTP/3, load generators over HTTP/2 and HTTP/1.1.
func (c *contract) others(t *testing.T) {
	t.Run("chromium", c.chromium)
	t.Run("h2load", c.h2load)
	t.Run("wrk", c.wrk)
}

// count returns how many envelopes the cluster has with a body.
func (c *region) count(body string) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, d := range c.took {
		if d.body == body {
			n++
		}
	}
	return n
}

// arrived waits until the cluster has at least so many envelopes with a body, and returns how many.
func (c *region) arrived(t *testing.T, body string, want int) int {
	t.Helper()
	eventually(t, fmt.Sprintf("%d envelopes", want), func() error {
		if n := c.count(body); n < want {
			return fmt.Errorf("the cluster has %d", n)
		}
		return nil
	})
	return c.count(body)
}

// chromium posts by fetch from a page of the PoP's own origin, the 404, as a browser does for which no CORS is needed.
func (c *contract) chromium(t *testing.T) {
	path := need(t, "chromium")
	conn, err := tls.Dial("tcp", c.at, c.tls("h2"))
	if err != nil {
		t.Fatal(err)
	}
	var keys []string // of the certificates that the browser is to trust
	for _, certificate := range conn.ConnectionState().PeerCertificates {
		sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
		keys = append(keys, base64.StdEncoding.EncodeToString(sum[:]))
	}
	conn.Close()
	addr, port, _ := net.SplitHostPort(c.at)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-gpu", true), chromedp.Flag("ignore-certificate-errors-spki-list", strings.Join(keys, ",")),
		chromedp.Flag("origin-to-force-quic-on", contractHost+":"+port),
		chromedp.Flag("host-resolver-rules", "MAP "+contractHost+" "+addr+", MAP * ~NOTFOUND , EXCLUDE 127.0.0.1"))
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox)
	}
	allocator, stop := chromedp.NewExecAllocator(t.Context(), options...)
	defer stop()
	browser, stop := chromedp.NewContext(allocator)
	defer stop()
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	ctx, cancel := context.WithTimeout(browser, patience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate("https://"+contractHost+":"+port+"/")); err != nil {
		t.Fatal(err)
	}
	const body = "{ \"hash\": \"żółć 🙂\", \"sender\": \"\\u0000\", \"amount\": 1 }\n"
	type result struct {
		Status                          int
		Pop, ID, SHA256, Protocol, Page string
	}
	script := fmt.Sprintf(`(async () => {
		const answer = await fetch(%q, {method: "POST", headers: {"X-API-Key": %q, "Content-Type": "application/json"}, body: %q});
		const told = await answer.json();
		const entry = performance.getEntriesByType("resource").find((e) => e.name.endsWith(%[1]q));
		return {status: answer.status, pop: answer.headers.get("X-Isochrone-Pop"), id: told.id, sha256: told.sha256,
			protocol: entry?.nextHopProtocol, page: document.body.innerText};
	})()`, contractPath, c.key, body)
	got, err := chromedp.Run(ctx, chromedp.Evaluate[result](script, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != 202 || got.Pop != "sin1" || got.Protocol != "h3" || got.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte(body))) ||
		!strings.Contains(got.Page, "Not Found") {
		t.Errorf("got %+v", got)
	}
	if d := c.region.await(t, got.ID); d.body != body {
		t.Errorf("the cluster has %q", d.body)
	}
}

// post writes a payload of its own to a file, for a load generator.
func postFile(t *testing.T, tool string) (path, body string) {
	t.Helper()
	body = strings.Replace(contractPayload, "0xab", tool, 1)
	path = filepath.Join(t.TempDir(), "body.json")
	if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
	return path, body
}

// calm is how often a program is run again because the PoP, on a machine that is slow, had no time for some of its requests.
const calm = 10

func (c *contract) h2load(t *testing.T) {
	for _, version := range []string{"h2", "http/1.1"} {
		const requests = 600
		var out []byte
		var body string
		for try := range calm {
			var path string
			path, body = postFile(t, fmt.Sprintf("h2load %s %d", version, try))
			var err error
			out, err = exec.CommandContext(t.Context(), need(t, "h2load"), "-n", strconv.Itoa(requests), "-c", "6", "-m", "10", "--npn-list", version,
				"-H", "X-API-Key: "+c.key, "-H", "Content-Type: application/json", "-d", path, "https://"+c.at+contractPath).CombinedOutput()
			if err != nil {
				t.Fatalf("over %s: %v: %s", version, err, out)
			}
			if !regexp.MustCompile(`0 3xx, 0 4xx, [1-9]\d* 5xx`).Match(out) {
				break
			}
		}
		if !strings.Contains(string(out), fmt.Sprintf("status codes: %d 2xx, 0 3xx, 0 4xx, 0 5xx", requests)) {
			t.Errorf("over %s: %s", version, out)
			continue
		}
		if n := c.region.arrived(t, body, requests); n != requests {
			t.Errorf("over %s: the cluster has %d of %d", version, n, requests)
		}
	}
}

func (c *contract) wrk(t *testing.T) {
	const connections = 8
	script := filepath.Join(t.TempDir(), "post.lua")
	var out []byte
	var body string
	for try := range calm {
		_, body = postFile(t, fmt.Sprint("wrk ", try))
		text := fmt.Sprintf("wrk.method = \"POST\"\nwrk.body = [[%s]]\nwrk.headers[\"X-API-Key\"] = %q\nwrk.headers[\"Content-Type\"] = \"application/json\"\n", body, c.key)
		err := os.WriteFile(script, []byte(text), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		out, err = exec.CommandContext(t.Context(), need(t, "wrk"), "-t", "1", "-c", strconv.Itoa(connections), "-d", "1s", "-s", script,
			"https://"+c.at+contractPath).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if !strings.Contains(string(out), "Non-2xx") {
			break
		}
	}
	said := regexp.MustCompile(`(?m)^\s*(\d+) requests in`).FindSubmatch(out)
	if said == nil || strings.Contains(string(out), "Non-2xx") || strings.Contains(string(out), "Socket errors") {
		t.Fatalf("%s", out)
	}
	answered, _ := strconv.Atoi(string(said[1]))
	n := c.region.arrived(t, body, answered) // it leaves at its end what is in flight
	if answered < 10 || n > answered+connections {
		t.Errorf("%d are answered, the cluster has %d", answered, n)
	}
}
