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
		if a.Abort {
			panic(http.ErrAbortHandler)
		}
		header := w.Header()
		for _, f := range extra {
			header[http.CanonicalHeaderKey(f.Name)] = []string{f.Value}
		}
		for _, f := range a.Fields {
			header[http.CanonicalHeaderKey(f.Name)] = append(header[http.CanonicalHeaderKey(f.Name)], f.Value)
		}
		if r.Method != http.MethodHead {
			header["Content-Length"] = []string{strconv.Itoa(len(a.Body))}
		}
		w.WriteHeader(a.Status)
		if r.Method != http.MethodHead {
			_, _ = w.Write(a.Body) // an error means that the client has gone
		}
		answers.Put(a)
	})
}

func requestOf(w http.ResponseWriter, r *http.Request) *Request {
	remote, _ := netip.ParseAddrPort(r.RemoteAddr)
	request := &Request{
		Method: r.Method, Path: r.URL.EscapedPath(), Query: r.URL.RawQuery, Host: r.Host, Proto: "http/1.1", Header: r.Header,
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
