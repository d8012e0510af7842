package dataplane

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/topology"
)

// documented are the statuses that docs/intake.md tells of.
var documented = map[int]bool{
	200: true, 202: true, 307: true, 400: true, 401: true, 403: true, 404: true, 405: true, 413: true, 415: true, 421: true, 422: true, 425: true, 429: true, 503: true,
}

// FuzzIntake sends requests of any form: none is answered by a panic or by a status that is not documented, a refusal is a problem document,
// and a 202 has the hash of the very body, which is UTF-8 and a JSON value.
func FuzzIntake(f *testing.F) {
	w := newWorld(f, nil)
	f.Cleanup(func() { w.config.Spool.Close() })
	id, key, record, err := topology.NewKey(bytes.NewReader(bytes.Repeat([]byte{77}, 25)), time.Now())
	if err != nil {
		f.Fatal(err)
	}
	record.QuotaPerMinute = 1 << 40
	w.newer.Store(&topology.Snapshot{Topology: w.snap.Topology, Keys: topology.NewKeySet(map[string]*topology.Key{id: record})})

	f.Add("POST", Path, host, "X-API-Key: KEY\nContent-Type: application/json", []byte(aPayload), int64(len(aPayload)))
	f.Add("POST", Path, host+":443", "Authorization: Bearer KEY\nContent-Type: application/json;charset=utf-8\nIdempotency-Key: k", []byte(aPayload+"\r\n"), int64(-1))
	f.Add("POST", Path, "sin1."+host, "X-API-Key: KEY\nContent-Type: application/json\nTraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		[]byte(`{"hash":"a","hash":"b","sender":1,"amount":1}`), int64(45))
	f.Add("GET", "/api/v1/receipts/sin1.aaaaaaaaaaaaaaaaaaaaaaaaaa", host, "X-API-Key: KEY", []byte{}, int64(0))
	f.Add("OPTIONS", "*", "", "X-API-Key: KEY\nX-API-Key: other\nX-Isochrone-Probe: 1\nContent-Encoding: gzip\nEarly-Data: 1", []byte("\xff"), int64(100))
	f.Add("post", Path+"/../ingest", "[::1]:1", "X-Signature: sha256=00\nX-Timestamp: 9999999999999999999", []byte(strings.Repeat("[", 100)), int64(1<<40))
	f.Fuzz(func(t *testing.T, method, path, authority, header string, body []byte, length int64) {
		r := &http.Request{
			Method: method, URL: &url.URL{Path: path}, Host: authority, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: "192.0.2.1:1",
			Header: http.Header{}, Body: http.NoBody, ContentLength: max(length, -1),
		}
		if r.ContentLength > 0 { // as a server has it: never more than is announced
			body = body[:min(int64(len(body)), r.ContentLength)]
		} else if r.ContentLength == 0 {
			body = nil
		}
		r.Body = http.MaxBytesReader(nil, readCloser{bytes.NewReader(body)}, 1<<30)
		for line := range strings.SplitSeq(header, "\n") {
			if name, value, ok := strings.Cut(line, ":"); ok && name != "" {
				r.Header.Add(name, strings.ReplaceAll(strings.TrimSpace(value), "KEY", key))
			}
		}
		recorder := httptest.NewRecorder()
		panics := w.counts.panics.Load()
		exchange.Serve(w.PoP).ServeHTTP(recorder, r.WithContext(t.Context()))
		if !documented[recorder.Code] || w.counts.panics.Load() != panics {
			t.Fatalf("got %d: %s", recorder.Code, recorder.Body)
		}
		if strings.Contains(recorder.Body.String(), key) {
			t.Errorf("the answer shows the key: %s", recorder.Body)
		}
		var told struct {
			Status json.RawMessage
			SHA256 string
		}
		if method != http.MethodHead || recorder.Body.Len() > 0 {
			if err := json.Unmarshal(recorder.Body.Bytes(), &told); err != nil {
				t.Fatalf("got %d: %q: %v", recorder.Code, recorder.Body, err)
			}
		}
		if recorder.Code == http.StatusAccepted {
			sum := sha256.Sum256(body)
			if told.SHA256 != hex.EncodeToString(sum[:]) || !utf8.Valid(body) || !json.Valid(body) || r.Method != http.MethodPost || r.URL.Path != Path {
				t.Errorf("got %s of %q", recorder.Body, body)
			}
		}
	})
}

// readCloser is a body that can be closed.
type readCloser struct{ *bytes.Reader }

// Close implements io.Closer.
func (readCloser) Close() error { return nil }
