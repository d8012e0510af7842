package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"

	kithttp "github.com/go-kit/kit/transport/http"

	"github.com/isochrone/isochrone/internal/problem"
)

// NewHandler serves the endpoints over HTTP: GET /v1/status, /v1/explain?service=…&client=…&family=…&if=… and /v1/topology.
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
	return ExplainRequest{query.Get("service"), query.Get("client"), query.Get("family"), query["if"]}, nil
}

// encodeJSON writes a response; it is encoded before the status line is sent, so that a failure can still be told.
func encodeJSON(_ context.Context, w http.ResponseWriter, response any) error {
	var body bytes.Buffer
	encoder := json.NewEncoder(&body)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(response); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, err := w.Write(body.Bytes())
	return err
}

// encodeError tells an error. What is not one of the service's own errors is not shown to clients.
func encodeError(_ context.Context, err error, w http.ResponseWriter) {
	status, detail := http.StatusInternalServerError, ""
	for sentinel, code := range map[error]int{
		ErrInvalid: http.StatusBadRequest, ErrNotFound: http.StatusNotFound, ErrNotReady: http.StatusServiceUnavailable,
	} {
		if errors.Is(err, sentinel) {
			status, detail = code, err.Error()
		}
	}
	problem.Write(w, status, detail)
}
