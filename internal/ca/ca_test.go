package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ca")
	if _, err := Open(dir); !errors.Is(err, fs.ErrNotExist) || Exists(dir) {
		t.Errorf("open without a CA: got %v, want %v", err, fs.ErrNotExist)
	}
	made, err := Create(dir, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Create(dir, "test", time.Now()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create again: got %v, want %v", err, fs.ErrExist)
	}
	read, err := Open(dir)
	if err != nil || Hash(read.Certificate()) != Hash(made.Certificate()) || !Exists(dir) {
		t.Errorf("opened: %v, %v", read, err)
	}
	if left := time.Until(made.Certificate().NotAfter); left < 9*365*24*time.Hour {
		t.Errorf("the CA ends in %v, want about ten years", left)
	}
	key := filepath.Join(dir, keyFile)
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "mode 0640") {
		t.Errorf("with a key that others read: got %v", err)
	}
	other, err := EncodeKey(newKey(t, elliptic.P256()))
	if err := errors.Join(err, os.Chmod(key, 0o600), os.WriteFile(key, other, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Errorf("with another's key: got %v", err)
	}
}

func TestKinds(t *testing.T) {
	now := time.Now()
	authority, err := New("test", now)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		kind           Kind
		hosts          []string
		want           string
		server, client bool
		lifetime       time.Duration
	}{
		{EtcdServer, []string{"e1.test", "192.0.2.1"}, "etcd-server", true, true, longLifetime},
		{EtcdPeer, []string{"e1.test"}, "etcd-peer", true, true, longLifetime},
		{EtcdRoot, nil, "root", false, true, longLifetime},
		{Control, []string{"c1.test"}, "control:n1", true, true, longLifetime},
		{Operator, nil, "operator:n1", false, true, longLifetime},
		{PoP, nil, "pop:n1", false, true, NodeLifetime},
		{DNS, nil, "dns:n1", false, true, NodeLifetime},
	} {
		cert, err := authority.Issue(Request{Kind: test.kind, Name: "n1", Hosts: test.hosts, Public: &newKey(t, elliptic.P256()).PublicKey}, now)
		if err != nil {
			t.Errorf("%s: %v", test.kind, err)
			continue
		}
		if got := cert.Subject.CommonName; got != test.want {
			t.Errorf("%s: got common name %q, want %q", test.kind, got, test.want)
		}
		if got := slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageServerAuth); got != test.server {
			t.Errorf("%s: for a server: got %v", test.kind, got)
		}
		if got := authority.Verify(cert, now) == nil; got != test.client {
			t.Errorf("%s: for a client: got %v", test.kind, got)
		}
		if got := cert.NotAfter.Sub(now).Round(time.Minute); got != test.lifetime {
			t.Errorf("%s: got %v, want %v", test.kind, got, test.lifetime)
		}
		for _, host := range test.hosts {
			if err := cert.VerifyHostname(host); err != nil {
				t.Errorf("%s: %v", test.kind, err)
			}
		}
	}
	late, err := authority.Issue(Request{Kind: PoP, Name: "n1", Public: &newKey(t, elliptic.P256()).PublicKey}, authority.cert.NotAfter.Add(-time.Hour))
	if err != nil || late.NotAfter.After(authority.cert.NotAfter) {
		t.Errorf("a certificate outlives its CA: %v", err)
	}
}

func TestRefusedRequests(t *testing.T) {
	now := time.Now()
	authority, err := New("test", now)
	if err != nil {
		t.Fatal(err)
	}
	good := &newKey(t, elliptic.P256()).PublicKey
	for want, r := range map[string]Request{
		"is not a name":      {Kind: PoP, Name: "sin1,root", Public: good},
		"kind":               {Kind: "root", Name: "sin1", Public: good},
		"names or addresses": {Kind: Control, Name: "c1", Public: good},
		"has no hosts":       {Kind: PoP, Name: "sin1", Hosts: []string{"etcd.test"}, Public: good},
		"P-256":              {Kind: PoP, Name: "sin1", Public: &newKey(t, elliptic.P384()).PublicKey},
	} {
		if cert, err := authority.Issue(r, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, %v, want an error with %q", r, cert, err, want)
		}
	}
}

func TestReadRequest(t *testing.T) {
	key := newKey(t, elliptic.P256())
	text, err := EncodeRequest(key)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ReadRequest(text); err != nil || !key.PublicKey.Equal(got) {
		t.Errorf("got %v, %v", got, err)
	}
	request := func(key any) []byte {
		der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	}
	weak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	forged := bytes.Clone(block.Bytes)
	forged[len(forged)-1] ^= 1 // of the signature
	for name, text := range map[string][]byte{
		"nothing":       nil,
		"RSA":           request(weak),
		"P-384":         request(newKey(t, elliptic.P384())),
		"two":           append(bytes.Clone(text), text...),
		"too long":      append(bytes.Clone(text), bytes.Repeat([]byte("\n"), maxRequest)...),
		"another kind":  EncodeCertificate(block.Bytes),
		"not signed by": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: forged}),
	} {
		if got, err := ReadRequest(text); err == nil {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	text, err := EncodeRequest(newKey(f, elliptic.P256()))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		key, err := ReadRequest(text)
		if (key == nil) != (err != nil) {
			t.Fatalf("got %v, %v", key, err)
		}
		if err == nil && key.Curve != elliptic.P256() {
			t.Errorf("took a key on %v", key.Curve)
		}
	})
}
