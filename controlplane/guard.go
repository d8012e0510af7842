package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/isochrone/isochrone/internal/problem"
)

// Failed attempts of one source address: so many at once, and one more in so many seconds.
const (
	failedAttempts     = 20
	failedPerSecond    = 0.5
	maxGuardedSources  = 10_000
	unauthorizedDetail = "this needs a token: Authorization: Bearer isot_…, as \"isochrone token create\" makes it"
)

// guard finds out who is asking, and slows down who guesses.
type guard struct {
	service *Service
	failed  *limiter[netip.Prefix]
}

func newGuard(s *Service) *guard {
	return &guard{service: s, failed: newLimiter[netip.Prefix](failedPerSecond, failedAttempts, maxGuardedSources)}
}

// identify returns who is asking. The errors are those of Tokens.Authenticate, and ErrLimited with how long to wait. A good token is
// taken from any address: others behind it may be guessing.
func (g *guard) identify(r *http.Request) (Identity, time.Duration, error) {
	source, now := sourceOf(r.RemoteAddr), g.service.Now()
	secret := bearer(r)
	if secret == "" {
		return Identity{}, 0, fmt.Errorf("%w: %s", ErrUnauthorized, unauthorizedDetail)
	}
	if g.service.Auth == nil {
		return Identity{}, 0, fmt.Errorf("%w: this control plane knows no tokens", ErrNotReady)
	}
	who, err := g.service.Auth.Authenticate(secret)
	if errors.Is(err, ErrUnauthorized) {
		if wait, ok := g.failed.take(source, now); !ok {
			return Identity{}, wait, fmt.Errorf("%w with wrong tokens from %v", ErrLimited, source)
		}
	}
	return who, 0, err
}

// bearer returns the token of a request, or nothing.
func bearer(r *http.Request) string {
	scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return ""
	}
	return strings.TrimSpace(secret)
}

// allowed serves a route to those who may use it.
func (h *handler) allowed(r *route, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		who, wait, err := h.guard.identify(request)
		switch {
		case errors.Is(err, ErrLimited):
			h.metrics.refused.WithLabelValues("guessing").Inc()
			tooMany(w, wait, err.Error())
			return
		case err != nil:
			h.metrics.refused.WithLabelValues("token").Inc()
			w.Header().Set("WWW-Authenticate", `Bearer realm="isochrone"`)
			code, _ := codeOf(err)
			problem.Write(w, code, err.Error())
			return
		case !who.Role.May(r.role):
			h.metrics.refused.WithLabelValues("role").Inc()
			problem.Write(w, http.StatusForbidden, fmt.Sprintf("%s is a %s: %s %s is for the role %s", who.Name, who.Role, r.method, r.path, r.role))
			return
		}
		if r.writes() {
			if wait, ok := h.writes.take(tokenID(bearer(request)), h.service.Now()); !ok {
				h.metrics.refused.WithLabelValues("writes").Inc()
				tooMany(w, wait, fmt.Sprintf("%s writes too often: want at most %g a second", who.Name, h.config.WritesPerSecond))
				return
			}
			request.Body = http.MaxBytesReader(w, request.Body, maxBodyBytes)
		} else {
			request = request.WithContext(context.WithValue(request.Context(), noneMatchKey{}, request.Header.Get("If-None-Match")))
		}
		next.ServeHTTP(w, request.WithContext(WithIdentity(request.Context(), who)))
	})
}
