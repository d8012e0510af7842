package controlplane

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// The errors by which a caller decides; each is wrapped with what was asked for. Those of the store are the store's own.
var (
	ErrNotFound     = store.ErrNotFound
	ErrConflict     = store.ErrConflict
	ErrTooLarge     = store.ErrTooLarge
	ErrInvalid      = errors.New("invalid request")
	ErrNotReady     = errors.New("not ready")
	ErrUnauthorized = errors.New("not authenticated")
	ErrForbidden    = errors.New("not allowed")
	ErrLimited      = errors.New("too many requests")
	ErrPrecondition = errors.New("is not what If-Match or If-None-Match says") // of the HTTP API; it is an ErrConflict too
)

// errNoView is told before there is anything to answer from.
var errNoView = fmt.Errorf("%w: no valid topology has been read yet", ErrNotReady)

// errNoTokens is told before it is known who may ask.
var errNoTokens = fmt.Errorf("%w: tokens have not been read from etcd yet", ErrNotReady)

// invalid is an error about a topology, an override or a key that is not valid, which is an ErrInvalid as well.
type invalid struct{ error }

// Unwrap makes it both.
func (e invalid) Unwrap() []error { return []error{ErrInvalid, e.error} }

// refused makes an error of the layers below one of this package's.
func refused(err error) error {
	if errors.Is(err, topology.ErrInvalid) {
		return invalid{err}
	}
	return err
}

// codes are what errors are over HTTP. The first one that fits counts.
var codes = []struct {
	err  error
	code int
}{
	{ErrPrecondition, http.StatusPreconditionFailed},
	{ErrInvalid, http.StatusBadRequest},
	{topology.ErrInvalid, http.StatusBadRequest},
	{ErrNotFound, http.StatusNotFound},
	{store.ErrTrimmed, http.StatusNotFound},
	{store.ErrUncertain, http.StatusConflict},
	{store.ErrRestoring, http.StatusConflict},
	{store.ErrNoneGood, http.StatusConflict},
	{ErrConflict, http.StatusConflict},
	{ErrTooLarge, http.StatusRequestEntityTooLarge},
	{ErrNotReady, http.StatusServiceUnavailable},
	{ErrUnauthorized, http.StatusUnauthorized},
	{ErrForbidden, http.StatusForbidden},
	{ErrLimited, http.StatusTooManyRequests},
	{etcdclient.ErrFull, http.StatusInsufficientStorage},
	{etcdclient.ErrUnknownOutcome, http.StatusGatewayTimeout},
	{etcdclient.ErrAway, http.StatusGatewayTimeout},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
}

// codeOf returns the status of an error, and false for one that clients are not to see.
func codeOf(err error) (code int, known bool) {
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.code, true
		}
	}
	return http.StatusInternalServerError, false
}

// sentinels are what clients make of a status again.
var sentinels = map[int]error{
	http.StatusBadRequest: ErrInvalid, http.StatusUnauthorized: ErrUnauthorized, http.StatusForbidden: ErrForbidden, http.StatusNotFound: ErrNotFound,
	http.StatusConflict: ErrConflict, http.StatusPreconditionFailed: ErrPrecondition, http.StatusRequestEntityTooLarge: ErrTooLarge,
	http.StatusTooManyRequests: ErrLimited, http.StatusServiceUnavailable: ErrNotReady,
}
