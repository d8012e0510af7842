package main

import (
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// traces are what a collector was sent.
type traces struct {
	mu    sync.Mutex
	spans []*otlp.Span
}

// ServeHTTP implements http.Handler.
func (c *traces) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(r.Body)
	if r.Header.Get("Content-Encoding") == "gzip" {
		body, _ = gzip.NewReader(r.Body)
	}
	text, _ := io.ReadAll(body)
	var sent collector.ExportTraceServiceRequest
	if proto.Unmarshal(text, &sent) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, of := range sent.ResourceSpans {
		for _, scope := range of.ScopeSpans {
			c.spans = append(c.spans, scope.Spans...)
		}
	}
}

// of returns the names of the spans of a trace, in alphabetical order, and all their attributes.
func (c *traces) of(trace string) (names, attributes string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, s := range c.spans {
		if fmt.Sprintf("%x", s.TraceId) == trace {
			all = append(all, s.Name)
			attributes += fmt.Sprint(s.Attributes)
		}
	}
	slices.Sort(all)
	return strings.Join(all, " "), attributes
}

// TestSeeing follows one request through the access log and through a trace, and looks for the key in both.
func TestSeeing(t *testing.T) {
	sent := &traces{}
	server := httptest.NewServer(sent)
	defer server.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	path := filepath.Join(t.TempDir(), "access.log")
	c := startContract(t, true, "--access-log", path, "--access-log-sample", "1", "--trace-sample", "0")
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	over := c.wires[0]
	id := c.accepted(t, "a traced request", c.send(t, over, call{}.with("Traceparent", "00-"+trace+"-00f067aa0ba902b7-01")), contractPayload, "application/json")
	c.send(t, over, call{body: "{"}).problem(t, "no JSON", 400)
	c.send(t, over, call{}.with("X-API-Key", c.key+"x")).problem(t, "another key", 401)

	// lines are those of a file, by status.
	lines := func(path string) map[float64][]map[string]any {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if secret := strings.Split(c.key, "_")[2]; strings.Contains(string(text), secret) {
			t.Errorf("the access log has the key:\n%s", text)
		}
		all := map[float64][]map[string]any{}
		for line := range strings.Lines(string(text)) {
			if strings.HasSuffix(line, "\n") {
				one := decode[map[string]any](t, line)
				status, _ := one["status"].(float64)
				all[status] = append(all[status], one)
			}
		}
		return all
	}
	eventually(t, "the lines of three requests", func() error {
		got := lines(path)
		for _, one := range got[202] {
			if one["id"] == id && one["trace"] == trace && one["pop"] == "sin1" && one["service"] == contractHost && one["protocol"] == "h3" &&
				one["key_id"] == strings.Split(c.key, "_")[1] && one["bytes"] == float64(len(contractPayload)) && one["cluster"] == "ap" &&
				one["total_ms"].(float64) > 0 && strings.HasPrefix(one["remote"].(string), "127.0.0.1:") && len(got[400]) == 1 && len(got[401]) >= 1 &&
				strings.Contains(got[400][0]["detail"].(string), "payload") {
				return nil
			}
		}
		text, _ := json.Marshal(map[string]any{"202": got[202], "400": got[400], "401": got[401]})
		return errors.New(string(text))
	})

	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	c.pop.signal(t, syscall.SIGHUP)
	eventually(t, "a new file after SIGHUP", func() error { _, err := os.Stat(path); return err })
	c.accepted(t, "after SIGHUP", c.send(t, over, call{}), contractPayload, "application/json")
	eventually(t, "a line in the new file", func() error {
		if got := lines(path); len(got[202]) == 0 {
			return fmt.Errorf("got %v", got)
		}
		return nil
	})

	began := time.Now()
	c.pop.interrupt(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it ends after %v", took)
	}
	names, attributes := sent.of(trace)
	if !strings.Contains(names, "forward intake") || !strings.Contains(names, "spool") || !strings.Contains(attributes, id) || strings.Contains(attributes, strings.Split(c.key, "_")[2]) {
		t.Errorf("the trace has %s with %s", names, attributes)
	}
	if sent.mu.Lock(); len(sent.spans) > 10 {
		t.Errorf("%d spans are sent, though only one request was to be traced", len(sent.spans))
	}
	sent.mu.Unlock()
}
