package devca

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCertificatesOutliveARestart(t *testing.T) {
	dir, now := filepath.Join(t.TempDir(), "state"), time.Now()
	first, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"intake.isochrone.test", "127.0.1.1"} {
		cert, err := first.Certificate(name, now)
		if err != nil {
			t.Fatal(err)
		}
		again, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: again.Pool()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if same, _ := first.Certificate(name, now.Add(leafLifetime/3)); same != cert {
			t.Errorf("%s: issued anew after a third of its lifetime", name)
		}
		if renewed, _ := first.Certificate(name, now.Add(leafLifetime*2/3)); renewed == cert {
			t.Errorf("%s: not renewed after two thirds of its lifetime", name)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, "ca-key.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v, %v; want mode 0600", info, err)
	}
}

func TestBrokenFiles(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ca-key.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); err == nil || !strings.Contains(err.Error(), "ca-key.pem") {
		t.Errorf("got %v, want an error that names %s", err, "ca-key.pem")
	}
}
