package receipt

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func aSigner(seed byte) (*Signer, func(pop, kid string) ed25519.PublicKey) {
	key := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	public := key.Public().(ed25519.PublicKey)
	return NewSigner(key), func(pop, kid string) ed25519.PublicKey {
		if pop == "sin1" && kid == KeyID(public) {
			return public
		}
		return nil
	}
}

func someClaims(n int) []Claims {
	all := make([]Claims, n)
	for i := range all {
		all[i] = Claims{
			ID: fmt.Sprintf("sin1.core%d", i), SHA256: fmt.Sprintf("%064x", i), KeyID: "abcdefgh", PoP: "sin1", Service: "intake.example.net",
			Time: time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.UTC),
		}
	}
	return all
}

// obviousRoot is the hash of RFC 9162 section 2.1.1, as it is defined there.
func obviousRoot(leaves []digest) digest {
	if len(leaves) == 1 {
		return leaves[0]
	}
	k := 1
	for 2*k < len(leaves) {
		k *= 2
	}
	left, right := obviousRoot(leaves[:k]), obviousRoot(leaves[k:])
	return nodeHash(&left, &right)
}

func TestTreeIsThatOfTheRFC(t *testing.T) {
	for n := 1; n < 70; n++ {
		var leaves []digest
		for i := range n {
			leaves = append(leaves, leafHash([]byte{byte(i)}))
		}
		tree := newTree(leaves)
		if tree.root() != obviousRoot(leaves) {
			t.Fatalf("another root of %d leaves", n)
		}
		for i := range n {
			path := tree.appendPath(nil, i)
			if got, ok := rootOf(leaves[i], uint64(i), uint64(n), path); !ok || got != tree.root() {
				t.Fatalf("the path of leaf %d of %d does not lead to the root", i, n)
			}
			if got, ok := rootOf(leaves[i], uint64(i^1), uint64(n), path); ok && got == tree.root() && n > 1 {
				t.Fatalf("the path of leaf %d of %d leads from another index", i, n)
			}
		}
	}
}

func TestVerify(t *testing.T) {
	signer, keys := aSigner(1)
	for _, n := range []int{1, 2, 3, 33} {
		batch := someClaims(n)
		for i, text := range signer.Sign(batch) {
			claims, err := Verify(text, keys)
			if err != nil || *claims != batch[i] {
				t.Fatalf("receipt %d of %d: got %+v, %v", i, n, claims, err)
			}
		}
	}
}

// TestEveryBitCounts changes each bit of a receipt, and each of its characters to another one.
func TestEveryBitCounts(t *testing.T) {
	signer, keys := aSigner(1)
	for _, text := range []string{signer.Sign(someClaims(1))[0], signer.Sign(someClaims(3))[1]} {
		for i := range text {
			for bit := range 8 {
				changed := []byte(text)
				changed[i] ^= 1 << bit
				if claims, err := Verify(string(changed), keys); err == nil {
					t.Fatalf("octet %d, bit %d: says %+v", i, bit, claims)
				} else if !errors.Is(err, ErrInvalid) {
					t.Fatal(err)
				}
			}
		}
	}
}

// longer returns a path one of whose integers has two octets (RFC 9000 section 16) where one is enough.
func longer(path string, which int) string {
	raw, _ := base64.RawURLEncoding.DecodeString(path)
	return base64.RawURLEncoding.EncodeToString(slices.Insert(raw, which, 0x40))
}

func TestWhatIsNoReceipt(t *testing.T) {
	signer, keys := aSigner(1)
	other, _ := aSigner(2)
	good, two := signer.Sign(someClaims(1))[0], signer.Sign(someClaims(2))
	part := func(text string, i int) string { return strings.Split(text, "~")[i] }
	for name, test := range map[string]struct{ text, want string }{
		"nothing":           {"", "parts"},
		"another key":       {other.Sign(someClaims(1))[0], "not one of"},
		"too long":          {strings.Repeat("a", maxText+1), "longer"},
		"another's claims":  {part(two[0], 0) + "~" + part(two[1], 1) + "~" + part(two[0], 2), "not among"},
		"another's path":    {part(two[0], 0) + "~" + part(two[0], 1) + "~" + part(two[1], 2), "not among"},
		"no path":           {part(two[0], 0) + "~" + part(two[0], 1) + "~", "not among"},
		"a path too many":   {good + part(two[0], 2), "not among"},
		"padding":           {good + "=", "base64url"},
		"a part more":       {good + "~", "parts"},
		"a line's end":      {good + "\r\n", "line"},
		"lines in claims":   {part(two[0], 0) + "~" + part(two[0], 1)[:4] + "\n" + part(two[0], 1)[4:] + "~" + part(two[0], 2), "line"},
		"lines in the JWS":  {part(two[0], 0) + "\n~" + part(two[0], 1) + "~" + part(two[0], 2), "line"},
		"a longer index":    {part(two[0], 0) + "~" + part(two[0], 1) + "~" + longer(part(two[0], 2), 0), "not among"},
		"a longer size":     {part(two[0], 0) + "~" + part(two[0], 1) + "~" + longer(part(two[0], 2), 1), "not among"},
		"none as algorithm": {base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + good[strings.Index(good, "."):], "header"},
	} {
		if _, err := Verify(test.text, keys); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	odd := someClaims(3)
	odd[1].Service = `a"b`
	if texts := signer.Sign(odd); texts[1] != "" || texts[0] == "" || texts[2] == "" {
		t.Errorf("of claims that cannot be written: %q", texts)
	}
	pop := someClaims(1)
	pop[0].PoP = "fra1"
	if _, err := Verify(signer.Sign(pop)[0], keys); err == nil {
		t.Error("a PoP signs for another one")
	}
}

// TestVector holds the format to a receipt that was made before.
func TestVector(t *testing.T) {
	signer, keys := aSigner(7)
	made := strings.Join(signer.Sign(someClaims(3)), "\n") + "\n"
	path := filepath.Join("testdata", "receipts")
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(path, []byte(made), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || made != string(want) {
		t.Errorf("got %s, want %s (%v)", made, want, err)
	}
	for text := range strings.Lines(string(want)) {
		if _, err := Verify(strings.TrimSpace(text), keys); err != nil {
			t.Error(err)
		}
	}
}

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "receipt.key")
	key, err := LoadOrCreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := LoadOrCreateKey(path); err != nil || !again.Equal(key) {
		t.Errorf("another key the second time (%v)", err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v (%v)", info.Mode(), err)
	}
	if err := os.WriteFile(path, []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreateKey(path); err == nil {
		t.Error("rubbish was taken for a key")
	}
}

func FuzzVerify(f *testing.F) {
	signer, keys := aSigner(1)
	signed := map[string]bool{}
	for _, n := range []int{1, 5} {
		for _, text := range signer.Sign(someClaims(n)) {
			signed[text] = true
			f.Add(text)
		}
	}
	f.Add("a.b.c~d~e")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := Verify(text, keys); err == nil && !signed[text] {
			t.Errorf("%q was not signed", text)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	signer, _ := aSigner(1)
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			batch := someClaims(n)
			b.ReportAllocs()
			for b.Loop() {
				signer.Sign(batch)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/receipt")
		})
	}
}
