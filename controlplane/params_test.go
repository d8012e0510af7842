package controlplane

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
)

func TestBodyIsOneValue(t *testing.T) {
	for body, good := range map[string]bool{
		`{"revision":2}`: true, ` {} `: true, "": true, `{}}`: false, `{}]`: false, `{} {}`: false, `{}x`: false, `[]`: false, `{"x":1}`: false,
	} {
		_, err := decodeRequest(httptest.NewRequest("POST", "/", strings.NewReader(body)), reflect.TypeFor[bodyOf[RollbackRequest]]())
		if (err == nil) != good {
			t.Errorf("%s: got %v", body, err)
		}
	}
}

// FuzzRequests gives every route's decoder what may come: it takes it, or says what is wrong, and never panics.
func FuzzRequests(f *testing.F) {
	f.Add("service=x&client=192.0.2.1&if=a&if=b", "pops", "sin1", "*", `{"document":"schema: 1","base":1}`)
	f.Add("limit=10&after=x", "", "", `"1", W/"2"`, `{"overlap":"24h"}`)
	f.Add("from=1&to=2&effect=1", "zones", "example.net", "", `{"kind":"drain","pop":"sin1","expires":"2030-01-01T00:00:00Z"}`)
	f.Add("limit=99999999999999999999&limit=2", "x", "%2f", "\x00", `[[[[`)
	table := routes(&Service{})
	f.Fuzz(func(t *testing.T, query, kind, name, match, body string) {
		for i := range table {
			r := httptest.NewRequest("POST", "/", strings.NewReader(body))
			r.URL = &url.URL{Path: "/", RawQuery: query}
			r.Body = http.MaxBytesReader(httptest.NewRecorder(), r.Body, maxBodyBytes)
			r.SetPathValue("kind", kind)
			r.SetPathValue("name", name)
			r.SetPathValue("id", name)
			r.SetPathValue("revision", name)
			r.Header["If-Match"] = []string{match}
			request, err := decodeRequest(r, table[i].request)
			if err == nil && request == nil || err != nil && !errors.Is(err, ErrInvalid) && !errors.Is(err, ErrTooLarge) {
				t.Errorf("%s: got %v, %v", table[i].path, request, err)
			}
			tagsOf(match)
		}
	})
}
