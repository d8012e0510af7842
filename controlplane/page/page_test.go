package page

import (
	"compress/gzip"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func ask(method, path string, headers ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func TestHandler(t *testing.T) {
	for _, test := range []struct {
		method, path, contentType string
		status                    int
	}{
		{"GET", "/", "text/html; charset=utf-8", 200},
		{"HEAD", "/", "text/html; charset=utf-8", 200},
		{"GET", "/page/app.js", "text/javascript; charset=utf-8", 200},
		{"GET", "/page/base.css", "text/css; charset=utf-8", 200},
		{"GET", "/page/icon.svg", "image/svg+xml", 200},
		{"GET", "/page/borders.json", "application/json", 200},
		{"GET", "/page/", "application/problem+json", 404},
		{"GET", "/page/../page.go", "application/problem+json", 404},
		{"GET", "/favicon.ico", "application/problem+json", 404},
		{"POST", "/", "application/problem+json", 405},
	} {
		response := ask(test.method, test.path)
		if response.StatusCode != test.status || response.Header.Get("Content-Type") != test.contentType {
			t.Errorf("%s %s: got %d of %s, want %d of %s", test.method, test.path, response.StatusCode, response.Header.Get("Content-Type"), test.status, test.contentType)
		}
		for name, want := range headers {
			if got := response.Header.Get(name); got != want {
				t.Errorf("%s %s: %s: got %q, want %q", test.method, test.path, name, got, want)
			}
		}
	}
}

// TestPolicy pins what must not be loosened in passing.
func TestPolicy(t *testing.T) {
	for _, want := range []string{
		"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
	} {
		if !slices.Contains(strings.Split(policy, "; "), want) {
			t.Errorf("the policy lacks %q: %s", want, policy)
		}
	}
}

func TestEntityTags(t *testing.T) {
	plain, zipped := ask("GET", "/page/app.js"), ask("GET", "/page/app.js", "Accept-Encoding", "br, gzip;q=0.5")
	tag, zippedTag := plain.Header.Get("Etag"), zipped.Header.Get("Etag")
	if tag == zippedTag || plain.Header.Get("Content-Encoding") != "" || zipped.Header.Get("Content-Encoding") != "gzip" {
		t.Errorf("got tags %s and %s with encodings %q and %q: other bytes need another tag", tag, zippedTag,
			plain.Header.Get("Content-Encoding"), zipped.Header.Get("Content-Encoding"))
	}
	body, _ := io.ReadAll(plain.Body)
	if r, err := gzip.NewReader(zipped.Body); err != nil {
		t.Error(err)
	} else if unzipped, err := io.ReadAll(r); err != nil || string(unzipped) != string(body) {
		t.Errorf("the zipped file is another one (%v)", err)
	}
	for header, want := range map[string]int{
		tag: 304, "W/" + tag: 304, `"other", ` + tag: 304, "*": 304, `"other"`: 200, zippedTag: 200,
	} {
		if got := ask("GET", "/page/app.js", "If-None-Match", header).StatusCode; got != want {
			t.Errorf("If-None-Match: %s: got %d, want %d", header, got, want)
		}
	}
	for header, want := range map[string]bool{"gzip": true, "GZIP;q=1.0": true, "gzip;q=0": false, "gzip; q=0.000": false, "br": false, "": false} {
		if got := acceptsGzip(header); got != want {
			t.Errorf("Accept-Encoding %q: got %v, want %v", header, got, want)
		}
	}
}

// TestNothingFromElsewhere reads the sources for what the policy would refuse in the browser, or should not have to.
func TestNothingFromElsewhere(t *testing.T) {
	refused := regexp.MustCompile(`https?://(?:www\.w3\.org/2000/svg")?|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|\sstyle=|\son[a-z]+="`)
	for name, file := range assets() {
		for _, found := range refused.FindAllString(string(file.plain), -1) {
			if !strings.HasSuffix(found, `www.w3.org/2000/svg"`) && !(name == "page/editor.js" && found == "https://") {
				t.Errorf("%s has %q", name, found)
			}
		}
		if lines := strings.Count(string(file.plain), "\n"); lines > 300 {
			t.Errorf("%s has %d lines, want at most 300", name, lines)
		}
	}
	var outlines [][]int
	if err := json.Unmarshal(assets()["page/borders.json"].plain, &outlines); err != nil || len(outlines) < 200 {
		t.Errorf("%d outlines: %v", len(outlines), err)
	}
}
