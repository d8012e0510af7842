package dataplane

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/internal/intakeclient"
)

// TestAmbiguousFields has fields come twice, over all versions of HTTP: nobody in between may read another key than the PoP.
func TestAmbiguousFields(t *testing.T) {
	w := newWorld(t, nil)
	endpoint, config := w.run(t)
	h3 := intakeclient.New(config)
	defer h3.Close()
	config.TCP = true
	h2 := intakeclient.New(config)
	defer h2.Close()
	h1 := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: config.Roots, ServerName: host, NextProtos: []string{"http/1.1"}},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, endpoint.Addr.String())
		},
	}
	defer h1.CloseIdleConnections()
	by := func(c *intakeclient.Client) func(http.Header) (int, string) {
		return func(header http.Header) (int, string) {
			answer, err := c.Post(t.Context(), []intakeclient.Endpoint{endpoint}, &intakeclient.Request{Service: host, Path: Path, Body: []byte(aPayload), Header: header})
			if err != nil {
				t.Fatal(err)
			}
			return answer.Status, string(answer.Body)
		}
	}
	over := map[string]func(http.Header) (int, string){"h3": by(h3), "h2": by(h2), "http/1.1": func(header http.Header) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+host+Path, bytes.NewReader([]byte(aPayload)))
		if err != nil {
			t.Fatal(err)
		}
		r.Header = header
		response, err := h1.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		if err != nil || response.ProtoMajor != 1 {
			t.Errorf("got %s, %v", response.Proto, err)
		}
		return response.StatusCode, string(text)
	}}
	json, other := "application/json", "iso_bbbbbbbb_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	for _, test := range []struct {
		name   string
		header http.Header
		want   int
		detail string
	}{
		{"one key", http.Header{"X-Api-Key": {w.key}}, 202, ""},
		{"the same key in both", http.Header{"X-Api-Key": {w.key}, "Authorization": {"Bearer " + w.key}}, 202, ""},
		{"another scheme beside", http.Header{"X-Api-Key": {w.key}, "Authorization": {"Basic YTpi"}}, 202, ""},
		{"no token beside", http.Header{"X-Api-Key": {w.key}, "Authorization": {"Bearer"}}, 202, ""},
		{"two keys", http.Header{"X-Api-Key": {w.key, other}}, 400, "X-Api-Key more than once"},
		{"the other first", http.Header{"X-Api-Key": {other, w.key}}, 400, "X-Api-Key more than once"},
		{"the same twice", http.Header{"X-Api-Key": {w.key, w.key}}, 400, "X-Api-Key more than once"},
		{"an empty one beside", http.Header{"X-Api-Key": {"", w.key}}, 400, "X-Api-Key more than once"},
		{"two tokens", http.Header{"Authorization": {"Bearer " + w.key, "Bearer " + other}}, 400, "Authorization more than once"},
		{"keys that differ", http.Header{"X-Api-Key": {w.key}, "Authorization": {"Bearer " + other}}, 400, "differ"},
		{"two idempotency keys", http.Header{"X-Api-Key": {w.key}, "Idempotency-Key": {"a", "b"}}, 400, "Idempotency-Key more than once"},
		{"two types", http.Header{"X-Api-Key": {w.key}, "Content-Type": {json, "text/plain"}}, 400, "Content-Type more than once"},
	} {
		if test.header["Content-Type"] == nil {
			test.header["Content-Type"] = []string{json}
		}
		for version, send := range over {
			status, text := send(test.header.Clone())
			if status != test.want || !strings.Contains(text, test.detail) {
				t.Errorf("%s, %s: got %d, want %d: %s", test.name, version, status, test.want, text)
			}
			if strings.Contains(text, w.key) || strings.Contains(text, other) {
				t.Errorf("%s, %s: the answer repeats a key", test.name, version)
			}
		}
	}
}
