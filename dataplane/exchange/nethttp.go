package exchange

import (
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"
)

// Serve returns a handler for net/http. What a client of HTTP/1.1 or HTTP/2 is told beside the answer is also: every field of extra.
func Serve(h Handler, extra ...Field) http.Handler {
	answers := sync.Pool{New: func() any { return new(Answer) }}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a := answers.Get().(*Answer)
		a.Reset()
		h.Answer(requestOf(w, r), a)
		header := w.Header()
		values := make([]string, 0, len(extra)+len(a.Fields)+1) // one piece of memory for all
		add := func(name, value string) {
			if earlier := header[name]; earlier != nil {
				header[name] = append(earlier, value)
				return
			}
			values = append(values, value)
			header[name] = values[len(values)-1 : len(values) : len(values)]
		}
		for _, f := range extra {
			add(canonical(f.Name), f.Value)
		}
		for _, f := range a.Fields {
			add(canonical(f.Name), f.Value)
		}
		if r.Method != http.MethodHead {
			add("Content-Length", strconv.Itoa(len(a.Body)))
		}
		w.WriteHeader(a.Status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(a.Body) // an error means that the client has gone
		}
		answers.Put(a)
	})
}

// names are the canonical forms of what the intake answers with, which net/http would make anew each time.
var names = func() map[string]string {
	known := map[string]string{}
	for _, name := range []string{
		"allow", "alt-svc", "cache-control", "content-type", "location", "ratelimit", "ratelimit-policy", "retry-after", "www-authenticate",
		"x-isochrone-cluster", "x-isochrone-pop", "x-isochrone-window", "x-request-hash",
	} {
		known[name] = http.CanonicalHeaderKey(name)
	}
	return known
}()

func canonical(name string) string {
	if known, ok := names[name]; ok {
		return known
	}
	return http.CanonicalHeaderKey(name)
}

// netHeader is a header of net/http.
type netHeader http.Header

// Get implements Header.
func (h netHeader) Get(name string) string { return http.Header(h).Get(name) }

// Repeated implements Header.
func (h netHeader) Repeated(name string) bool { return len(h[name]) > 1 }

func requestOf(w http.ResponseWriter, r *http.Request) *Request {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	request := &Request{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Host: r.Host, Proto: "http/1.1", Header: netHeader(r.Header),
		ContentLength: r.ContentLength, Remote: remote, Body: netBody{r, http.NewResponseController(w)}, Context: r.Context(),
		Early: r.Header.Get("Early-Data") == "1",
	}
	if r.ProtoMajor > 1 {
		request.Proto = "h" + strconv.Itoa(r.ProtoMajor)
	}
	return request
}

type netBody struct {
	request *http.Request
	control *http.ResponseController
}

func (b netBody) Read(p []byte) (int, error) { return b.request.Body.Read(p) }

func (b netBody) SetReadDeadline(t time.Time) error { return b.control.SetReadDeadline(t) }
