// Package agent is a node operator's local end of an intake: it takes payloads over plain HTTP from programs on the same machine that
// speak nothing better, keeps them in a small durable queue, and posts them to the nearest PoP until one has accepted or refused them.
package agent

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/problem"
)

// Limits of an agent.
const (
	workers           = 16 // payloads that are posted at a time
	maxBody           = 16 << 20
	maxIdempotencyKey = 255
	busyWait          = time.Second // before a client tries a full queue again
)

// Config is what an agent needs.
type Config struct {
	Service string               // host name
	Key     string               // API key
	Queue   *spool.Spool         // closed by Run
	Sender  *intakeclient.Sender // closed by Run
	Wait    time.Duration        // how long a program waits for the PoP's answer; 0 answers as soon as a payload is queued
	Log     *slog.Logger
}

// Agent is an http.Handler; Run posts what it has taken.
type Agent struct {
	config Config
	counts counts
	pages  http.CrossOriginProtection // refuses what pages in a browser send

	mu      sync.Mutex
	waiting map[string]chan *intakeclient.Answer // programs that wait, by id
}

type counts struct{ taken, accepted, refused, dead atomic.Uint64 }

// Stats are totals since the start.
type Stats struct{ Taken, Accepted, Refused, Dead uint64 }

// New returns an agent.
func New(c Config) *Agent {
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	return &Agent{config: c, waiting: map[string]chan *intakeclient.Answer{}}
}

// Stats returns totals since the start.
func (a *Agent) Stats() Stats {
	return Stats{a.counts.taken.Load(), a.counts.accepted.Load(), a.counts.refused.Load(), a.counts.dead.Load()}
}

// Queued is what the agent answers when no PoP has answered yet.
type Queued struct {
	Status string `json:"status"` // "queued"
	ID     string `json:"id"`     // of the agent's queue
}

// ServeHTTP takes one payload, by POST to any path.
func (a *Agent) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !local(r.Host) { // a page that a browser has loaded may only reach us by a name of its own, whose address it has changed
		problem.Write(w, http.StatusMisdirectedRequest, "this is a local agent: its name is localhost, or its address")
		return
	}
	if a.pages.Check(r) != nil { // by the address itself, which a page can post to without asking anybody
		problem.Write(w, http.StatusForbidden, "this is a local agent: it takes nothing from pages in a browser")
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		problem.Write(w, http.StatusMethodNotAllowed, "payloads are posted")
		return
	}
	id, ok := queueID(r.Header.Get("Idempotency-Key"))
	if !ok {
		problem.Write(w, http.StatusBadRequest, fmt.Sprintf("an Idempotency-Key has at most %d octets, all of them printable", maxIdempotencyKey))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		problem.Write(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body did not arrive whole, or has more than %d octets", maxBody))
		return
	}
	a.take(w, r, &spool.Envelope{
		ID: id, SHA256: sha256.Sum256(body), Service: a.config.Service, ContentType: cmp.Or(r.Header.Get("Content-Type"), "application/json"),
		Traceparent: r.Header.Get("Traceparent"), Received: time.Now(), Body: body,
	})
}

// take queues a payload and waits for the PoP's answer for a while.
func (a *Agent) take(w http.ResponseWriter, r *http.Request, e *spool.Envelope) {
	answered := make(chan *intakeclient.Answer, 1)
	if a.config.Wait > 0 {
		a.mu.Lock()
		a.waiting[e.ID] = answered
		a.mu.Unlock()
		defer a.forget(e.ID, answered)
	}
	if err := a.config.Queue.Append(e, nil); err != nil {
		w.Header().Set("Retry-After", fmt.Sprint(int(busyWait.Seconds())))
		what := "the agent cannot store payloads safely now"
		if errors.Is(err, spool.ErrFull) {
			what = "the agent's queue is full"
		}
		problem.Write(w, http.StatusServiceUnavailable, what)
		return
	}
	a.counts.taken.Add(1)
	timeout := time.NewTimer(a.config.Wait)
	defer timeout.Stop()
	select {
	case answer := <-answered:
		for _, name := range []string{"Content-Type", "X-Request-Hash", "X-Isochrone-Pop", "X-Isochrone-Cluster", "X-Isochrone-Window", "Ratelimit", "Ratelimit-Policy"} {
			if value := answer.Header.Get(name); value != "" {
				w.Header().Set(name, value)
			}
		}
		w.WriteHeader(answer.Status)
		_, _ = w.Write(answer.Body) // an error means that the program has gone
	case <-timeout.C:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusAccepted)
		_ = json.NewEncoder(w).Encode(Queued{"queued", e.ID}) // likewise
	case <-r.Context().Done():
	}
}

func (a *Agent) forget(id string, answered chan *intakeclient.Answer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.waiting[id] == answered {
		delete(a.waiting, id)
	}
}

// tell gives the PoP's answer to the program that waits for it, and reports whether one did.
func (a *Agent) tell(id string, answer *intakeclient.Answer) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	answered := a.waiting[id]
	delete(a.waiting, id)
	if answered == nil {
		return false
	}
	answered <- answer // it has room for one
	return true
}

// The id of a queued payload has its Idempotency-Key, so that it is the same after a restart: random, or the program's own, encoded.
const (
	randomID = "agent."
	ownID    = "agent-own."
)

func queueID(key string) (id string, ok bool) {
	if key == "" {
		return randomID + intakeclient.NewIdempotencyKey(), true
	}
	for i := range len(key) {
		if key[i] < ' ' || key[i] > '~' {
			return "", false
		}
	}
	return ownID + base64.RawURLEncoding.EncodeToString([]byte(key)), len(key) <= maxIdempotencyKey
}

func idempotencyKey(id string) string {
	if encoded, ok := strings.CutPrefix(id, ownID); ok {
		if key, err := base64.RawURLEncoding.DecodeString(encoded); err == nil {
			return string(key)
		}
	}
	return strings.TrimPrefix(id, randomID)
}

// local reports whether a Host is that of this machine: an address, or localhost.
func local(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil || strings.EqualFold(strings.TrimSuffix(host, "."), "localhost")
}

// Run posts what is queued until ctx ends; then what is under way has a moment, and the rest waits for the next start.
func (a *Agent) Run(ctx context.Context) error {
	var running sync.WaitGroup
	for range workers {
		running.Go(func() { a.work(ctx) })
	}
	running.Wait()
	return errors.Join(a.config.Sender.Close(), a.config.Queue.Close())
}

func (a *Agent) work(ctx context.Context) {
	for {
		item, err := a.config.Queue.Next(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			a.config.Log.Error("a queued payload cannot be read", "error", err)
			continue
		}
		a.post(ctx, item)
	}
}

// post posts one payload until the answer is final.
func (a *Agent) post(ctx context.Context, item *spool.Item) {
	header := http.Header{
		"X-Api-Key": {a.config.Key}, "Content-Type": {item.ContentType}, "Idempotency-Key": {idempotencyKey(item.ID)}, "User-Agent": {"isochrone-agent"},
	}
	if item.Traceparent != "" {
		header.Set("Traceparent", item.Traceparent)
	}
	answer, err := a.config.Sender.Send(ctx, header, bytes.Clone(item.Body))
	switch {
	case err != nil: // the agent is ending
		a.config.Queue.Return(item)
		return
	case answer.Status == http.StatusAccepted:
		a.counts.accepted.Add(1)
		a.tell(item.ID, answer)
		a.config.Queue.Delivered(item, answer.Header.Get("X-Isochrone-Pop"))
		return
	}
	a.counts.refused.Add(1)
	if a.tell(item.ID, answer) {
		a.config.Queue.Acknowledge(item) // the program knows, and the queue need not keep it
		return
	}
	reason := fmt.Sprintf("PoP %s answered %d: %.500s", answer.Header.Get("X-Isochrone-Pop"), answer.Status, answer.Body)
	a.config.Log.Warn("a payload was refused for good; it is a dead letter now", "id", item.ID, "status", answer.Status)
	a.counts.dead.Add(1)
	if err := a.config.Queue.Bury(item, reason); err != nil {
		a.config.Log.Error("a dead letter cannot be kept; its payload stays in the queue", "error", err)
		a.config.Queue.Return(item)
	}
}
