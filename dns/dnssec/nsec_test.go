package dnssec

import (
	"bytes"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestCompactDenial(t *testing.T) {
	got := Matching("Intake.Example.NET.", []uint16{dns.TypeHTTPS, dns.TypeA, dns.TypeA, dns.TypeAAAA}, 60)
	if want := "intake.example.net.\t60\tIN\tNSEC\t\\000.intake.example.net. A AAAA RRSIG NSEC HTTPS"; got.String() != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got, want := Matching("ent.example.net.", nil, 60).String(), "ent.example.net.\t60\tIN\tNSEC\t\\000.ent.example.net. RRSIG NSEC"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := Nonexistent("x.example.net.", 60).String(), "x.example.net.\t60\tIN\tNSEC\t\\000.x.example.net. RRSIG NSEC NXNAME"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// wire returns the wire form of labels.
func wire(labels ...string) []byte {
	var w []byte
	for _, l := range labels {
		w = append(append(w, byte(len(l))), l...)
	}
	return append(w, 0)
}

func TestSuccessorsOfLongNames(t *testing.T) {
	full := strings.Repeat("b", 63)
	low, high := strings.Repeat("a", 63), strings.Repeat("\xff", 63)
	for _, test := range []struct {
		name       string
		wire, want []byte
	}{
		{"a child just fits", wire(full, full, full, low[:59]), wire("\x00", full, full, full, low[:59])},
		{"an octet fits", wire(low[:60], full, full, full), wire(low[:60]+"\x00", full, full, full)},
		{"254 octets, but a full label", wire(full, full, full, low[:60]), wire(full[:62]+"c", full, full, low[:60])},
		{"255 octets", wire("abc", full, full, full, low[:57]), wire("abd", full, full, full, low[:57])},
		{"an octet that cannot be higher", wire("ab\xff", full, full, full, low[:57]), wire("ac", full, full, full, low[:57])},
		{"an octet before the upper-case letters", wire("ab@", full, full, full, low[:57]), wire("ab[", full, full, full, low[:57])},
		{"a label that cannot be higher", wire(high, "ab", full, full, low[:58]), wire("ab\x00", full, full, low[:58])},
		{"two labels that cannot be higher", wire(high, high, "ab", full, low[:58]), wire("ab\x00", full, low[:58])},
	} {
		name, _, err := dns.UnpackDomainName(test.wire, 0)
		if err != nil {
			t.Fatalf("%s: %v", test.name, err)
		}
		owner, next := successor(name)
		if got, err := packName(next); err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: got %q, %v, want %q", test.name, got, err, test.want)
		}
		if compareNames(t, owner, next) >= 0 {
			t.Errorf("%s: %s does not come after %s", test.name, next, owner)
		}
		// It can be packed, signed and read.
		record := Nonexistent(name, 60)
		buf := make([]byte, 1024)
		if _, err := dns.PackRR(record, buf, 0, nil, false); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

// compareNames compares in canonical order (RFC 4034 section 6.1).
func compareNames(t *testing.T, a, b string) int {
	t.Helper()
	split := func(name string) [][]byte {
		w, err := packName(name)
		if err != nil {
			t.Fatal(err)
		}
		var labels [][]byte
		for at := 0; w[at] != 0; at += int(w[at]) + 1 {
			labels = append([][]byte{w[at+1 : at+1+int(w[at])]}, labels...)
		}
		return labels
	}
	x, y := split(a), split(b)
	for i := range min(len(x), len(y)) {
		if c := bytes.Compare(x[i], y[i]); c != 0 {
			return c
		}
	}
	return len(x) - len(y)
}

// FuzzSuccessor holds for any name that fits a packet: the next one comes after it, is a name, and no child of the name is
// covered unless it is too long to be one.
func FuzzSuccessor(f *testing.F) {
	f.Add(wire("a", "example", "net"))
	f.Add(wire(strings.Repeat("\xff", 63), strings.Repeat("b", 63), strings.Repeat("b", 63), strings.Repeat("b", 61)))
	f.Fuzz(func(t *testing.T, w []byte) {
		name, _, err := dns.UnpackDomainName(w, 0)
		if err != nil || name == "." {
			return
		}
		owner, next := successor(name)
		packed, err := packName(next)
		if err != nil {
			t.Fatalf("%q has the next name %q: %v", owner, next, err)
		}
		if len(packed) > 1 && compareNames(t, owner, next) >= 0 {
			t.Errorf("%q does not come after %q", next, owner)
		}
		if again, _ := packName(owner); len(again)+2 <= 255 && next != `\000.`+owner {
			t.Errorf("%q has the next name %q, which is not its least child", owner, next)
		}
	})
}
