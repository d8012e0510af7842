package agent

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/internal/intaketest"
)

// TestHeaderSurvives has a program's header wait in the queue over a restart: what matters to a PoP gets there, and nothing else.
func TestHeaderSurvives(t *testing.T) {
	ca, dir := intaketest.CA(t), t.TempDir()
	seen := make(chan http.Header, 10)
	p := &pop{}
	p.Server = intaketest.Serve(t, ca, service, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		seen <- r.Header
		w.WriteHeader(http.StatusAccepted)
	}))
	keep := func(c *Config) { c.Wait, c.Keep = 0, []string{"X-Signature", "X-Timestamp", "X-None"} }
	a := startAgent(t, ca, dir, keep) // without a PoP
	const trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	for _, header := range [][]string{
		{"Content-Type", "application/x; a=b", "Idempotency-Key", "event 1", "Traceparent", trace, "X-Signature", "sha256=ab: c", "X-Timestamp", "12", "X-Other", "o", "X-Api-Key", "own"},
		{"X-Timestamp", "13"},
	} {
		if code, answer, _ := a.post(t, strings.NewReader("{}"), header...); code != 202 || !strings.Contains(answer, "queued") {
			t.Fatalf("got %d: %s", code, answer)
		}
	}
	if code, _, _ := a.post(t, strings.NewReader("{}"), "X-Signature", strings.Repeat("s", maxField+1)); code != 400 {
		t.Errorf("a long signature: got %d", code)
	}
	a.stop()
	startAgent(t, ca, dir, keep, p)
	for range 2 {
		got := <-seen
		want := map[string]string{"Content-Type": "application/json", "X-Timestamp": "13", "Traceparent": "", "X-Signature": "", "X-Api-Key": "key", "X-Other": "", "X-None": ""}
		if got.Get("Idempotency-Key") == "event 1" {
			want = map[string]string{"Content-Type": "application/x; a=b", "X-Timestamp": "12", "Traceparent": trace, "X-Signature": "sha256=ab: c", "X-Api-Key": "key", "X-Other": ""}
		}
		for name, value := range want {
			if got.Get(name) != value {
				t.Errorf("%s is %q, want %q", name, got.Get(name), value)
			}
		}
	}
}
