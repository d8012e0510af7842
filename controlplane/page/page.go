// Package page is the operators' page: static files, embedded, that ask the control API in the browser. Nothing is built and
// nothing comes from other hosts. It decides nothing and knows no secret: a token is typed by who uses it, and stays in that tab.
//
//	mux.Handle("/v1/", api)
//	mux.Handle("/", page.Handler())
package page

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/internal/worldmap"
)

//go:embed files
var files embed.FS

// policy lets the page load from its own host only, run no script but its files, and be in no frame. Styles in the text of the page
// are refused as well; scripts set them by the CSSOM.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// headers go with every answer.
var headers = map[string]string{
	"Content-Security-Policy":      policy,
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Referrer-Policy":              "no-referrer",
	"X-Content-Type-Options":       "nosniff",
}

var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".json": "application/json",
}

// asset is one file in the forms that it is served in.
type asset struct {
	contentType   string
	plain, zipped []byte
	tag           string // entity tag without quotes; zipped adds "-gzip", since the bytes are others
}

// assets are the files by their paths below the root.
var assets = sync.OnceValue(func() map[string]*asset {
	all := map[string]*asset{"page/borders.json": newAsset("borders.json", worldmap.Borders())}
	err := fs.WalkDir(files, "files", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		body, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		at := "page/" + strings.TrimPrefix(name, "files/")
		if at == "page/index.html" {
			at = ""
		}
		all[at] = newAsset(name, body)
		return nil
	})
	if err != nil {
		panic("page: " + err.Error()) // embedded files can be read
	}
	return all
})

func newAsset(name string, body []byte) *asset {
	hash := sha256.Sum256(body)
	a := &asset{contentType: contentTypes[path.Ext(name)], plain: body, tag: hex.EncodeToString(hash[:12])}
	if a.contentType == "" {
		panic("page: no content type for " + name)
	}
	var zipped bytes.Buffer
	w, _ := gzip.NewWriterLevel(&zipped, gzip.BestCompression) // the level is valid, and a buffer takes all
	_, _ = w.Write(body)
	_ = w.Close()
	a.zipped = zipped.Bytes()
	return a
}

// Handler serves the page at / and its files below /page/. Browsers may keep them, but ask each time whether they are still those of
// this server, by entity tags made of their contents.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for name, value := range headers {
			w.Header().Set(name, value)
		}
		file := assets()[strings.TrimPrefix(r.URL.Path, "/")]
		if file == nil {
			problem.Write(w, http.StatusNotFound, fmt.Sprintf("there is no page %q; the operators' page is at /", r.URL.Path))
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			problem.Write(w, http.StatusMethodNotAllowed, "the page is only read")
			return
		}
		file.serve(w, r)
	})
}

func (a *asset) serve(w http.ResponseWriter, r *http.Request) {
	body, tag := a.plain, a.tag
	if acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body, tag = a.zipped, a.tag+"-gzip"
		w.Header().Set("Content-Encoding", "gzip")
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Content-Type", a.contentType)
	h.Set("Etag", `"`+tag+`"`)
	h.Set("Vary", "Accept-Encoding")
	if matches(r.Header.Get("If-None-Match"), tag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Length", fmt.Sprint(len(body)))
	_, _ = w.Write(body) // an error means that the client has gone; to HEAD, net/http sends no body
}

// acceptsGzip reads an Accept-Encoding header as RFC 9110 section 12.5.3 has it; a weight of zero refuses.
func acceptsGzip(header string) bool {
	for one := range strings.SplitSeq(header, ",") {
		coding, weight, _ := strings.Cut(strings.TrimSpace(one), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			return strings.Trim(strings.TrimPrefix(strings.TrimSpace(weight), "q="), "0.") != "" || weight == ""
		}
	}
	return false
}

// matches compares an If-None-Match header with a tag, weakly (RFC 9110 section 13.1.2).
func matches(header, tag string) bool {
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimSpace(one); one == "*" || strings.TrimPrefix(one, "W/") == `"`+tag+`"` {
			return true
		}
	}
	return false
}
