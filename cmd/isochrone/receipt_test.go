package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
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

// TestReceiptVerifyByKey checks a receipt by a key that was told, where there is no topology.
func TestReceiptVerifyByKey(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{1}, ed25519.SeedSize))
	signer, other := receipt.NewSigner(private), receipt.NewSigner(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{2}, ed25519.SeedSize)))
	text := file("receipt", []byte(signer.Sign([]receipt.Claims{{ID: "sin1.core", SHA256: strings.Repeat("0", 64), KeyID: "key", PoP: "sin1", Time: time.Unix(1_900_000_000, 0)}})[0]))
	der, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	hidden := base64.StdEncoding.EncodeToString(secret)[20:40]
	for _, test := range []struct {
		name  string
		keys  []string
		want  string // in the output, or in the error
		fails bool
	}{
		{"a key", []string{signer.Public()}, "PoP sin1 has accepted request sin1.core", false},
		{"the second of two", []string{other.Public(), signer.Public()}, "has accepted", false},
		{"a file with it", []string{file("key", []byte(signer.Public()+"\n"))}, "has accepted", false},
		{"a file in PEM", []string{file("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, "has accepted", false},
		{"another key", []string{other.Public()}, "NOT VALID", true},
		{"no file", []string{filepath.Join(dir, "none")}, "neither an Ed25519 public key", true},
		{"rubbish", []string{file("rubbish", []byte("rubbish"))}, "neither an Ed25519 public key", true},
		{"the private key", []string{file("private.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))}, "no Ed25519 public key", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			arguments := []string{"receipt", "verify", text, "--dir", dir} // where there is nothing else
			for _, key := range test.keys {
				arguments = append(arguments, "--key", key)
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
			if !strings.Contains(out.String(), test.want) || strings.Contains(out.String(), hidden) {
				t.Errorf("got %s, want %q", out, test.want)
			}
		})
	}
}
