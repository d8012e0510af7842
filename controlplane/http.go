package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	kithttp "github.com/go-kit/kit/transport/http"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
)

// HandlerConfig is what a handler needs besides the service. Zero values stand for what is told.
type HandlerConfig struct {
	Log      *slog.Logger            // of errors that clients are not shown
	Registry *prometheus.Registry    // that /metrics shows, with the handler's own; nil: one with only those
	Page     http.Handler            // of all paths that are nobody else's, without a token; nil: there is none
	Mounts   map[string]http.Handler // others' handlers by pattern, such as "POST /v1/join"; they find out themselves who is asking
	Closing  <-chan struct{}         // closed when streams of events are to end; nil: when their clients go
	Ready    func() error            // why requests should go elsewhere, for /readyz; nil: when there is a view

	WritesPerSecond float64 // of one token, in the long run; 0 stands for 20
	WriteBurst      int     // of one token, at once; 0 stands for 100
	Streams         int     // of events at a time; 0 stands for 200

	BodyPatience time.Duration // for a request's body to come; 0 stands for 30 seconds
}

// handler serves the API.
type handler struct {
	service *Service
	config  HandlerConfig
	metrics *metrics
	writes  *limiter[string]
	guard   *guard
	streams chan struct{} // holds as many as there are
}

// NewHandler serves a service over HTTP below /v1/, with /healthz, /readyz and /metrics. Errors are problem documents (RFC 9457).
// Who asks needs a bearer token (RFC 6750) that Service.Auth knows, but for health, the OpenAPI document, the schema and the page.
func NewHandler(s *Service, c HandlerConfig) http.Handler {
	if c.Registry == nil {
		c.Registry = prometheus.NewRegistry()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.WritesPerSecond == 0 {
		c.WritesPerSecond = 20
	}
	if c.WriteBurst == 0 {
		c.WriteBurst = 100
	}
	if c.Streams == 0 {
		c.Streams = 200
	}
	if c.BodyPatience == 0 {
		c.BodyPatience = 30 * time.Second
	}
	if c.Ready == nil {
		c.Ready = func() error {
			if s.View() == nil {
				return errNoView
			}
			if s.Auth == nil || s.Auth.known.Load() == nil {
				return errNoTokens
			}
			return nil
		}
	}
	h := &handler{
		service: s, config: c, metrics: newMetrics(c.Registry, s), writes: newLimiter[string](c.WritesPerSecond, c.WriteBurst, maxTokens),
		guard: newGuard(s), streams: make(chan struct{}, c.Streams),
	}
	return h.mux()
}

// mux routes all requests.
func (h *handler) mux() http.Handler {
	mux, table := http.NewServeMux(), routes(h.service)
	allowed := map[string][]string{}
	handle := func(method, path string, next http.Handler) {
		mux.Handle(method+" "+path, h.metrics.counted(path, h.contained(next)))
		allowed[path] = append(allowed[path], method)
	}
	for _, r := range table {
		handle(r.method, r.path, h.allowed(&r, kithttp.NewServer(r.endpoint, decoderOf(&r), encodeResponse,
			kithttp.ServerErrorEncoder(h.encodeError))))
	}
	events := eventsRoute()
	handle(events.method, events.path, h.allowed(&events, http.HandlerFunc(h.events)))
	handle("GET", openAPIPath, fixed("application/json", openAPI(append(table, events))))
	handle("GET", "/v1/schema.json", fixed("application/schema+json", topology.JSONSchema()))
	handle("GET", "/healthz", fixed("text/plain; charset=utf-8", []byte("ok\n")))
	handle("GET", "/readyz", http.HandlerFunc(h.ready))
	handle("GET", "/metrics", h.allowed(&route{method: "GET", role: Viewer}, promhttp.HandlerFor(h.config.Registry, promhttp.HandlerOpts{})))
	for pattern, mounted := range h.config.Mounts {
		if method, path, ok := strings.Cut(pattern, " "); ok {
			handle(method, path, mounted)
			continue
		}
		mux.Handle(pattern, h.metrics.counted(pattern, h.contained(mounted)))
	}
	for path, methods := range allowed {
		mux.Handle(path, h.metrics.counted(path, notAllowed(methods)))
	}
	mux.Handle("/v1/", h.metrics.counted("/v1/", http.HandlerFunc(notFound)))
	if h.config.Page != nil {
		mux.Handle("/", h.metrics.counted("/", h.contained(h.config.Page)))
	} else {
		mux.Handle("/", h.metrics.counted("/", http.HandlerFunc(notFound)))
	}
	return secured(impatient(h.config.BodyPatience, mux))
}

// impatient ends the wait for a body that does not come: net/http would wait for it even after the answer, without an end.
func impatient(patience time.Duration, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(patience)) // a connection that has none has no wait either
		}
		next.ServeHTTP(w, r)
	})
}

// secured sets what browsers are to know of every answer. The page has its own policy.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		header := w.Header()
		header.Set("X-Content-Type-Options", "nosniff")
		header.Set("Referrer-Policy", "no-referrer")
		header.Set("X-Frame-Options", "DENY")
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if r.TLS != nil {
			header.Set("Strict-Transport-Security", "max-age=31536000")
		}
		next.ServeHTTP(w, r)
	})
}

// contained makes a panic cost one request.
func (h *handler) contained(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			if failure := recover(); failure != nil && failure != http.ErrAbortHandler {
				h.metrics.panics.Inc()
				h.config.Log.Error("a request failed", "path", r.URL.Path, "panic", fmt.Sprint(failure))
				problem.Write(w, http.StatusInternalServerError, "")
			} else if failure != nil {
				panic(failure)
			}
		}()
		next.ServeHTTP(w, r)
	})
}

func fixed(contentType string, body []byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(body) == 0 {
			notFound(w, r)
			return
		}
		w.Header().Set("Content-Type", contentType)
		_, _ = w.Write(body) // an error means that the client has gone
	})
}

func (h *handler) ready(w http.ResponseWriter, _ *http.Request) {
	if err := h.config.Ready(); err != nil {
		problem.Write(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte("ready\n"))
}

func notFound(w http.ResponseWriter, r *http.Request) {
	problem.Write(w, http.StatusNotFound, fmt.Sprintf("there is no %s; %s tells what there is", r.URL.Path, openAPIPath))
}

func notAllowed(methods []string) http.Handler {
	slices.Sort(methods)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", strings.Join(methods, ", "))
		problem.Write(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s has %s", r.URL.Path, strings.Join(methods, ", ")))
	})
}

func decoderOf(r *route) kithttp.DecodeRequestFunc {
	return func(_ context.Context, request *http.Request) (any, error) { return decodeRequest(request, r.request) }
}

// encodeResponse writes a response; it is encoded before the status line is sent, so that a failure can still be told.
func encodeResponse(ctx context.Context, w http.ResponseWriter, response any) error {
	w.Header().Set("Cache-Control", "no-store")
	if _, nothing := response.(none); nothing {
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(response); err != nil {
		return err
	}
	if tag := entityTag(response); tag != "" {
		w.Header().Set("ETag", tag)
		w.Header().Set("Cache-Control", "no-cache")
		if match, _ := ctx.Value(noneMatchKey{}).(string); slices.Contains(tagsOf(match), tag) {
			w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_, err := w.Write(body.Bytes())
	return err
}

// noneMatchKey is where the context of a GET has its If-None-Match.
type noneMatchKey struct{}

// entityTag returns that of a response, or nothing when it has none.
func entityTag(response any) string {
	switch stored := response.(type) {
	case *StoredObject:
		return fmt.Sprintf(`"%d"`, stored.Revision)
	case *Stored:
		return stored.tag()
	}
	return ""
}

// tagsOf returns the entity tags of a header field (RFC 9110 section 13.1), weak ones without their mark.
func tagsOf(field string) []string {
	var tags []string
	for tag := range strings.SplitSeq(field, ",") {
		tags = append(tags, strings.TrimPrefix(strings.TrimSpace(tag), "W/"))
	}
	return tags
}

// encodeError tells an error. What is not one of the service's own errors is logged, and not shown to clients.
func (h *handler) encodeError(ctx context.Context, err error, w http.ResponseWriter) {
	code, known := codeOf(err)
	if !known {
		if ctx.Err() == nil { // a client that has gone is no failure
			h.config.Log.Error("a request failed", "error", err)
		}
		problem.Write(w, code, "")
		return
	}
	if code == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	problem.WriteWith(w, code, err.Error(), extensions(err))
}

// tooMany answers a request that comes too soon.
func tooMany(w http.ResponseWriter, wait time.Duration, what string) {
	w.Header().Set("Retry-After", fmt.Sprint(int(wait/time.Second)+1))
	problem.Write(w, http.StatusTooManyRequests, what)
}
