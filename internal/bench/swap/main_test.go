package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
)

func TestEditsTakeTurns(t *testing.T) {
	var calls []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Key, Value []byte }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil || string(body.Key) != "/isochrone/overrides/swap-jnb" {
			t.Errorf("got the key %q, %v", body.Key, err)
		}
		if put := strings.HasSuffix(r.URL.Path, "put"); put != strings.Contains(string(body.Value), "\npop: jnb\n") {
			t.Errorf("%s has the value %q", r.URL.Path, body.Value)
		}
		if calls = append(calls, r.URL.Path); len(calls) == 4 {
			http.Error(w, "no space", http.StatusInsufficientStorage)
		}
	}))
	defer server.Close()
	e := &editor{etcd: server.URL, key: "/isochrone/overrides/swap-jnb", pop: "jnb"}
	for i := range 3 {
		if err := e.edit(); err != nil {
			t.Fatalf("edit %d: %v", i, err)
		}
	}
	if err := e.edit(); err == nil || !strings.Contains(err.Error(), "no space") || !e.drained {
		t.Errorf("a refused edit: got %v, drained %v", err, e.drained)
	}
	want := []string{"/v3/kv/put", "/v3/kv/deleterange", "/v3/kv/put", "/v3/kv/deleterange"}
	if !slices.Equal(calls, want) {
		t.Errorf("got %v, want %v", calls, want)
	}
}
