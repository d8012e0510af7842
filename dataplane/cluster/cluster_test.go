package cluster

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func mustOpen(t *testing.T, dir string) *Cluster {
	t.Helper()
	c, err := Open(dir, "token")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func post(c *Cluster, id, body string, change func(http.Header)) int {
	r := httptest.NewRequest("POST", "/api/v1/envelopes", strings.NewReader(body))
	sum := sha256.Sum256([]byte(body))
	r.Header.Set("X-Request-Id", id)
	r.Header.Set("X-Request-Hash", hex.EncodeToString(sum[:]))
	r.Header.Set("Authorization", "Bearer token")
	if change != nil {
		change(r.Header)
	}
	w := httptest.NewRecorder()
	c.ServeHTTP(w, r)
	return w.Code
}

func TestContract(t *testing.T) {
	c := mustOpen(t, t.TempDir())
	set := func(name, value string) func(http.Header) { return func(h http.Header) { h.Set(name, value) } }
	for _, test := range []struct {
		name, id, body string
		change         func(http.Header)
		want           int
	}{
		{name: "first", id: "sin1.aa", body: "one", want: 202},
		{name: "again", id: "sin1.aa", body: "one", want: 409},
		{name: "again by another PoP", id: "fra1.aa", body: "one", want: 409},
		{name: "same id, other bytes", id: "sin1.aa", body: "two", want: 202},
		{name: "those again", id: "sin1.aa", body: "two", want: 409},
		{name: "same bytes, other id", id: "sin1.bb", body: "one", want: 202},
		{name: "wrong hash", id: "sin1.cc", body: "one", change: set("X-Request-Hash", strings.Repeat("0", 64)), want: 400},
		{name: "upper-case hash", id: "sin1.cc", body: "one", change: func(h http.Header) {
			h.Set("X-Request-Hash", strings.ToUpper(h.Get("X-Request-Hash")))
		}, want: 400},
		{name: "wrong token", id: "sin1.cc", body: "one", change: set("Authorization", "Bearer other"), want: 401},
		{name: "no id", id: "", body: "one", want: 400},
		{name: "an id with a line's end", id: "sin1.cc", body: "one", change: set("X-Request-Id", "a\nb"), want: 400},
	} {
		if got := post(c, test.id, test.body, test.change); got != test.want {
			t.Errorf("%s: got %d, want %d", test.name, got, test.want)
		}
	}
	if got, want := c.Stats(), (Stats{Stored: 3, Bytes: 9, Conflicts: 1, Duplicates: 3, Refused: 5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestRestart cuts the file as a crash may; what had been acknowledged is still known.
func TestRestart(t *testing.T) {
	dir := t.TempDir()
	first, err := Open(dir, "token")
	if err != nil {
		t.Fatal(err)
	}
	post(first, "sin1.aa", "one", nil)
	post(first, "sin1.aa", "two", nil)
	first.Close()
	path := filepath.Join(dir, LogFile)
	whole, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append(whole, "sin1.bb 12ab"...), 0o600); err != nil {
		t.Fatal(err)
	}
	second := mustOpen(t, dir)
	if got := second.Stats().Stored; got != 2 {
		t.Errorf("got %d stored, want 2", got)
	}
	if a, b := post(second, "fra1.aa", "two", nil), post(second, "sin1.bb", "three", nil); a != 409 || b != 202 {
		t.Errorf("got %d and %d, want 409 and 202", a, b)
	}
}

// TestConcurrentDuplicates sends one envelope many times at once: one is stored.
func TestConcurrentDuplicates(t *testing.T) {
	c := mustOpen(t, t.TempDir())
	var senders sync.WaitGroup
	for range 50 {
		senders.Go(func() { post(c, "sin1.aa", "one", nil) })
	}
	senders.Wait()
	if got, want := c.Stats(), (Stats{Stored: 1, Bytes: 3, Duplicates: 49}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestHealthAndStats(t *testing.T) {
	c := mustOpen(t, t.TempDir())
	for path, want := range map[string]int{"/healthz": 200, "/stats": 200, "/": 404} {
		w := httptest.NewRecorder()
		c.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", path, w.Code, want)
		}
	}
}

// TestLog reads the lines of the file, with and without a window, as other tests of envelopes do, and has those of older versions read.
func TestLog(t *testing.T) {
	dir := t.TempDir()
	old := "sin1.old " + strings.Repeat("ab", 32) + " 3\nsin1.old " + strings.Repeat("cd", 32) + " 3 conflict\n"
	if err := os.WriteFile(filepath.Join(dir, LogFile), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	c := mustOpen(t, dir)
	window := func(n string) func(http.Header) { return func(h http.Header) { h.Set("X-Isochrone-Window", n) } }
	post(c, "sin1.aa", "one", window("29402000"))
	post(c, "sin1.aa", "two", window("29402001"))
	post(c, "sin1.bb", "one", window("no number"))
	got, err := os.ReadFile(filepath.Join(dir, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	one, two := sha256.Sum256([]byte("one")), sha256.Sum256([]byte("two"))
	want := old + fmt.Sprintf("sin1.aa %x 3 w=29402000\nsin1.aa %x 3 w=29402001 conflict\nsin1.bb %x 3\n", one, two, one)
	if string(got) != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	if again := mustOpen(t, dir).Stats().Stored; again != 5 {
		t.Errorf("%d are read back, want 5", again)
	}
}
