package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
)

const (
	eventsPath = "/v1/events"

	eventsInterval = 300 * time.Millisecond // between two looks at what has changed
	countsInterval = 2 * time.Second        // between two statuses that differ in counts, and in when was looked, alone
	heartbeat      = 15 * time.Second       // after which a comment is sent when there was nothing else
	streamPatience = 10 * time.Second       // for a client to take what it is sent
)

// glance is what streams look at: all of them at the same one.
type glance struct {
	at       time.Time
	snap     *topology.Snapshot
	status   []byte
	decisive []byte // the status without what changes all the time
	nodes    []byte
}

// stateCache keeps the newest glance.
type stateCache struct {
	mu     sync.Mutex
	newest glance
}

// glance returns the state as it is, or was a moment ago.
func (s *Service) glance(ctx context.Context) glance {
	c := &s.state
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.newest.at) >= eventsInterval*9/10 {
		next := glance{at: now, snap: s.Snapshot()}
		if status, err := s.Status(ctx); err == nil {
			next.status, next.decisive = asEvent(status), asEvent(status.decisive())
		}
		if nodes, err := s.Nodes(ctx); err == nil {
			for i := range nodes {
				nodes[i].Revision = 0 // which changes with every write
			}
			next.nodes = asEvent(nodes)
		}
		c.newest = next
	}
	return c.newest
}

func asEvent(value any) []byte {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic("controlplane: " + err.Error()) // what endpoints answer can be written
	}
	return bytes.TrimSpace(text.Bytes())
}

// Events calls take with the status now, and then with what has changed, a few times a second at most: what changes in between is told
// once. The id of an event is the store's revision.
func (s *Service) Events(ctx context.Context, take func(Event) error) error {
	return s.eventsAfter(ctx, 0, take)
}

// eventsAfter is Events for a client that knows how things were at a revision: it is told that what changed since has changed.
func (s *Service) eventsAfter(ctx context.Context, revision int64, take func(Event) error) error {
	look := time.NewTicker(eventsInterval)
	defer look.Stop()
	var before, told glance // told: of which the status was told last
	for {
		now := s.glance(ctx)
		events := changed(&before, &now, revision)
		if n := len(events); n > 0 && events[n-1].Kind == "status" {
			told = now
		} else if told.snap != nil && now.at.Sub(told.at) >= countsInterval && !bytes.Equal(told.status, now.status) {
			events, told = append(events, statusEvent(&now)), now
		}
		for _, e := range events {
			if err := take(e); err != nil {
				return err
			}
		}
		before = now
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// changed lists what differs between two glances; the first may be empty, for a client that knows a revision.
func changed(before, now *glance, known int64) []Event {
	if now.snap == nil {
		return nil
	}
	var events []Event
	id := strconv.FormatInt(now.snap.Revision, 10)
	add := func(kind string, data []byte) { events = append(events, Event{ID: id, Kind: kind, Data: data}) }
	revision := []byte(id)
	first := before.snap == nil
	if first && known > 0 && now.snap.Revision != known || !first && editedBetween(before.snap, now.snap) {
		add("topology", revision)
		add("history", revision)
	}
	if first && known > 0 && now.snap.Revision != known || !first && !maps.Equal(before.snap.Overrides, now.snap.Overrides) {
		add("overrides", revision)
	}
	if !first && !bytes.Equal(before.nodes, now.nodes) {
		add("nodes", revision)
	}
	if !bytes.Equal(before.decisive, now.decisive) {
		events = append(events, statusEvent(now))
	}
	return events
}

func statusEvent(now *glance) Event {
	return Event{ID: strconv.FormatInt(now.snap.Revision, 10), Kind: "status", Data: now.status}
}

// editedBetween reports whether the stored topology is another one.
func editedBetween(before, now *topology.Snapshot) bool {
	return before.Good != now.Good || !slices.Equal(before.Faults, now.Faults)
}

// decisive is a status without what changes all the time: the store's revision, counts, and when was looked.
func (s *Status) decisive() *Status {
	d := *s
	d.Revision, d.Activity = 0, Activity{}
	still := func(targets []TargetStatus) []TargetStatus {
		targets = slices.Clone(targets)
		for i := range targets {
			targets[i].Health.Seen, targets[i].Health.LastTook, targets[i].Load = time.Time{}, 0, nil
		}
		return targets
	}
	d.PoPs, d.Clusters, d.Spill = still(s.PoPs), still(s.Clusters), s.Spill.decisive()
	return &d
}

func eventsRoute() route {
	return route{
		method: "GET", path: eventsPath, role: Viewer, summary: "What changes, as it changes, as server-sent events",
		request: reflect.TypeFor[eventsParams](), response: reflect.TypeFor[Event](),
	}
}

type eventsParams struct {
	Last string `header:"Last-Event-ID" doc:"id of the last event that the client has"`
}

// events serves a stream of events (text/event-stream of the HTML standard).
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		w.Header().Set("Retry-After", "5")
		problem.Write(w, http.StatusServiceUnavailable, fmt.Sprintf("there are %d streams of events already", cap(h.streams)))
		return
	}
	last, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64)
	if err != nil {
		last = 0
	}
	h.metrics.streams.Inc()
	defer h.metrics.streams.Dec()
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no")
	if r.Method == http.MethodHead {
		return // there is nothing to send, ever
	}
	s := &stream{control: http.NewResponseController(w), w: w}
	if err := s.send(fmt.Appendf(nil, "retry: %d\n\n", time.Second.Milliseconds())); err == nil {
		err = h.stream(r, s, last)
		if errors.Is(err, errSlow) {
			h.metrics.cut.Inc()
		}
	}
}

// stream sends events and heartbeats until one of both ends is gone, or the token is no longer good.
func (h *handler) stream(r *http.Request, s *stream, last int64) error {
	ctx := r.Context()
	token := time.NewTicker(time.Second)
	defer token.Stop()
	events := make(chan Event)
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer func() { cancel(); <-ended }()
	go func() {
		ended <- h.service.eventsAfter(ctx, last, func(e Event) error {
			select {
			case events <- e: // while one is sent the next one waits, and is then the newest
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	for quiet := time.Now(); ; {
		var text []byte
		select {
		case e := <-events:
			text = fmt.Appendf(nil, "id: %s\nevent: %s\ndata: %s\n\n", e.ID, e.Kind, e.Data)
		case <-token.C:
			if _, _, err := h.guard.identify(r); err != nil {
				return err
			}
			if time.Since(quiet) < heartbeat {
				continue
			}
			text = []byte(": still here\n\n")
		case <-h.config.Closing:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
		if err := s.send(text); err != nil {
			return err
		}
		quiet = time.Now()
	}
}

// stream is the answer that events are written to.
type stream struct {
	control *http.ResponseController
	w       http.ResponseWriter
}

// errSlow ends the stream of a client that does not take what it is sent.
var errSlow = errors.New("the client reads too slowly")

func (s *stream) send(text []byte) error {
	if err := s.control.SetWriteDeadline(time.Now().Add(streamPatience)); err != nil {
		return err
	}
	_, err := s.w.Write(text)
	if err == nil {
		err = s.control.Flush()
	}
	if err != nil && strings.Contains(err.Error(), "timeout") {
		return errSlow
	}
	return err
}
