package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// transferSecret is the TSIG key that zones are transferred with in tests.
var transferSecret = base64.StdEncoding.EncodeToString([]byte("a secret of thirty-two letters !"))

// transferKey is that key, as kdig reads it.
var transferKey = "hmac-sha256:transfer.test:" + transferSecret

// writeTSIG writes it as a DNS node reads it.
func writeTSIG(t *testing.T, file string) {
	t.Helper()
	text := "- {name: transfer.test, algorithm: hmac-sha256, secret: " + transferSecret + "}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// startPrimary starts a DNS node with signed zones that may be transferred with a TSIG key, and notifies secondaries.
func startPrimary(t *testing.T, world *running, secondaries ...netip.AddrPort) *signedDNS {
	t.Helper()
	keys := filepath.Join(t.TempDir(), "tsig.yaml")
	writeTSIG(t, keys)
	flags := []string{"--tsig-file", keys}
	for _, at := range secondaries {
		flags = append(flags, "--notify", at.String()+"/transfer.test")
	}
	return startSigned(t, world, flags...)
}

// startNSD starts NSD as a secondary of a zone.
func startNSD(t *testing.T, at, primary netip.AddrPort, zone string) *process {
	t.Helper()
	return serve(t, at, zone, fmt.Sprintf(`server:
  ip-address: %[1]s
  port: %[2]d
  server-count: 1
  username: ""
  zonesdir: %[3]q
  database: ""
  pidfile: ""
  zonelistfile: "zone.list"
  xfrdfile: "xfrd.state"
  xfrdir: %[3]q
  verbosity: 2
  xfrd-reload-timeout: 0
  rrl-ratelimit: 0
remote-control:
  control-enable: no
key:
  name: "transfer.test"
  algorithm: hmac-sha256
  secret: %[4]q
zone:
  name: %[5]q
  zonefile: "zone"
  request-xfr: AXFR %[6]s@%[7]d transfer.test
  allow-notify: 127.0.0.1 transfer.test
  provide-xfr: 127.0.0.1 NOKEY
`, at.Addr(), at.Port(), t.TempDir(), transferSecret, zone, primary.Addr(), primary.Port()), "nsd", "-d", "-c", "%s")
}

// startKnot starts Knot DNS as a secondary of a zone, which takes over only what validates.
func startKnot(t *testing.T, at, primary netip.AddrPort, zone string) *process {
	t.Helper()
	return serve(t, at, zone, fmt.Sprintf(`server:
  rundir: %[1]q
  listen: "%[2]s@%[3]d"
database:
  storage: %[1]q
log:
  - target: stderr
    any: info
key:
  - id: transfer.test
    algorithm: hmac-sha256
    secret: %[4]s
remote:
  - id: primary
    address: "%[5]s@%[6]d"
    key: transfer.test
acl:
  - id: from-primary
    address: 127.0.0.1
    key: transfer.test
    action: notify
  - id: to-us
    address: 127.0.0.1
    action: transfer
template:
  - id: default
    storage: %[1]q
zone:
  - domain: %[7]s
    master: primary
    acl: [from-primary, to-us]
    dnssec-validation: on
`, t.TempDir(), at.Addr(), at.Port(), transferSecret, primary.Addr(), primary.Port(), zone), "knotd", "-c", "%s")
}

// follows waits until a secondary has the primary's serial, which nothing but a NOTIFY tells it soon: SOA refresh is an hour.
func (s *signedDNS) follows(secondary netip.AddrPort, zone string) {
	s.t.Helper()
	eventually(s.t, secondary.String()+" to have the serial of "+zone, func() error {
		want, err := serialOf(s.DNS, zone)
		if err != nil {
			return err
		}
		got, err := serialOf(secondary.String(), zone)
		if err == nil && got != want {
			err = fmt.Errorf("got %d, want %d", got, want)
		}
		return err
	})
}

// secondaryQuestions are asked of a secondary of the example zone, which knows no other zone.
var secondaryQuestions = []validated{
	{"www.isochrone.test", "A", secure},
	{"isochrone.test", "SOA", secure},
	{"www.isochrone.test", "TXT", secureNegative},
	{"no-such-name.isochrone.test", "A", secureNegative},
	{"zzz.isochrone.test", "A", secureNegative}, // after all names
	{"deep.name.isochrone.test", "A", secureNegative},
	{"no-such-name.deep.name.isochrone.test", "A", secureNegative},
	{"anybody.wild.isochrone.test", "A", secure},
	{"some.body.wild.isochrone.test", "TXT", secure},
	{"anybody.wild.isochrone.test", "AAAA", secureNegative},
	{"other.here.wild.isochrone.test", "A", secureNegative},
	{"intake.isochrone.test", "A", secure},
	{"intake.isochrone.test", "HTTPS", secure},
	{"intake.isochrone.test", "AAAA", secureNegative},
	{"explain.intake.isochrone.test", "TXT", secure},
	{"sin1.intake.isochrone.test", "A", secure},
	{"alias.isochrone.test", "A", secure},
	{"far.isochrone.test", "A", secure},
	{"plain.isochrone.test", "DS", secureNegative},
	{"elsewhere.isochrone.test", "DS", secureNegative},
	{"geo.isochrone.test", "DS", secure},
}

// zoneAt transfers a zone from a secondary into a file.
func zoneAt(t *testing.T, at netip.AddrPort, zone string) (file string) {
	t.Helper()
	envelopes, err := new(mdns.Transfer).In(new(mdns.Msg).SetAxfr(zone+"."), at.String())
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	records := 0
	for e := range envelopes {
		if e.Error != nil {
			t.Fatal(e.Error)
		}
		for _, rr := range e.RR {
			if records++; records == 1 || rr.Header().Rrtype != mdns.TypeSOA {
				fmt.Fprintln(&text, rr)
			}
		}
	}
	file = filepath.Join(t.TempDir(), "zone")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestSecondaries transfers a signed zone to servers of others, which answer as they please: with real proofs, out of a real chain.
func TestSecondaries(t *testing.T) {
	t.Parallel()
	const zone = "isochrone.test"
	for _, tool := range []string{"nsd", "knotd", "delv", "unbound", "ldns-verify-zone"} {
		need(t, tool)
	}
	world := startStore(t)
	secondaries := map[string]netip.AddrPort{"nsd": ownAddr(t), "knotd": ownAddr(t)}
	s := startPrimary(t, world, secondaries["nsd"], secondaries["knotd"])
	primary := netip.MustParseAddrPort(s.DNS)
	startNSD(t, secondaries["nsd"], primary, zone)
	startKnot(t, secondaries["knotd"], primary, zone)
	anchors := s.keys(world, "ds "+zone)
	check := func(when string) {
		t.Helper()
		for tool, at := range secondaries {
			s.follows(at, zone)
			validates(t, when+", "+tool, at.String(), anchors, secondaryQuestions)
			if out, err := exec.Command(need(t, "ldns-verify-zone"), zoneAt(t, at, zone)).CombinedOutput(); err != nil {
				t.Errorf("%s, %s: ldns-verify-zone: %v: %s", when, tool, err, out)
			}
			answer, err := askFor(at.String(), "no-such-name."+zone, mdns.TypeA)
			if err != nil || answer.Rcode != mdns.RcodeNameError {
				t.Errorf("%s, %s: a name that does not exist: got %v, %v", when, tool, answer, err)
			}
		}
	}
	check("first")

	// Of an edit both are told, and have it at once; so of keys.
	before, err := serialOf(s.DNS, zone)
	if err != nil {
		t.Fatal(err)
	}
	applyObjects(t, world, strings.Replace(signedZones, "192.0.2.1\n", "192.0.2.99\n", 1))
	for tool, at := range secondaries {
		eventually(t, tool+" to have the edit", func() error {
			answer, err := askFor(at.String(), "www."+zone, mdns.TypeA)
			if err == nil && !strings.Contains(answer.String(), "\t192.0.2.99\n") {
				err = errors.New(answer.String())
			}
			return err
		})
		if got, err := serialOf(at.String(), zone); err != nil || got <= before {
			t.Errorf("%s: the serial is %d, was %d, %v", tool, got, before, err)
		}
	}
	check("after an edit")

	// A resolver that asks now these servers and now that one has proofs of both kinds in its cache.
	servers := s.DNS + " " + secondaries["nsd"].String() + " " + secondaries["knotd"].String()
	resolver := startUnbound(t, servers, anchors, "aggressive-nsec: yes", "cache-max-ttl: 1")
	var next atomic.Uint64
	l := startLoad(t, 5*time.Millisecond, func() error {
		n := next.Add(1)
		if n%8 == 0 {
			return resolver.validates(validated{fmt.Sprintf("n%d.%s", n, zone), "A", secureNegative})
		}
		return resolver.validates(secondaryQuestions[n%uint64(len(secondaryQuestions))])
	})
	l.more(t)
	l.end(t)

	s.rolls(world, zone, func(when string, ds bool) {
		if ds {
			anchors = s.keys(world, "ds "+zone)
		}
		for tool, at := range secondaries {
			s.follows(at, zone)
			validates(t, when+", "+tool, at.String(), anchors, secondaryQuestions[:6])
		}
	})
	check("after all")
}
