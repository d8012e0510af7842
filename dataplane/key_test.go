package dataplane

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// TestKeyScopes uses keys where, when and for what they are good, and where they are not.
func TestKeyScopes(t *testing.T) {
	w := newWorld(t, nil)
	defer w.config.Spool.Close()
	now := time.Now()
	id, old, first, err := topology.NewKey(bytes.NewReader(bytes.Repeat([]byte{40}, 25)), now)
	if err != nil {
		t.Fatal(err)
	}
	text, rotated, err := first.Rotate(bytes.NewReader(bytes.Repeat([]byte{41}, 20)), id, now, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	prefixes := func(texts ...string) (all []netip.Prefix) {
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return all
	}
	for _, test := range []struct {
		name   string
		change func(*topology.Key)
		key    string
		from   string // the client's address
		want   int
		detail string
	}{
		{"no bounds", func(*topology.Key) {}, text, "192.0.2.1:1234", 202, ""},
		{"the key before", func(*topology.Key) {}, old, "192.0.2.1:1234", 202, ""},
		{"the key before, too late", func(k *topology.Key) { k.PreviousUntil = now.Add(-time.Second) }, old, "192.0.2.1:1234", 401, "not known"},
		{"not yet expired", func(k *topology.Key) { k.Expires = now.Add(time.Hour) }, text, "192.0.2.1:1234", 202, ""},
		{"expired", func(k *topology.Key) { k.Expires = now }, text, "192.0.2.1:1234", 401, "has expired"},
		{"expired, and the key is wrong", func(k *topology.Key) { k.Expires = now }, text + "a", "192.0.2.1:1234", 401, "not known"},
		{"for this service", func(k *topology.Key) { k.Services = []string{"other.example", host} }, text, "192.0.2.1:1234", 202, ""},
		{"for another service", func(k *topology.Key) { k.Services = []string{"other.example"} }, text, "192.0.2.1:1234", 403, "not for this service"},
		{"from its network", func(k *topology.Key) { k.From = prefixes("2001:db8::/32", "192.0.2.0/24") }, text, "192.0.2.255:1234", 202, ""},
		{"in IPv6 form", func(k *topology.Key) { k.From = prefixes("192.0.2.0/24") }, text, "[::ffff:192.0.2.1]:1234", 202, ""},
		{"from its IPv6 network", func(k *topology.Key) { k.From = prefixes("2001:db8::/32") }, text, "[2001:db8::7]:1234", 202, ""},
		{"from elsewhere", func(k *topology.Key) { k.From = prefixes("192.0.2.0/25") }, text, "192.0.2.128:1234", 403, "from this address"},
		{"from nowhere", func(k *topology.Key) { k.From = prefixes("0.0.0.0/0", "::/0") }, text, "@", 403, "from this address"},
		{"for probes alone", func(k *topology.Key) { k.Probe, k.Services = true, []string{"other.example"} }, text, "192.0.2.1:1234", 401, "probes"},
	} {
		t.Run(test.name, func(t *testing.T) {
			k := *rotated
			test.change(&k)
			w.newer.Store(&topology.Snapshot{Topology: w.snap.Topology, Keys: topology.NewKeySet(map[string]*topology.Key{id: &k})})
			r := request(test.key, aPayload)
			r.RemoteAddr = test.from
			answer := w.post(r)
			if answer.Code != test.want || !strings.Contains(answer.Body.String(), test.detail) {
				t.Errorf("got %d, want %d with %q: %s", answer.Code, test.want, test.detail, answer.Body)
			}
			if strings.Contains(answer.Body.String(), "other.example") || strings.Contains(answer.Body.String(), "192.0.2") {
				t.Errorf("the answer tells what the key is for: %s", answer.Body)
			}
		})
	}

	// The order: 413 before the key, and 403 before the quota, which it costs nothing of, and before the type.
	k := *rotated
	k.Services, k.QuotaPerMinute = []string{"other.example"}, 1
	w.newer.Store(&topology.Snapshot{Topology: w.snap.Topology, Keys: topology.NewKeySet(map[string]*topology.Key{id: &k})})
	for range 3 {
		r := request(text, aPayload)
		r.Header.Set("Content-Type", "text/plain")
		if answer := w.post(r); answer.Code != 403 {
			t.Errorf("got %d, want 403 every time", answer.Code)
		}
	}
	long := request(text, aPayload)
	long.ContentLength = 1 << 30
	if answer := w.post(long); answer.Code != 413 {
		t.Errorf("got %d, want 413", answer.Code)
	}
	if got := w.Stats()["refused_403"]; got != 6 {
		t.Errorf("%d were refused by scope, want 6", got)
	}

}

// TestRotatedKeysShareAQuota uses the old and the new key of an id in turn.
func TestRotatedKeysShareAQuota(t *testing.T) {
	w := newWorld(t, nil)
	defer w.config.Spool.Close()
	id, _ := topology.KeyID(w.key)
	text, rotated, err := w.snap.Keys.Lookup(id).Rotate(bytes.NewReader(bytes.Repeat([]byte{41}, 20)), id, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	rotated.QuotaPerMinute = 10
	w.newer.Store(&topology.Snapshot{Topology: w.snap.Topology, Keys: topology.NewKeySet(map[string]*topology.Key{id: rotated})})
	admitted := 0
	for i := range 30 { // more than two windows' quota, in case a minute ends meanwhile
		switch answer := w.post(request([]string{w.key, text}[i%2], aPayload)); answer.Code {
		case 202:
			admitted++
		case 429:
		default:
			t.Fatalf("got %d: %s", answer.Code, answer.Body)
		}
	}
	if admitted != 10 && admitted != 20 {
		t.Errorf("%d were admitted, want 10 in a window, by both keys together", admitted)
	}
}
