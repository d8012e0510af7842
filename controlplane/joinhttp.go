package controlplane

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"

	"golang.org/x/time/rate"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology/store"
)

// Limits of joining and renewing. An ordinary day has a handful; a fleet of hundreds that starts at once is let in within minutes.
const (
	joinsPerSecond = 5
	joinBurst      = 50
	maxJoinBody    = 16 << 10
)

// JoinHandler serves POST /v1/join, for nodes that have a token, and POST /v1/renew, for nodes that show their certificate in TLS:
// the server asks for one, without demanding it. Neither takes a bearer token. Errors are problem documents (RFC 9457).
func JoinHandler(r *Registrar, log *slog.Logger) http.Handler {
	limited := func(serve func(w http.ResponseWriter, request *http.Request) (*Joined, error)) http.HandlerFunc {
		limit := rate.NewLimiter(joinsPerSecond, joinBurst) // of each by itself: whoever knocks without a token keeps no node from renewing
		return func(w http.ResponseWriter, request *http.Request) {
			if !limit.Allow() {
				w.Header().Set("Retry-After", "5")
				problem.Write(w, http.StatusTooManyRequests, "too many nodes want to join: wait, and try again")
				return
			}
			joined, err := serve(w, request)
			if err != nil {
				refuseJoin(w, request, err, log)
				return
			}
			log.Info("a node has its certificate", "node", joined.Kind+":"+joined.Name, "by", request.URL.Path, "from", request.RemoteAddr)
			body, err := json.Marshal(joined)
			if err != nil {
				panic(err) // strings can be written
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(body) // an error means that the client has gone
		}
	}
	mux := http.NewServeMux()
	mux.Handle("POST /v1/join", limited(func(w http.ResponseWriter, request *http.Request) (*Joined, error) {
		var body JoinRequest
		if err := readJoin(w, request, &body); err != nil {
			return nil, err
		}
		return r.Join(request.Context(), body)
	}))
	renew := limited(func(w http.ResponseWriter, request *http.Request) (*Joined, error) {
		var body struct {
			Request string `json:"request"`
		}
		if err := readJoin(w, request, &body); err != nil {
			return nil, err
		}
		return r.Renew(request.Context(), shownBy(request), body.Request)
	})
	mux.HandleFunc("POST /v1/renew", func(w http.ResponseWriter, request *http.Request) {
		if _, err := userOf(r.CA, shownBy(request), r.Now()); err != nil { // which costs no turn, no look into etcd and no line of the log
			problem.Write(w, http.StatusForbidden, err.Error())
			return
		}
		renew(w, request)
	})
	return mux
}

// shownBy returns the certificate that a client has shown in TLS to be its own, or nil.
func shownBy(request *http.Request) *x509.Certificate {
	if request.TLS == nil || len(request.TLS.PeerCertificates) == 0 {
		return nil
	}
	return request.TLS.PeerCertificates[0]
}

func readJoin(w http.ResponseWriter, request *http.Request, body any) error {
	decoder := json.NewDecoder(http.MaxBytesReader(w, request.Body, maxJoinBody))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(body); err != nil { // which could show the secret
		return errors.Join(ErrInvalid, errors.New("the body is not as this needs it"))
	}
	return nil
}

// refuseJoin tells an error. What is not for clients is logged.
func refuseJoin(w http.ResponseWriter, request *http.Request, err error, log *slog.Logger) {
	status := http.StatusInternalServerError
	switch {
	case errors.Is(err, ErrInvalid):
		status = http.StatusBadRequest
	case errors.Is(err, ErrNotAdmitted):
		status = http.StatusForbidden
	case errors.Is(err, store.ErrConflict):
		status = http.StatusConflict
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusServiceUnavailable
	}
	log.Warn("a node is not let in", "by", request.URL.Path, "from", request.RemoteAddr, "error", err)
	if status >= http.StatusInternalServerError {
		problem.Write(w, status, "")
		return
	}
	problem.Write(w, status, err.Error())
}
