package topology

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"
)

// signingKey returns a key of example.net; different seeds give different keys.
func signingKey(role KeyRole, state KeyState, seed byte) SigningKey {
	private := ed25519.NewKeyFromSeed([]byte(strings.Repeat(string(rune(seed)), ed25519.SeedSize)))
	k := SigningKey{
		Role: role, Algorithm: ED25519, State: state, Since: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC),
		Public: base64.StdEncoding.EncodeToString(private.Public().(ed25519.PublicKey)),
	}
	k.Tag = k.DNSKEY("example.net", 0).KeyTag()
	return k
}

func exampleSigning() *Signing {
	return &Signing{Schema: 1, Keys: []SigningKey{signingKey(KSK, KeyActive, 1), signingKey(ZSK, KeyActive, 2)}}
}

func TestSigningIsReadAsWritten(t *testing.T) {
	s := exampleSigning()
	s.Keys = append(s.Keys, signingKey(ZSK, KeyPublished, 3))
	s.Roll = &Roll{Role: ZSK, Old: s.Keys[1].Tag, New: s.Keys[2].Tag, Step: RollPublished, NotBefore: s.Keys[0].Since.Add(time.Hour)}
	text := MarshalValue(s)
	got, faults := ParseSigning("example.net", text)
	if len(faults) > 0 || string(MarshalValue(got)) != string(text) {
		t.Errorf("got %+v, %v, want\n%s", got, faults, text)
	}
	if k := got.Key(s.Keys[2].Tag); k == nil || k.State != KeyPublished || got.Key(s.Keys[2].Tag+1) != nil {
		t.Errorf("got %+v by its tag", k)
	}
	if _, faults := ParseSigning("example.net", []byte("schema: 1\nkeys: []\n")); len(faults) > 0 {
		t.Errorf("a zone without keys: %v", faults)
	}
}

func TestSigningFaults(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Signing)
		want   []string
	}{
		{"schema", func(s *Signing) { s.Schema = 9 }, []string{"dnssec.example.net.schema: 9 is newer"}},
		{"role", func(s *Signing) { s.Keys[1].Role = "csk" }, []string{`keys[1].role: "csk" is not one of`, "no zsk of algorithm 15 is active"}},
		{"algorithm", func(s *Signing) { s.Keys[0].Algorithm = 8 }, []string{"keys[0].algorithm: 8 is not taken: want 13"}},
		{"base64", func(s *Signing) { s.Keys[0].Public = "!" }, []string{"keys[0].public", "is not base64"}},
		{"length", func(s *Signing) { s.Keys[0].Algorithm = 13 }, []string{"keys[0].public: has 32 octets: a public key of algorithm 13 has 64"}},
		{"tag", func(s *Signing) { s.Keys[0].Tag++ }, []string{"keys[0].tag", "is not the tag of this key"}},
		{"same tag", func(s *Signing) { s.Keys = append(s.Keys, s.Keys[1]) }, []string{"keys[2].tag", "stands here twice"}},
		{"no active KSK", func(s *Signing) { s.Keys[0].State = KeyPublished }, []string{"no ksk of algorithm 15 is active"}},
		{"no active ZSK", func(s *Signing) { s.Keys = s.Keys[:1] }, []string{"no zsk of algorithm 15 is active"}},
		{"state", func(s *Signing) { s.Keys[0].State = "asleep" }, []string{`keys[0].state: "asleep"`}},
		{"too many", func(s *Signing) { s.Keys = make([]SigningKey, 17) }, []string{"keys: has 17 entries"}},
		{"roll to nowhere", func(s *Signing) { s.Roll = &Roll{Role: ZSK, Old: s.Keys[1].Tag, New: 1, Step: RollSwapped} },
			[]string{"roll.new: there is no key 1"}},
		{"roll of another role", func(s *Signing) { s.Roll = &Roll{Role: ZSK, Old: s.Keys[1].Tag, New: s.Keys[0].Tag, Step: RollSwapped} },
			[]string{"roll.new: key", "is a ksk"}},
		{"roll to itself", func(s *Signing) { s.Roll = &Roll{Role: ZSK, Old: s.Keys[1].Tag, New: s.Keys[1].Tag, Step: RollSwapped} },
			[]string{"is the old key too"}},
		{"step", func(s *Signing) { s.Roll = &Roll{Role: KSK, Old: s.Keys[0].Tag, New: s.Keys[0].Tag, Step: RollSwapped} },
			[]string{`roll.step: "swapped" is not one of`}},
		{"several at once", func(s *Signing) { s.Keys[0].Tag++; s.Keys[1].Public = "AAAA" }, []string{"keys[0].tag", "keys[1].public: has 3 octets"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := exampleSigning()
			test.change(s)
			got, faults := ParseSigning("example.net", MarshalValue(s))
			if got != nil || len(faults) == 0 {
				t.Fatalf("got %+v", got)
			}
			for _, want := range test.want {
				if told := fmt.Sprint(faults); !strings.Contains(told, want) {
					t.Errorf("got %v, want %q in it", told, want)
				}
			}
		})
	}
	if _, faults := ParseSigning("example.net", []byte("schema: 1\nkey: []\n")); len(faults) != 1 || faults[0].Line != 2 {
		t.Errorf("an unknown key: got %v", faults)
	}
}

func TestLastValidSigningStays(t *testing.T) {
	a := NewAssembler(nil, 0)
	if first := a.Snapshot(1); len(first.Signing) != 0 || first.Signing == nil || first.Signed != 0 {
		t.Errorf("without signing: %+v since %d", first.Signing, first.Signed)
	}
	a.Put("dnssec/example.net", MarshalValue(exampleSigning()))
	good := a.Snapshot(2)
	if good.Signed != 2 || len(good.Signing["example.net"].Keys) != 2 {
		t.Fatalf("got %+v since %d", good.Signing, good.Signed)
	}
	same := func(what string, snap *Snapshot, faults int) {
		t.Helper()
		if fmt.Sprintf("%p", snap.Signing) != fmt.Sprintf("%p", good.Signing) || snap.Signed != 2 || len(snap.Ignored) != faults {
			t.Errorf("after %s: got %v since %d, faults %v", what, snap.Signing, snap.Signed, snap.Ignored)
		}
	}
	a.Put("overrides/x", []byte("schema: 1"))
	a.Delete("overrides/x")
	same("another change", a.Snapshot(3), 0)
	a.Put("dnssec/example.net", MarshalValue(exampleSigning()))
	same("the same value", a.Snapshot(4), 0)
	a.Put("dnssec/example.net", []byte("schema: 1\nkeys: [{tag: 1}]\n"))
	a.Put("dnssec/example.org", []byte("keys"))
	bad := a.Snapshot(5)
	same("a typo", bad, len(bad.Ignored))
	if told := fmt.Sprint(bad.Ignored); !strings.Contains(told, "dnssec.example.net.keys[0]") || !strings.Contains(told, "dnssec.example.org") {
		t.Errorf("the faults are %s", told)
	}

	// A new connection to the store: what was in force counts only for what is stored still.
	again := NewAssembler(nil, 0)
	again.KeepSigning(good.Signing, good.Signed)
	again.Put("dnssec/example.net", []byte("keys"))
	same("a reconnection and a typo", again.Snapshot(6), 1)
	again = NewAssembler(nil, 0)
	again.KeepSigning(good.Signing, good.Signed)
	if gone := again.Snapshot(7); len(gone.Signing) != 0 || gone.Signed != 7 {
		t.Errorf("deleted meanwhile: got %v since %d", gone.Signing, gone.Signed)
	}
	again.Put("dnssec/example.net", []byte("keys"))
	if still := again.Snapshot(8); len(still.Signing) != 0 || still.Signed != 7 {
		t.Errorf("a typo after a deletion brings back %v since %d", still.Signing, still.Signed)
	}

	a.Delete("dnssec/example.net")
	if gone := a.Snapshot(9); len(gone.Signing) != 0 || gone.Signed != 9 || len(good.Signing) != 1 {
		t.Errorf("after a deletion: got %v since %d", gone.Signing, gone.Signed)
	}
}

func FuzzParseSigning(f *testing.F) {
	f.Add(MarshalValue(exampleSigning()))
	f.Add([]byte("schema: 1\nkeys: [{tag: 1, role: ksk, algorithm: 13, public: AAAA, state: active}]\nroll: {role: ksk, old: 1, new: 1}\n"))
	f.Add([]byte("schema: 1\nkeys: []\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, faults := ParseSigning("example.net", text)
		if (s == nil) != (len(faults) > 0) {
			t.Fatalf("got %+v with the faults %v", s, faults)
		}
		if s == nil {
			return
		}
		again, faults := ParseSigning("example.net", MarshalValue(s))
		if len(faults) > 0 || !bytes.Equal(MarshalValue(again), MarshalValue(s)) {
			t.Errorf("what was valid is another after writing: %v\n%s", faults, MarshalValue(s))
		}
	})
}
