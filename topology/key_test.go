package topology

import (
	"bytes"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestNewKey(t *testing.T) {
	id, key, record, err := NewKey(bytes.NewReader(bytes.Repeat([]byte{7}, 25)), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := KeyID(key); !ok || got != id {
		t.Errorf("KeyID(%q) = %q, %v; want %q", key, got, ok, id)
	}
	if got, faults := ParseKey(id, MarshalValue(record)); len(faults) > 0 || !reflect.DeepEqual(got, record) || got.SHA256 != HashKey(key) {
		t.Errorf("got %+v, faults %v, want %+v", got, faults, record)
	}
	for _, few := range []string{"", "short"} {
		if _, _, _, err := NewKey(strings.NewReader(few), time.Now()); err == nil {
			t.Error("a key was made of too little randomness")
		}
	}
	if _, err := NewSecret(strings.NewReader("short"), id); err == nil {
		t.Error("a secret was made of too little randomness")
	}
}

func TestRotate(t *testing.T) {
	start := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	random := bytes.NewReader([]byte(strings.Repeat("many random octets, all of them different in each part ", 10)))
	id, first, record, err := NewKey(random, start)
	if err != nil {
		t.Fatal(err)
	}
	record.Services, record.From, record.Expires, record.Note = []string{"a.example"}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, start.AddDate(1, 0, 0), "n"
	second, rotated, err := record.Rotate(random, id, start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	third, twice, err := rotated.Rotate(random, id, start, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	fourth, atOnce, err := twice.Rotate(random, id, start, 0)
	if err != nil {
		t.Fatal(err)
	}
	keys := []string{first, second, third, fourth}
	for _, test := range []struct {
		name   string
		record *Key
		after  time.Duration
		want   string // which keys match
	}{
		{"before", record, 0, "first"},
		{"rotated", rotated, 0, "first second"},
		{"at the end of the overlap", rotated, time.Hour - 1, "first second"},
		{"after the overlap", rotated, time.Hour, "second"},
		{"rotated twice", twice, 0, "second third"},
		{"without an overlap", atOnce, 0, "fourth"},
	} {
		var got []string
		for i, key := range keys {
			if test.record.Matches(key, start.Add(test.after)) {
				got = append(got, []string{"first", "second", "third", "fourth"}[i])
			}
			if test.record.Matches(key+"a", start) || test.record.Matches("", start) {
				t.Errorf("%s: a wrong key matches", test.name)
			}
			if other, _ := KeyID(key); other != id {
				t.Errorf("%s: key %d has the id %s", test.name, i, other)
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v, want %s", test.name, got, test.want)
		}
		if again, faults := ParseKey(id, MarshalValue(test.record)); len(faults) > 0 || !reflect.DeepEqual(again, test.record) {
			t.Errorf("%s: after writing and reading %+v, faults %v", test.name, again, faults)
		}
		if !reflect.DeepEqual(test.record.Services, record.Services) || !test.record.Expires.Equal(record.Expires) || test.record.Note != "n" {
			t.Errorf("%s: lost its scope: %+v", test.name, test.record)
		}
	}
	if _, _, err := record.Rotate(strings.NewReader("short"), id, start, 0); err == nil {
		t.Error("a key was made of too little randomness")
	}
}

func TestParseKeyTellsWhatIsWrong(t *testing.T) {
	hash := HashKey("x")
	for _, test := range []struct{ text, want string }{
		{"sha256: abc", "keys.k.sha256: is not the SHA-256"},
		{"sha256: " + strings.ToUpper(hash), "keys.k.sha256: is not the SHA-256"},
		{"sha256: " + hash + ", previous_sha256: " + hash, "keys.k.previous_until: is missing"},
		{"sha256: " + hash + ", previous_until: 2030-01-01T00:00:00Z", "keys.k.previous_until: is the end of nothing"},
		{"sha256: " + hash + ", previous_sha256: x, previous_until: 2030-01-01T00:00:00Z", "keys.k.previous_sha256: is not the SHA-256"},
		{"sha256: " + hash + ", services: [A]", `keys.k.services[0]: "A" is not a domain name`},
		{"sha256: " + hash + ", services: [a, a]", `keys.k.services[1]: "a" stands here twice`},
		{"sha256: " + hash + ", services: [" + strings.Repeat("a,", 101) + "]", "keys.k.services: has 101 entries, at most 100"},
		{"sha256: " + hash + ", from: [192.0.2.1]", `keys.k.from[0]: "192.0.2.1" is not a prefix`},
		{"sha256: " + hash + ", from: [192.0.2.1/24]", "keys.k.from[0]: 192.0.2.1/24 is not in its canonical form, which is 192.0.2.0/24"},
		{"sha256: " + hash + ", from: ['::ffff:192.0.2.0/120']", "keys.k.from[0]: ::ffff:192.0.2.0/120 has an IPv4 address in IPv6 form: write 192.0.2.0/24"},
		{"sha256: " + hash + ", quota_per_minute: -1", "keys.k.quota_per_minute: -1 is not in 1..1099511627776"},
		{"sha256: " + hash + ", expires: tomorrow", `keys.k.expires: "tomorrow" is not a time such as`},
		{"sha256: " + hash + ", note: " + strings.Repeat("n", 501), "keys.k.note: has 501 characters, at most 500"},
		{"sha256: " + hash + ", service: [a]", "keys.k.service: unknown key; did you mean services?"},
	} {
		k, faults := ParseKey("k", []byte("{schema: 1, "+test.text+"}"))
		if k != nil || len(faults) != 1 || !strings.Contains(faults[0].String(), test.want) {
			t.Errorf("%s:\ngot %v\nwant %s", test.text, faults, test.want)
		}
	}
}
