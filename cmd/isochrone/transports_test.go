package main

import (
	"crypto/x509"
	"encoding/pem"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/devca"
)

// certificateFiles writes a certificate of a CA for a name, with its key.
func certificateFiles(t *testing.T, ca *devca.CA, name string) (cert, key string) {
	t.Helper()
	made, err := ca.Certificate(name, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	files := map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: made.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der}}
	for path, block := range files {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestTransports asks by each transport, with a signed answer for a client subnet.
func TestTransports(t *testing.T) {
	t.Parallel()
	kdig := need(t, "kdig")
	const host = "ns1.isochrone.test"
	caDir := t.TempDir()
	ca, err := devca.Load(caDir)
	if err != nil {
		t.Fatal(err)
	}
	cert, key := certificateFiles(t, ca, host)
	tls, https := ownAddr(t), ownAddr(t)
	world := startStore(t)
	sin := netip.MustParseAddrPort(world.PoPs["sin1"]).Addr().String()
	s := startSigned(t, world, "--tls-listen", tls.String(), "--https-listen", https.String(),
		"--cert", cert, "--cert-key", key)
	s.leads(t, "singapore", "sin1")
	plain := netip.MustParseAddrPort(s.DNS)
	ask := func(at netip.AddrPort, flags ...string) (string, error) {
		args := []string{"@" + at.Addr().String(), "-p", strconv.Itoa(int(at.Port())), "intake.isochrone.test", "A",
			"+dnssec", "+subnet=" + sendPlaces["singapore"], "+timeout=5", "+retry=0"}
		out, err := exec.CommandContext(t.Context(), kdig, append(args, flags...)...).CombinedOutput()
		return string(out), err
	}
	trusted := "+tls-ca=" + devca.Path(caDir)
	for _, c := range []struct {
		transport string
		at        netip.AddrPort
		flags     []string
	}{
		{"udp", plain, []string{"+notcp"}},
		{"tcp", plain, []string{"+tcp"}},
		{"tls", tls, []string{"+tls", trusted, "+tls-hostname=" + host}},
		{"https", https, []string{"+https=" + host + "/dns-query", trusted, "+tls-hostname=" + host}},
		{"https", https, []string{"+https=" + host + "/dns-query", "+https-get", trusted, "+tls-hostname=" + host}},
	} {
		count := regexp.MustCompile(`isochrone_dns_questions_total\{transport="` + c.transport + `"\} (\d+)`)
		asked := func() string {
			_, body, err := s.get("/metrics")
			found := count.FindStringSubmatch(body)
			if err != nil || found == nil {
				t.Fatalf("got %v, %v", body, err)
			}
			return found[1]
		}
		before := asked()
		out, err := ask(c.at, c.flags...)
		subnet := ";; CLIENT-SUBNET: " + strings.TrimSuffix(sendPlaces["singapore"], "/24")
		for _, want := range []string{"status: NOERROR", "\tA\t" + sin + "\n", "\tRRSIG\tA 13 3 20 ", subnet} {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("%s %s: want %q, got %v:\n%s", c.transport, c.flags, want, err, out)
			}
		}
		if after := asked(); after == before {
			t.Errorf("%s %s: no question came that way", c.transport, c.flags)
		}
	}
	if out, err := ask(tls, "+tls", trusted, "+tls-hostname=ns2.isochrone.test"); err == nil && strings.Contains(out, "status:") {
		t.Errorf("another name: got\n%s", out)
	}
}
