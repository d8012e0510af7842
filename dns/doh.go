package dns

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// DNS over HTTPS (RFC 8484): one question and one answer for each request.

const (
	dohPath     = "/dns-query"
	messageType = "application/dns-message"
	headerLen   = 12 // of a message (RFC 1035 section 4.1.1)
	methods     = "GET, HEAD, POST"
)

// dohError is a refusal of a request, with what would be right.
type dohError struct {
	status int
	text   string
}

func (e *dohError) Error() string { return e.text }

func refuse(status int, text string) error { return &dohError{status, text} }

// errSecondMessage ends a zone transfer: the media type is one message (RFC 8484 section 6), and the first of many, given as
// the whole, would be a zone with a part missing.
var errSecondMessage = refuse(http.StatusNotImplemented, "an answer of several messages: ask for a zone transfer over TCP or TLS")

// dohHandler answers questions that come over HTTP.
type dohHandler struct{ streams }

func (h dohHandler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if c, known := r.Context().Value(connectionKey{}).(*connection); known {
		c.begin()
		defer c.end()
	}
	answer, err := h.respond(w, r)
	if err != nil {
		status, text := http.StatusBadRequest, err.Error()
		if refused := (*dohError)(nil); errors.As(err, &refused) {
			status = refused.status
		}
		if status == http.StatusMethodNotAllowed {
			w.Header().Set("Allow", methods)
		}
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, text, status)
		return
	}
	header := w.Header()
	header.Set("Content-Type", messageType)
	header.Set("Content-Length", fmt.Sprint(len(answer)))
	if ttl, ok := freshness(answer); ok {
		header.Set("Cache-Control", fmt.Sprintf("max-age=%d", ttl))
	} else {
		header.Set("Cache-Control", "no-store")
	}
	_, _ = w.Write(answer) // an error is that the client has gone; nothing is to be done
}

// respond returns the message that answers a request.
func (h dohHandler) respond(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.URL.Path != dohPath {
		return nil, refuse(http.StatusNotFound, "questions are answered at "+dohPath)
	}
	packet, err := readQuestion(w, r)
	if err != nil {
		return nil, err
	}
	if len(packet) < headerLen {
		return nil, refuse(http.StatusBadRequest, fmt.Sprintf("a DNS message has %d octets at least, not %d", headerLen, len(packet)))
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	var answer []byte
	err = h.exchange(packet, from, HTTPS, func(message []byte) error {
		if answer != nil {
			return errSecondMessage
		}
		answer = append([]byte{}, message...)
		return nil
	})
	if err != nil {
		if errors.Is(err, errSecondMessage) {
			return nil, errSecondMessage
		}
		return nil, refuse(http.StatusInternalServerError, "the question could not be answered")
	}
	if answer == nil {
		return nil, refuse(http.StatusBadRequest, "the message is no question")
	}
	return answer, nil
}

// readQuestion returns the message of a request. The header Accept is not looked at: there is one representation, and a
// server may disregard the header (RFC 9110 section 12.4.1) rather than answer 406 to a client that may take it after all.
func readQuestion(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		return questionOf(r.URL.RawQuery)
	case http.MethodPost:
	default:
		return nil, refuse(http.StatusMethodNotAllowed, "questions come by "+methods)
	}
	if given := r.Header.Get("Content-Type"); given != messageType {
		if kind, _, err := mime.ParseMediaType(given); err != nil || kind != messageType {
			return nil, refuse(http.StatusUnsupportedMediaType, "the content type of a question is "+messageType)
		}
	}
	// HTTP/3 has no such limit of its own; for the others it is what their server sets.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(messageTimeout))
	packet, err := io.ReadAll(http.MaxBytesReader(w, r.Body, math.MaxUint16))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		return nil, refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("a DNS message has %d octets at most", math.MaxUint16))
	}
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the question was not received whole")
	}
	return packet, nil
}

// questionOf decodes the message in a query: the parameter dns, in base64url without padding (RFC 8484 section 4.1.1). Other
// parameters are left alone.
func questionOf(query string) ([]byte, error) {
	const most = (longestQuestion*8 + 5) / 6
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, refuse(http.StatusBadRequest, "the query of the URL is malformed")
	}
	given := values["dns"]
	if len(given) != 1 || given[0] == "" {
		return nil, refuse(http.StatusBadRequest, "the query of the URL needs the parameter dns once: a message in base64url")
	}
	if len(given[0]) > most {
		return nil, refuse(http.StatusRequestURITooLong, fmt.Sprintf("the parameter dns has %d characters at most; use POST", most))
	}
	packet, err := base64.RawURLEncoding.Strict().DecodeString(given[0])
	if err != nil || strings.ContainsAny(given[0], "\r\n") { // which the decoder passes over
		return nil, refuse(http.StatusBadRequest, "the parameter dns is not base64url without padding (RFC 4648 section 5)")
	}
	return packet, nil
}

// freshness returns for how many seconds an answer may be kept (RFC 8484 section 5.1): the smallest TTL of the answer's records,
// and of its SOA, for which RFC 2308 section 5 has the negative answer's TTL too. False stands for an answer with neither, such as
// an error.
func freshness(message []byte) (seconds uint32, ok bool) {
	if len(message) < headerLen {
		return 0, false
	}
	questions, answers := binary.BigEndian.Uint16(message[4:]), binary.BigEndian.Uint16(message[6:])
	authority := binary.BigEndian.Uint16(message[8:])
	seconds = math.MaxUint32
	at := headerLen
	for range questions {
		if at = afterName(message, at) + 4; at > len(message) {
			return 0, false
		}
	}
	for i := range int(answers) + int(authority) {
		at = afterName(message, at)
		if at+10 > len(message) {
			return 0, false
		}
		kind, ttl := binary.BigEndian.Uint16(message[at:]), binary.BigEndian.Uint32(message[at+4:])
		end := at + 10 + int(binary.BigEndian.Uint16(message[at+8:]))
		if end > len(message) {
			return 0, false
		}
		negative := i >= int(answers) && kind == dns.TypeSOA
		if negative && end-at >= 10+22 { // two names and five numbers, of which the last is the MINIMUM
			ttl = min(ttl, binary.BigEndian.Uint32(message[end-4:]))
		}
		if i < int(answers) || negative {
			if ttl > math.MaxInt32 {
				ttl = 0 // RFC 2181 section 8
			}
			seconds, ok = min(seconds, ttl), true
		}
		at = end
	}
	return seconds, ok
}

// afterName returns where the name that begins at an offset ends; beyond the message if it does not.
func afterName(message []byte, at int) int {
	for at < len(message) {
		switch n := int(message[at]); {
		case n == 0:
			return at + 1
		case n >= 0xC0: // the rest is elsewhere (RFC 1035 section 4.1.4)
			return at + 2
		default:
			at += 1 + n
		}
	}
	return len(message) + 1
}

// connectionKey finds the connection of a request in its context.
type connectionKey struct{}

func withConnection(ctx context.Context, c *connection) context.Context {
	return context.WithValue(ctx, connectionKey{}, c)
}
