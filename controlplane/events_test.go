package controlplane

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// listen collects events in the background until the test ends.
func (w *world) listen(ops Operations) <-chan Event {
	w.t.Helper()
	events, ended := make(chan Event, 100), make(chan error, 1)
	ctx, cancel := context.WithCancel(w.t.Context())
	go func() {
		ended <- ops.Events(ctx, func(e Event) error {
			events <- e
			return nil
		})
	}()
	w.t.Cleanup(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			w.t.Errorf("events ended with %v", err)
		}
	})
	return events
}

// await waits for events of all kinds, and returns the last of each.
func (w *world) await(events <-chan Event, kinds ...string) map[string]Event {
	w.t.Helper()
	got, deadline := map[string]Event{}, time.After(20*time.Second)
	for {
		missing := 0
		for _, kind := range kinds {
			if _, ok := got[kind]; !ok {
				missing++
			}
		}
		if missing == 0 {
			return got
		}
		select {
		case e := <-events:
			got[e.Kind] = e
		case <-deadline:
			w.t.Fatalf("got %v, want %v", got, kinds)
		}
	}
}

func TestEvents(t *testing.T) {
	w := begin(t, nil)
	for name, ops := range w.both(Viewer) {
		events := w.listen(ops)
		var status Status
		for len(status.PoPs) != 6 { // it may be of a moment ago
			first := w.await(events, "status")["status"]
			if err := json.Unmarshal(first.Data, &status); err != nil || first.ID == "" {
				t.Fatalf("%s: got %s, %v", name, first.Data, err)
			}
		}
		w.drain("sin1")
		got := w.await(events, "overrides", "status")
		if err := json.Unmarshal(got["status"].Data, &status); err != nil || len(status.Overrides) != 1 {
			t.Errorf("%s: got %s, %v", name, got["status"].Data, err)
		}
		if _, err := w.client(Operator).Apply(t.Context(), ApplyRequest{Delete: []string{"pops/jnb1"}}); err != nil {
			t.Fatal(err)
		}
		w.await(events, "topology", "history")
		w.down("fra1")
		w.await(events, "status")
		if _, err := w.client(Operator).DeleteOverride(t.Context(), "drain-sin1"); err != nil {
			t.Fatal(err)
		}
		w.await(events, "overrides")
		put := string(new(topology.Topology).With(map[topology.Ref]topology.Object{{Kind: topology.PoPs, Name: "jnb1"}: example().PoPs["jnb1"]}, nil).Marshal())
		if _, err := w.client(Operator).Apply(t.Context(), ApplyRequest{Document: put}); err != nil {
			t.Fatal(err)
		}
	}
}

// stream opens a stream of events and returns its lines.
func (w *world) stream(role Role, header ...string) (*bufio.Scanner, *http.Response) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), "GET", w.url+eventsPath, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	request.Header.Set("Authorization", "Bearer "+w.tokens[role])
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { response.Body.Close() })
	lines := bufio.NewScanner(response.Body)
	lines.Buffer(nil, maxEventBytes)
	return lines, response
}

func TestStreams(t *testing.T) {
	closing := make(chan struct{})
	w := begin(t, &HandlerConfig{Streams: 2, Closing: closing})
	made, err := w.client(Admin).CreateToken(t.Context(), TokenRequest{Name: "Bob", Role: Viewer})
	if err != nil {
		t.Fatal(err)
	}
	w.tokens["bob"] = made.Secret
	w.eventually("the token", func() bool { _, err := w.client("bob").Whoami(t.Context()); return err == nil })
	bob, response := w.stream("bob", "Last-Event-ID", "1")
	if response.Header.Get("Content-Type") != "text/event-stream" || response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %v", response.Header)
	}
	kinds := ""
	for bob.Scan() { // who knows the past is told what changed since
		if kind, ok := strings.CutPrefix(bob.Text(), "event: "); ok {
			if kinds += kind + " "; kind == "status" {
				break
			}
		}
	}
	if kinds != "topology history overrides status " {
		t.Errorf("after the first revision: got %s", kinds)
	}
	viewer, _ := w.stream(Viewer)
	w.ask(Viewer, "GET", eventsPath, "").problem(t, 503)

	if err := w.client(Admin).RevokeToken(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	for bob.Scan() { // until it is ended
	}
	w.eventually("a free place", func() bool { return len(w.client(Viewer).base) > 0 && w.metric("isochrone_control_streams 1") })
	close(closing)
	for viewer.Scan() { // likewise
	}
	w.eventually("no stream", func() bool { return w.metric("isochrone_control_streams 0") })
}

// metric reports whether /metrics has a line.
func (w *world) metric(line string) bool {
	return strings.Contains(string(w.ask(Viewer, "GET", "/metrics", "").body), "\n"+line+"\n")
}

// slowWriter is an http.ResponseWriter of a client that takes nothing in time.
type slowWriter struct{ recorder }

func (*slowWriter) SetWriteDeadline(time.Time) error { return nil }
func (*slowWriter) Write([]byte) (int, error)        { return 0, timeout{} }
func (*slowWriter) Flush()                           {}

type timeout struct{}

func (timeout) Error() string { return "i/o timeout" }

func TestSlowClientIsCut(t *testing.T) {
	w := &slowWriter{recorder{header: http.Header{}}}
	s := &stream{control: http.NewResponseController(w), w: w}
	if err := s.send([]byte("x")); !errors.Is(err, errSlow) {
		t.Errorf("got %v", err)
	}
}
