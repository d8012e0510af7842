package dataplane

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/topology"
)

// signed is a world whose PoP signs receipts.
func signed(t *testing.T, ack topology.Ack) (w *world, keys func(pop, kid string) ed25519.PublicKey) {
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	signer := receipt.NewSigner(private)
	w = newWorldOn(t, spool.Options{Seal: Seal(signer, "sin1")}, func(x *topology.Topology) { x.Services[host].Intake.Ack = ack })
	t.Cleanup(func() { w.config.Spool.Close() })
	w.config.Receipts = signer
	return w, func(pop, _ string) ed25519.PublicKey {
		if pop != "sin1" {
			return nil
		}
		return private.Public().(ed25519.PublicKey)
	}
}

// accept posts, and wants a 202.
func (w *world) accept(t *testing.T, r *http.Request) Accepted {
	t.Helper()
	var got Accepted
	if answer := w.post(r); answer.Code != http.StatusAccepted || json.Unmarshal(answer.Body.Bytes(), &got) != nil {
		t.Errorf("got %d: %s", answer.Code, answer.Body)
	}
	return got
}

// keyed is a request with an Idempotency-Key.
func keyed(key, body, idempotency string) *http.Request {
	r := request(key, body)
	r.Header.Set("Idempotency-Key", idempotency)
	return r
}

// TestReceipts has a 202 promise what it may.
func TestReceipts(t *testing.T) {
	for _, test := range []struct {
		ack         topology.Ack
		idempotency string
		has         bool
	}{{topology.AckSpool, "", true}, {topology.AckSpool, "k", true}, {topology.AckMemory, "", false}, {topology.AckMemory, "k", true}} {
		w, keys := signed(t, test.ack)
		first := w.accept(t, keyed(w.key, aPayload, test.idempotency))
		if has := first.Receipt != ""; has != test.has {
			t.Errorf("%s, %q: got the receipt %q", test.ack, test.idempotency, first.Receipt)
		}
		if !test.has {
			continue
		}
		said, err := receipt.Verify(first.Receipt, keys)
		if err != nil || said.ID != first.ID || said.SHA256 != first.SHA256 || said.Service != host || !strings.Contains(w.key, said.KeyID) {
			t.Errorf("got %+v, %v", said, err)
		}
		if test.idempotency == "" {
			continue
		}
		again := w.accept(t, keyed(w.key, aPayload, test.idempotency))
		repeated, err := receipt.Verify(again.Receipt, keys)
		if err != nil {
			t.Fatal(err)
		}
		if *repeated != *said || again.ID != first.ID {
			t.Errorf("of the repetition: got %+v, want %+v", repeated, said)
		}
	}
}

// TestIdempotency repeats requests at the same time and later.
func TestIdempotency(t *testing.T) {
	w, _ := signed(t, topology.AckSpool)
	ids := make([]string, 20)
	var posting sync.WaitGroup
	for i := range ids {
		posting.Go(func() { ids[i] = w.accept(t, keyed(w.key, aPayload, "once")).ID })
	}
	posting.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("got the ids %s and %s", ids[0], id)
		}
	}
	other := w.post(keyed(w.key, aPayload+" ", "once"))
	if other.Code != http.StatusUnprocessableEntity || !strings.Contains(other.Body.String(), ids[0]) {
		t.Errorf("another payload: got %d: %s", other.Code, other.Body)
	}
	probe := keyed(w.probe, aPayload, "once")
	probe.Header.Set("X-Isochrone-Probe", "1")
	if got := w.accept(t, probe); got.Receipt != "" || got.ID == ids[0] {
		t.Errorf("a probe: got %+v", got)
	}
	if got := w.Stats()["pending"]; got != 1 {
		t.Errorf("%d are queued, want one", got)
	}
}

// TestOutcome asks what has become of requests.
func TestOutcome(t *testing.T) {
	w, _ := signed(t, topology.AckSpool)
	id := w.accept(t, request(w.key, aPayload)).ID
	otherID, other, record, err := topology.NewKey(bytes.NewReader(bytes.Repeat([]byte{9}, 25)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	known := maps.Collect(w.snap.Keys.All())
	known[otherID] = record
	w.newer.Store(&topology.Snapshot{Topology: w.snap.Topology, Keys: topology.NewKeySet(known)})
	asked := ""
	w.config.Peer = func(_ context.Context, pop, id, keyID string) (*Outcome, error) {
		asked = pop + " " + id + " " + keyID
		switch {
		case strings.HasSuffix(id, ".away"):
			return nil, errors.New("away")
		case strings.HasSuffix(id, ".other"):
			return &Outcome{ID: id, Status: "accepted", Service: "other.example"}, nil
		case strings.HasSuffix(id, ".none"):
			return nil, nil
		}
		return &Outcome{ID: id, Status: "delivered", Service: host, Cluster: "eu"}, nil
	}
	keyID, _ := topology.KeyID(w.key)
	for _, test := range []struct {
		name, method, path, key string
		status                  int
		says                    string
	}{
		{"here", "GET", id, w.key, 200, `"status":"accepted"`},
		{"at another PoP", "GET", "fra1.there", w.key, 200, `"cluster":"eu"`},
		{"of another service", "GET", "fra1.other", w.key, 404, "no request"},
		{"unknown at another PoP", "GET", "fra1.none", w.key, 404, "no request"},
		{"a PoP that does not answer", "GET", "fra1.away", w.key, 503, "cannot be asked"},
		{"a PoP that there is not", "GET", "nowhere.there", w.key, 404, "no request id"},
		{"unknown", "GET", id + "a", w.key, 404, "no request"},
		{"no PoP", "GET", "there", w.key, 404, "no request id"},
		{"nothing behind it", "GET", "sin1.", w.key, 404, "no request id"},
		{"nothing", "GET", "", w.key, 404, "no request id"},
		{"too long", "GET", "fra1." + strings.Repeat("a", maxRequestID), w.key, 404, "no request id"},
		{"another's", "GET", id, other, 404, "no request"},
		{"a probe's key", "GET", id, w.probe, 401, "probes"},
		{"no key", "GET", id, "", 401, "no API key"},
		{"POST", "POST", id, w.key, 405, "GET"},
		{"HEAD", "HEAD", id, w.key, 200, ""},
	} {
		asked = ""
		r := httptest.NewRequest(test.method, "https://"+host+ReceiptsPath+test.path, nil)
		r.Header.Set("X-API-Key", test.key)
		got := w.post(r)
		if got.Code != test.status || !strings.Contains(got.Body.String(), test.says) || test.method == "HEAD" && got.Body.Len() > 0 {
			t.Errorf("%s: got %d: %s", test.name, got.Code, got.Body)
		}
		if pop, _, ok := strings.Cut(test.path, "."); (pop == "fra1" && test.name != "too long") != (asked == pop+" "+test.path+" "+keyID) && ok {
			t.Errorf("%s: asked %q", test.name, asked)
		}
		if allow := got.Header().Get("Allow"); (test.status == 405) != (allow == "GET, HEAD") {
			t.Errorf("%s: Allow is %q", test.name, allow)
		}
	}
	w.config.Peer = nil
	r := httptest.NewRequest("GET", "https://"+host+ReceiptsPath+"fra1.there", nil)
	r.Header.Set("X-API-Key", w.key)
	if got := w.post(r); got.Code != 404 || !strings.Contains(got.Body.String(), "fra1."+host) {
		t.Errorf("when PoPs cannot be asked: got %d: %s", got.Code, got.Body)
	}
}
