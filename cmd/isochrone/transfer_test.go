package main

import (
	"encoding/base64"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// axfr asks for a zone with a TSIG key, and returns what comes, or why nothing does.
func axfr(t *testing.T, at, zone, key string) string {
	t.Helper()
	server := netip.MustParseAddrPort(at)
	args := []string{"@" + server.Addr().String(), "-p", strconv.Itoa(int(server.Port())), zone, "AXFR", "+timeout=5", "+retry=0"}
	if key != "" {
		args = append(args, "-y", key)
	}
	out, _ := exec.CommandContext(t.Context(), need(t, "kdig"), args...).CombinedOutput() // it fails when it is refused
	return string(out)
}

// TestTransferWithoutTheKey asks for a zone as strangers do.
func TestTransferWithoutTheKey(t *testing.T) {
	t.Parallel()
	need(t, "kdig")
	const zone, record = "geo.isochrone.test", "192.0.2.5"
	s := startPrimary(t, startStore(t))
	another := base64.StdEncoding.EncodeToString([]byte("another one of thirty-two chars."))
	for _, c := range []struct{ name, key, says string }{
		{"no key", "", "REFUSED"},
		{"an unknown key", "hmac-sha256:stranger.test:" + transferSecret, "BADKEY"},
		{"another secret", "hmac-sha256:transfer.test:" + another, "BADSIG"},
		{"another algorithm", "hmac-sha512:transfer.test:" + transferSecret, "BADKEY"},
		{"the key", transferKey, record},
	} {
		if out := axfr(t, s.DNS, zone, c.key); !strings.Contains(out, c.says) || c.says != record && strings.Contains(out, record) {
			t.Errorf("%s: want %s, got\n%s", c.name, c.says, out)
		}
	}
}

// TestTransferWithoutPrivateKeys has a primary that cannot sign yet: its secondaries keep what they have.
func TestTransferWithoutPrivateKeys(t *testing.T) {
	t.Parallel()
	need(t, "nsd")
	need(t, "kdig")
	const zone = "isochrone.test"
	world, at := startStore(t), ownAddr(t)
	s := startPrimary(t, world)
	keys, away := filepath.Join(s.dir, "dnssec-keys"), filepath.Join(s.dir, "away")
	if err := os.Rename(keys, away); err != nil {
		t.Fatal(err)
	}
	tsig := filepath.Join(t.TempDir(), "tsig.yaml")
	writeTSIG(t, tsig)
	primary := startDNSIn(t, world, t.TempDir(), "--probe=false", "--etcd", world.Etcd, "--keys", keys,
		"--tsig-file", tsig, "--notify", at.String()+"/transfer.test")
	primary.isReady(t, 503, "no private file of its active keys")
	if out := axfr(t, primary.DNS, zone, transferKey); !strings.Contains(out, "SERVFAIL") {
		t.Errorf("got\n%s", out)
	}
	if err := os.Rename(away, keys); err != nil {
		t.Fatal(err)
	}
	startNSD(t, at, netip.MustParseAddrPort(primary.DNS), zone)
	validates(t, "with keys", at.String(), s.keys(world, "ds "+zone), secondaryQuestions)
}
