package dataplane

import "net/http"

// Early reports whether somebody may have recorded a request and sent it again: it came before its handshake was complete (0-RTT,
// RFC 8446 section 8), or a proxy says that of it (RFC 8470 section 5.1). Unless the request has an Idempotency-Key, and its
// service requires one, the answer is 425.
func Early(r *http.Request) bool {
	return r.TLS != nil && !r.TLS.HandshakeComplete || r.Header.Get("Early-Data") == "1"
}
