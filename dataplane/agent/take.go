package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/problem"
)

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
	contentType, traceparent := cmp.Or(r.Header.Get("Content-Type"), "application/json"), r.Header.Get("Traceparent")
	switch {
	case !ok:
		problem.Write(w, http.StatusBadRequest, fmt.Sprintf("an Idempotency-Key has at most %d octets, all of them printable", maxIdempotencyKey))
		return
	case len(contentType) > maxField:
		problem.Write(w, http.StatusBadRequest, fmt.Sprintf("a Content-Type has at most %d octets", maxField))
		return
	case r.Header.Get("Content-Encoding") != "":
		problem.Write(w, http.StatusUnsupportedMediaType, "payloads are taken as they are, without a content encoding")
		return
	}
	if len(traceparent) > maxField {
		traceparent = ""
	}
	kept, ok := a.keep(r.Header, traceparent)
	if !ok {
		problem.Write(w, http.StatusBadRequest, fmt.Sprintf("of %s, each is sent once at most, with %d octets at most", strings.Join(a.config.Keep, ", "), maxField))
		return
	}
	body, held, refused := a.receive(w, r)
	if refused != nil {
		a.bodies.Release(held)
		refused.write(w)
		return
	}
	a.take(w, r, &spool.Envelope{
		ID: id, SHA256: sha256.Sum256(body), Service: a.config.Service, ContentType: contentType, Traceparent: kept,
		Received: time.Now(), Body: body,
	}, held)
}

// refusal is an answer of the agent's own.
type refusal struct {
	status int
	detail string
	busy   bool // and a program may try again soon
}

func (r *refusal) write(w http.ResponseWriter) {
	if r.busy {
		w.Header().Set("Retry-After", fmt.Sprint(int(busyWait.Seconds())))
	}
	problem.Write(w, r.status, r.detail)
}

// receive reads a body, and returns what is taken of the agent's memory for it. That grows with what has come, where its length is not told.
func (a *Agent) receive(w http.ResponseWriter, r *http.Request) (body []byte, held int64, _ *refusal) {
	tooLarge := &refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("a body has at most %d octets", maxBody)}
	busy := &refusal{status: http.StatusServiceUnavailable, detail: "the agent receives too much at the moment", busy: true}
	if r.ContentLength > maxBody {
		return nil, 0, tooLarge
	}
	size := r.ContentLength
	if size < 0 {
		size = firstRead
	}
	if !a.bodies.TryAcquire(size) {
		return nil, 0, busy
	}
	deadline := http.NewResponseController(w)
	_ = deadline.SetReadDeadline(time.Now().Add(bodyTimeout)) // all of net/http's have one
	body = make([]byte, 0, size)
	for {
		if len(body) == cap(body) && r.ContentLength < 0 {
			more := min(size, maxBody+1-size)
			if more == 0 {
				return nil, size, tooLarge
			}
			if !a.bodies.TryAcquire(more) {
				return nil, size, busy
			}
			size += more
			body = append(make([]byte, 0, size), body...)
		}
		if len(body) == cap(body) {
			break
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF && (r.ContentLength < 0 || int64(len(body)) == r.ContentLength) {
			break
		}
		if err != nil {
			return nil, size, &refusal{status: http.StatusBadRequest, detail: fmt.Sprintf("the body did not arrive whole within %v", bodyTimeout)}
		}
	}
	_ = deadline.SetReadDeadline(time.Time{})
	if len(body) > maxBody {
		return nil, size, tooLarge
	}
	return body, size, nil
}

// take queues a payload, for whose body so much is held, and waits for the PoP's answer for a while.
func (a *Agent) take(w http.ResponseWriter, r *http.Request, e *spool.Envelope, held int64) {
	answered := make(chan *intakeclient.Answer, 1)
	if a.config.Wait > 0 {
		a.mu.Lock()
		a.waiting[e.ID] = answered
		a.mu.Unlock()
		defer a.forget(e.ID, answered)
	}
	err := a.config.Queue.Append(e, nil)
	a.bodies.Release(held)
	if err != nil {
		what := "the agent cannot store payloads safely now"
		if errors.Is(err, spool.ErrFull) {
			what = "the agent's queue is full"
		}
		(&refusal{http.StatusServiceUnavailable, what, true}).write(w)
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
		queued(w, e.ID)
	case <-a.hurry:
		queued(w, e.ID)
	case <-r.Context().Done():
	}
}

// queued tells a program that its payload is safe here.
func queued(w http.ResponseWriter, id string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusAccepted)
	_ = json.NewEncoder(w).Encode(Queued{"queued", id}) // an error means that the program has gone
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

// The id of a queued payload has its Idempotency-Key, so that it is the same after a restart: random, or the program's own, encoded, and
// something that tells two payloads with the same one apart, each of which gets an answer of its own.
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
	return ownID + base64.RawURLEncoding.EncodeToString([]byte(key)) + "." + intakeclient.NewIdempotencyKey()[:8], len(key) <= maxIdempotencyKey
}

func idempotencyKey(id string) string {
	if own, ok := strings.CutPrefix(id, ownID); ok {
		encoded, _, _ := strings.Cut(own, ".")
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
