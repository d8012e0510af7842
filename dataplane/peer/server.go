package peer

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/internal/problem"
)

const (
	maxBody      = 16 << 10        // of a call
	bodyTimeout  = 2 * time.Second // for it to come
	maxServed    = 256             // calls at a time
	maxAnswering = 2 * time.Second // of one
)

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Name    string          // of this PoP
	Secrets func() [][]byte // that PoPs share now; none: calls are not taken
	Metrics *Metrics        // nil for none
	Log     *slog.Logger    // of panics; nil for none
}

// Server answers the calls of other PoPs.
type Server struct {
	config   ServerConfig
	handlers map[string]handler
	serving  chan struct{} // has one for each call
	nonces   *nonces
}

type handler func(ctx context.Context, from string, body []byte) ([]byte, error)

// Error is an error that a handler has the caller told.
type Error struct {
	Status int // of HTTP
	Detail string
}

func (e *Error) Error() string { return e.Detail }

// NewServer returns a server without handlers.
func NewServer(c ServerConfig) *Server {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{config: c, handlers: map[string]handler{}, serving: make(chan struct{}, maxServed), nonces: newNonces(time.Now())}
}

// Handle has calls of a name answered. It may not be called once the server serves. What do returns for an error that is no *Error, the
// caller is told as 503 without its text.
func Handle[Q, A any](s *Server, name string, do func(ctx context.Context, from string, ask Q) (A, error)) {
	s.handlers[name] = func(ctx context.Context, from string, body []byte) ([]byte, error) {
		var ask Q
		if err := readJSON(body, &ask); err != nil {
			return nil, &Error{http.StatusBadRequest, "the call is not as it should be: " + err.Error()}
		}
		answer, err := do(ctx, from, ask)
		if err != nil {
			return nil, err
		}
		return json.Marshal(answer)
	}
}

// readJSON reads one value, and nothing behind it. Fields that are not known are those of a newer PoP.
func readJSON(text []byte, into any) error {
	decoder := json.NewDecoder(bytes.NewReader(text))
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); err != io.EOF {
		return errors.New("something stands behind the value")
	}
	return nil
}

// Before returns a handler that answers calls, and leaves all else to next.
func (s *Server) Before(next exchange.Handler) exchange.Handler { return &front{s, next} }

type front struct {
	*Server
	next exchange.Handler
}

// Answer implements exchange.Handler.
func (f *front) Answer(r *exchange.Request, a *exchange.Answer) {
	name, ok := strings.CutPrefix(r.Path, Path)
	if !ok {
		f.next.Answer(r, a)
		return
	}
	a.Add("x-isochrone-pop", f.config.Name)
	a.Add("cache-control", "no-store")
	body, outcome, err := f.serve(r, name)
	if f.handlers[name] == nil {
		name = "other"
	}
	f.config.Metrics.served(name, outcome)
	if err == nil {
		a.Add("content-type", "application/json")
		a.Status, a.Body = http.StatusOK, append(a.Body[:0], body...)
		return
	}
	told := &Error{http.StatusServiceUnavailable, "this PoP cannot answer now"}
	errors.As(err, &told)
	switch told.Status {
	case http.StatusMethodNotAllowed:
		a.Add("allow", http.MethodPost)
	case http.StatusServiceUnavailable:
		a.Add("retry-after", "1")
	case http.StatusUnauthorized:
		a.Add("www-authenticate", "Isochrone-Peer")
	}
	a.Add("content-type", problem.ContentType)
	a.Status, a.Body = told.Status, problem.Append(a.Body[:0], told.Status, told.Detail)
}

// refusal returns why a call is refused, and as what it counts.
func refusal(outcome string, status int, format string, arguments ...any) ([]byte, string, error) {
	return nil, outcome, &Error{status, fmt.Sprintf(format, arguments...)}
}

// serve answers a call. What can be found out without the body is, before it is read: strangers have none read.
func (s *Server) serve(r *exchange.Request, name string) (answer []byte, outcome string, err error) {
	secrets, now := s.config.Secrets(), time.Now()
	do := s.handlers[name]
	switch {
	case len(secrets) == 0:
		return refusal("off", http.StatusNotFound, "PoPs are not asked here: there is no secret that they share")
	case do == nil || r.Query != "":
		return refusal("bad", http.StatusNotFound, "there is no such call")
	case r.Method != http.MethodPost:
		return refusal("bad", http.StatusMethodNotAllowed, "calls are posted")
	case r.Early:
		return refusal("bad", http.StatusTooEarly, "send this after the handshake")
	}
	p, err := parsePass(r.Header.Get(headerName))
	if err == nil {
		err = p.verify(secrets, s.config.Name, r.Method, r.Path, now)
	}
	switch {
	case errors.Is(err, ErrStale):
		return refusal("stale", http.StatusUnauthorized, "%v", err)
	case err != nil:
		return refusal("stranger", http.StatusUnauthorized, "%v", err)
	case r.ContentLength < 0 || r.ContentLength > maxBody:
		return refusal("bad", http.StatusRequestEntityTooLarge, "a call tells its length, of at most %d octets", maxBody)
	}
	select {
	case s.serving <- struct{}{}:
		defer func() { <-s.serving }()
	default:
		return refusal("busy", http.StatusServiceUnavailable, "this PoP answers %d calls already", maxServed)
	}
	body := make([]byte, r.ContentLength)
	if err := r.Body.SetReadDeadline(now.Add(bodyTimeout)); err != nil {
		return refusal("bad", http.StatusBadRequest, "the call did not arrive whole")
	}
	if _, err := io.ReadFull(r.Body, body); err != nil {
		return refusal("bad", http.StatusBadRequest, "the call did not arrive whole")
	}
	if sum := sha256.Sum256(body); subtle.ConstantTimeCompare(sum[:], p.body[:]) != 1 {
		return refusal("stranger", http.StatusUnauthorized, "%v: it shows the hash of another body", ErrStranger)
	}
	switch err := s.nonces.use(p, now); {
	case errors.Is(err, ErrAgain):
		return refusal("again", http.StatusUnauthorized, "%v", err)
	case errors.Is(err, ErrStale):
		return refusal("stale", http.StatusUnauthorized, "%v", err)
	case err != nil:
		return refusal("busy", http.StatusServiceUnavailable, "%v", err)
	}
	ctx, cancel := context.WithTimeout(r.Context, maxAnswering)
	defer cancel()
	answer, err = s.contained(ctx, do, p.from, body)
	if bad := (*Error)(nil); errors.As(err, &bad) && bad.Status < http.StatusInternalServerError {
		return nil, "bad", err
	} else if err != nil {
		return nil, "failed", err
	}
	return answer, "ok", nil
}

// contained calls a handler; a panic costs one call.
func (s *Server) contained(ctx context.Context, do handler, from string, body []byte) (answer []byte, err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			s.config.Log.Error("panic in a call of a PoP", "from", from, "panic", panicked, "stack", string(debug.Stack()))
			err = &Error{http.StatusInternalServerError, "a fault of the program"}
		}
	}()
	return do(ctx, from, body)
}
