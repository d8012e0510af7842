package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/receipt"
)

// TestReceiptVerify checks receipts offline, by the command.
func TestReceiptVerify(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	payload := []byte(`{"hash":"0x1"}`)
	sum := sha256.Sum256(payload)
	signer := receipt.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize)))
	claims := receipt.Claims{ID: "sin1.core", SHA256: hex.EncodeToString(sum[:]), KeyID: "key", PoP: "sin1", Service: "intake.example.net", Time: time.Unix(1_900_000_000, 0)}
	of := func(pop string) string {
		c := claims
		c.PoP = pop
		return signer.Sign([]receipt.Claims{c, claims})[0]
	}
	keys, err := json.Marshal(popKeys{"sin1": {signer.Public()}, "fra1": {}})
	if err != nil {
		t.Fatal(err)
	}
	keysFile, payloadFile := file("keys.json", keys), file("payload.json", payload)
	for _, test := range []struct {
		name, text, payload string
		want                string // in the output, or in the error
		fails               bool
	}{
		{"a receipt", of("sin1") + "\n", "", "PoP sin1 has accepted request sin1.core for intake.example.net", false},
		{"its payload", of("sin1"), payloadFile, "byte for byte", false},
		{"an answer", `{"status":"accepted","receipt":"` + of("sin1") + `"}`, payloadFile, "byte for byte", false},
		{"another payload", of("sin1"), file("other.json", []byte("{}")), "its hash is another one", true},
		{"another PoP's key", of("fra1"), "", "is not one of the PoP's", true},
		{"no receipt", `{"status":"accepted"}`, "", "has no receipt", true},
		{"rubbish", "rubbish", "", "NOT VALID", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			arguments := []string{"receipt", "verify", file("receipt", []byte(test.text)), "--keys", keysFile}
			if test.payload != "" {
				arguments = append(arguments, "--payload", test.payload)
			}
			root, out := newRootCommand(), new(bytes.Buffer)
			root.SetArgs(arguments)
			root.SetOut(out)
			err := root.ExecuteContext(t.Context())
			if (err != nil) != test.fails {
				t.Errorf("got the error %v", err)
			}
			if err != nil {
				out.WriteString(err.Error())
			}
			if !strings.Contains(out.String(), test.want) {
				t.Errorf("got %s, want %q", out, test.want)
			}
		})
	}
}
