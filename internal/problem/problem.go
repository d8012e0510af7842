// Package problem tells errors over HTTP as problem documents (RFC 9457).
package problem

import (
	"encoding/json"
	"net/http"
)

// ContentType is that of a problem document.
const ContentType = "application/problem+json"

// Document is a problem document. Its type is always about:blank, so that the title is that of the status.
type Document struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Append appends a problem document to buf.
func Append(buf []byte, status int, detail string) []byte {
	body, err := json.Marshal(Document{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail})
	if err != nil {
		panic(err) // strings and numbers can be written
	}
	return append(append(buf, body...), '\n')
}

// Write answers a request with a problem document. Headers that the caller has set are kept.
func Write(w http.ResponseWriter, status int, detail string) { WriteWith(w, status, detail, nil) }

// WriteWith is Write with extension members (RFC 9457 section 3.2), which have other names than the standard ones.
func WriteWith(w http.ResponseWriter, status int, detail string, members map[string]any) {
	var document any = Document{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
	if len(members) > 0 {
		all := map[string]any{"type": "about:blank", "title": http.StatusText(status), "status": status, "detail": detail}
		for name, value := range members {
			all[name] = value
		}
		document = all
	}
	body, err := json.Marshal(document)
	if err != nil {
		panic(err) // callers have values that can be written
	}
	w.Header().Set("Content-Type", ContentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // an error means that the client has gone
}
