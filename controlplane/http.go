package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	kithttp "github.com/go-kit/kit/transport/http"
)

// NewHandler serves the endpoints over HTTP: GET /v1/status, /v1/explain?service=…&client=…&family=… and /v1/topology.
// Errors are problem documents (RFC 9457).
func NewHandler(e Endpoints) http.Handler {
	options := []kithttp.ServerOption{kithttp.ServerErrorEncoder(encodeError)}
	nothing := func(context.Context, *http.Request) (any, error) { return none{}, nil }
	mux := http.NewServeMux()
	mux.Handle("GET /v1/status", kithttp.NewServer(e.Status, nothing, encodeJSON, options...))
	mux.Handle("GET /v1/explain", kithttp.NewServer(e.Explain, decodeExplain, encodeJSON, options...))
	mux.Handle("GET /v1/topology", kithttp.NewServer(e.Topology, nothing, encodeJSON, options...))
	return mux
}

func decodeExplain(_ context.Context, r *http.Request) (any, error) {
	query := r.URL.Query()
	return ExplainRequest{query.Get("service"), query.Get("client"), query.Get("family")}, nil
}

// encodeJSON writes a response; it is encoded before the status line is sent, so that a failure can still be told.
func encodeJSON(_ context.Context, w http.ResponseWriter, response any) error {
	return writeJSON(w, "application/json", http.StatusOK, response)
}

func writeJSON(w http.ResponseWriter, contentType string, code int, value any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return err
	}
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, err := w.Write(body.Bytes())
	return err
}

// Problem is an error as it is told over HTTP (RFC 9457).
type Problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// encodeError tells an error. What is not one of the service's own errors is not shown to clients.
func encodeError(_ context.Context, err error, w http.ResponseWriter) {
	problem := Problem{Type: "about:blank", Status: http.StatusInternalServerError}
	for sentinel, code := range map[error]int{
		ErrInvalid: http.StatusBadRequest, ErrNotFound: http.StatusNotFound, ErrNotReady: http.StatusServiceUnavailable,
	} {
		if errors.Is(err, sentinel) {
			problem.Status, problem.Detail = code, err.Error()
		}
	}
	problem.Title = http.StatusText(problem.Status)
	_ = writeJSON(w, "application/problem+json", problem.Status, problem) // an error means that the client has gone
}
