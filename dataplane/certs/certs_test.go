package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/internal/ca"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues certificates for tests.
type authority struct {
	*ca.CA
	t testing.TB
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	made, err := ca.New("test", time.Now().Add(-48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &authority{made, t}
}

// pem issues a certificate that begins a day ago, in PEM with its key.
func (a *authority) pem(life time.Duration, names ...string) (cert, key []byte) {
	a.t.Helper()
	private, err := ca.NewKey()
	if err != nil {
		a.t.Fatal(err)
	}
	leaf, err := a.Issue(ca.Request{Kind: ca.Host, Name: names[0], Hosts: names, Public: &private.PublicKey, Lifetime: life}, time.Now().Add(-24*time.Hour))
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

const month = 30 * 24 * time.Hour

// write puts a pair into a folder, the certificate first, each file whole.
func write(t testing.TB, dir, name string, cert, key []byte) Pair {
	t.Helper()
	p := Pair{filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")}
	for path, text := range map[string][]byte{p.Cert: cert, p.Key: key} {
		if err := errors.Join(os.WriteFile(path+".new", text, 0o600), os.Rename(path+".new", path)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func open(t testing.TB, c Config) *Source {
	t.Helper()
	s, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shown returns the first name of the certificate that a name gets.
func shown(s *Source, name string) string {
	c, err := s.Certificate(&tls.ClientHelloInfo{ServerName: name})
	if err != nil {
		return err.Error()
	}
	return c.Leaf.DNSNames[0]
}

func TestChoice(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	cert, key := a.pem(month, "a.example", "*.wild.example", "wild.example")
	write(t, dir, "several", cert, key)
	cert, key = a.pem(month, "exact.wild.example")
	write(t, dir, "exact", cert, key)
	cert, key = a.pem(time.Hour, "old.example")
	write(t, dir, "expired", cert, key)
	own, ownKey := a.pem(month, "own.example")
	ownPair, err := tls.X509KeyPair(own, ownKey)
	if err != nil {
		t.Fatal(err)
	}
	s := open(t, Config{
		Dir: dir, First: func() string { return "a.example" }, IsService: func(name string) bool { return name == "a.example" || name == "bare.example" },
		Own: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &ownPair, nil },
	})
	acmeCert, acmeKey := a.pem(month, "issued.example")
	otherCert, otherKey := a.pem(month, "a.example", "second.example")
	renewedCert, renewedKey := a.pem(month, "old.example", "renewed.example")
	s.Issued(map[string][]byte{
		"issued.example": append(acmeCert, acmeKey...), "a.example": append(otherCert, otherKey...), "old.example": append(renewedCert, renewedKey...),
	})
	for _, test := range []struct{ name, want string }{
		{"a.example", "a.example"}, {"A.Example.", "a.example"}, // files before ACME
		{"exact.wild.example", "exact.wild.example"}, {"any.wild.example", "a.example"}, {"ANY.wild.example", "a.example"},
		{"a.b.wild.example", "a.example"}, // no service: the first one's
		{"", "a.example"}, {"sin1.a.example", "a.example"},
		{"issued.example", "issued.example"}, {"second.example", "a.example"},
		{"bare.example", "own.example"}, // a service without a certificate
		{"old.example", "old.example"},
	} {
		if got := shown(s, test.name); got != test.want {
			t.Errorf("%q: got that of %s, want that of %s", test.name, got, test.want)
		}
	}
	c, _ := s.Certificate(&tls.ClientHelloInfo{ServerName: "old.example"})
	if time.Now().After(c.Leaf.NotAfter) {
		t.Error("an expired file stands before a certificate of ACME that is good")
	}
	if got := shown(open(t, Config{}), "a.example"); got != ErrNone.Error() {
		t.Errorf("without any: got %s", got)
	}
	if n := testing.AllocsPerRun(100, func() { shownLower(s) }); n > 0 {
		t.Errorf("a choice allocates %v times", n)
	}
}

var someHello = &tls.ClientHelloInfo{ServerName: "any.wild.example"}

func shownLower(s *Source) { _, _ = s.Certificate(someHello) }

// TestFilesChangeUnderLoad replaces a pair again and again while clients connect, half of the time with files that do not belong together.
func TestFilesChangeUnderLoad(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	cert, key := a.pem(month, "a.example")
	pair := write(t, dir, "a", cert, key)
	s := open(t, Config{Pairs: []Pair{pair}})
	server := serveTLS(t, func() *tls.Config { return &tls.Config{GetCertificate: s.Certificate, MinVersion: tls.VersionTLS13} })
	ctx, stop := context.WithCancel(t.Context())
	var (
		running    sync.WaitGroup
		handshakes = make(chan struct{})
		seen       sync.Map
	)
	defer running.Wait()
	defer stop()
	for range 2 {
		running.Go(func() {
			for ctx.Err() == nil {
				state, err := connect(server, "a.example", a.Pool(), nil)
				if err != nil {
					t.Errorf("a handshake failed: %v", err)
					return
				}
				seen.Store(state.PeerCertificates[0].SerialNumber.String(), true)
				select {
				case handshakes <- struct{}{}:
				case <-ctx.Done():
				}
			}
		})
	}
	await := func(n int) {
		for range n {
			select {
			case <-handshakes:
			case <-time.After(10 * time.Second):
				t.Fatal("clients do not go on")
			}
		}
	}
	for range 20 {
		next, nextKey := a.pem(month, "a.example")
		write(t, dir, "a", next, key) // which is not its key
		s.Reload()
		await(2)
		write(t, dir, "a", next, nextKey)
		s.Reload()
		await(4) // of which at most two began before
		key = nextKey
	}
	count := 0
	seen.Range(func(_, _ any) bool { count++; return true })
	if count < 20 {
		t.Errorf("clients have seen %d certificates, want all 21 or but one", count)
	}
	if got := s.failures.Load(); got != 20 {
		t.Errorf("%d failures were counted, want 20", got)
	}
}

func TestFolder(t *testing.T) {
	a, dir := newAuthority(t), t.TempDir()
	var log bytes.Buffer
	s := open(t, Config{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
	expect := func(what, name, want string) {
		t.Helper()
		s.Reload()
		if got := shown(s, name); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	none := ErrNone.Error()
	expect("empty", "a.example", none)
	cert, key := a.pem(month, "a.example")
	pair := write(t, dir, "a", cert, key)
	expect("added", "a.example", "a.example")
	for what, breaks := range map[string]func() error{
		"cut off":         func() error { return os.WriteFile(pair.Cert, cert[:len(cert)/2], 0o600) },
		"no key":          func() error { return os.Remove(pair.Key) },
		"readable key":    func() error { return errors.Join(os.WriteFile(pair.Key, key, 0o600), os.Chmod(pair.Key, 0o644)) },
		"empty":           func() error { return os.WriteFile(pair.Key, nil, 0o600) },
		"no name in it":   func() error { c, k := a.pem(month, "192.0.2.1"); write(t, dir, "a", c, k); return nil },
		"another without": func() error { c, k := a.pem(month, "192.0.2.1"); write(t, dir, "b", c, k); return nil },
	} {
		failures := s.failures.Load()
		if err := breaks(); err != nil {
			t.Fatal(err)
		}
		expect(what, "a.example", "a.example")
		expect(what, "a.example", "a.example")
		if s.failures.Load() == failures {
			t.Errorf("%s: no failure was counted", what)
		}
		write(t, dir, "a", cert, key)
		os.Remove(filepath.Join(dir, "b.pem"))
		os.Remove(filepath.Join(dir, "b.key"))
		s.Reload()
	}
	if strings.Contains(log.String(), "PRIVATE") || !strings.Contains(log.String(), "is not used") {
		t.Errorf("got the log\n%s", &log)
	}
	if err := errors.Join(os.Remove(pair.Cert), os.Remove(pair.Key)); err != nil {
		t.Fatal(err)
	}
	expect("removed", "a.example", none)
	if _, err := Open(Config{Pairs: []Pair{pair}}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a named file that is missing: got %v", err)
	}
	if _, err := Open(Config{Dir: filepath.Join(dir, "none")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a folder that is missing: got %v", err)
	}
}

func TestIssued(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.pem(month, "a.example")
	_, wrong := a.pem(month, "a.example")
	s := open(t, Config{})
	s.Issued(map[string][]byte{"a.example": append(cert, key...)})
	s.Issued(map[string][]byte{"a.example": append(cert, wrong...)})
	if got := shown(s, "a.example"); got != "a.example" || s.failures.Load() != 1 {
		t.Errorf("after a broken one: got %s, %d failures", got, s.failures.Load())
	}
	s.Issued(nil)
	if got := shown(s, "a.example"); got != ErrNone.Error() {
		t.Errorf("after it was taken away: got %s", got)
	}
}

// FuzzBundle reads what was sealed by who else has the recipients.
func FuzzBundle(f *testing.F) {
	cert, key := newAuthority(f).pem(month, "a.example")
	f.Add(append(cert, key...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if c, err := parseBundle(text); err == nil && (c.Leaf == nil || c.PrivateKey == nil || len(c.Leaf.DNSNames) == 0) {
			t.Errorf("taken: %+v", c)
		}
	})
}

func Example() {
	source, err := Open(Config{First: func() string { return "intake.example.net" }})
	if err != nil {
		panic(err)
	}
	config := &tls.Config{GetCertificate: source.Certificate}
	_, err = config.GetCertificate(&tls.ClientHelloInfo{ServerName: "intake.example.net"})
	fmt.Println(err, len(source.TicketKeys()))
	// Output: there is no certificate of that name 3
}
