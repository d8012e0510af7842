package certfile

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/internal/devca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pemPair makes a certificate that is valid for 30 days from a time.
func pemPair(t *testing.T, name string, from time.Time) (cert, key []byte) {
	t.Helper()
	ca, err := devca.New(from)
	if err != nil {
		t.Fatal(err)
	}
	made, err := ca.Certificate(name, from)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range made.Certificate {
		cert = append(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// replace puts another file in the place of one, as an ACME client does.
func replace(t *testing.T, path string, text []byte, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", text, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path+".new", mode); err != nil { // in spite of the umask
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func paths(t *testing.T) (cert, key string) {
	dir := t.TempDir()
	return filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
}

func open(t *testing.T, name string, from time.Time) (f *File, certPath, keyPath string) {
	t.Helper()
	certPath, keyPath = paths(t)
	cert, key := pemPair(t, name, from)
	replace(t, certPath, cert, 0o644)
	replace(t, keyPath, key, 0o600)
	f, err := Open(certPath, keyPath)
	if err != nil {
		t.Fatal(err)
	}
	return f, certPath, keyPath
}

func nameOf(t *testing.T, f *File) string {
	t.Helper()
	c, err := f.Certificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.Subject.CommonName
}

func TestReload(t *testing.T) {
	f, certPath, keyPath := open(t, "old.test", time.Now())
	expect := func(what string, wantChanged bool, wantError, wantName string) {
		t.Helper()
		changed, err := f.Reload()
		if changed != wantChanged || (err == nil) != (wantError == "") || err != nil && !strings.Contains(err.Error(), wantError) {
			t.Errorf("%s: got %v, %v, want %v, %q", what, changed, err, wantChanged, wantError)
		}
		if got := nameOf(t, f); got != wantName {
			t.Errorf("%s: got the certificate of %s, want that of %s", what, got, wantName)
		}
	}
	expect("nothing new", false, "", "old.test")

	cert, key := pemPair(t, "new.test", time.Now())
	replace(t, certPath, cert, 0o644)
	expect("the key not yet", false, "private key does not match public key", "old.test")
	expect("still not", false, "private key does not match public key", "old.test")
	replace(t, keyPath, key, 0o600)
	expect("both", true, "", "new.test")
	expect("nothing new", false, "", "new.test")

	replace(t, certPath, []byte("nonsense"), 0o644)
	expect("broken", false, certPath, "new.test")
	os.Remove(certPath)
	expect("removed", false, certPath, "new.test")

	oldCert, oldKey := pemPair(t, "expired.test", time.Now().Add(-40*24*time.Hour))
	replace(t, certPath, oldCert, 0o644)
	replace(t, keyPath, oldKey, 0o600)
	expect("expired", false, ErrExpired.Error(), "new.test")

	replace(t, certPath, cert, 0o644)
	replace(t, keyPath, key, 0o600)
	expect("well again", true, "", "new.test")
	if err := os.Chtimes(certPath, time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	expect("written in place", true, "", "new.test")
}

func TestOpen(t *testing.T) {
	certPath, keyPath := paths(t)
	if _, err := Open(certPath, keyPath); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want that there is no file", err)
	}
	cert, key := pemPair(t, "a.test", time.Now())
	replace(t, certPath, cert, 0o644)
	replace(t, keyPath, key, 0o640)
	if _, err := Open(certPath, keyPath); err != nil {
		t.Errorf("a key for a group: %v", err)
	}
	if runtime.GOOS != "windows" {
		replace(t, keyPath, key, 0o644)
		_, err := Open(certPath, keyPath)
		if !errors.Is(err, ErrExposed) || !strings.Contains(err.Error(), "key.pem") || !strings.Contains(err.Error(), "0644") {
			t.Errorf("got %v, want %v with path and mode", err, ErrExposed)
		}
	}
	replace(t, keyPath, make([]byte, mostRead+1), 0o600)
	if _, err := Open(certPath, keyPath); err == nil || !strings.Contains(err.Error(), "octets") {
		t.Errorf("a huge file: got %v", err)
	}
}

// TestRun replaces files while it looks at them, in virtual time.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, certPath, keyPath := open(t, "old.test", time.Now())
		var out bytes.Buffer
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			f.Run(ctx, slog.New(slog.NewTextHandler(&out, nil)))
			close(done)
		}()
		later := func(d time.Duration) { time.Sleep(d); synctest.Wait() }
		later(time.Second)
		cert, key := pemPair(t, "new.test", time.Now())
		replace(t, certPath, cert, 0o644)
		later(3 * interval)
		replace(t, keyPath, key, 0o600)
		if got := nameOf(t, f); got != "old.test" {
			t.Errorf("got %s before the look", got)
		}
		later(interval)
		if got := nameOf(t, f); got != "new.test" {
			t.Errorf("got %s, want new.test", got)
		}
		later(31 * 24 * time.Hour)
		cancel()
		<-done
		for text, want := range map[string]int{"not used": 1, "certificate reloaded": 1, "in use has expired": 1} {
			if got := strings.Count(out.String(), text); got != want {
				t.Errorf("got %q %d times, want %d, in\n%s", text, got, want, &out)
			}
		}
	})
}
