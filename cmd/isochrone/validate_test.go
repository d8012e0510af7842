package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"
)

// signedZones are zones with one of each case that a validator knows: the example zone, which is signed; a child of it that is not; and a
// child of it that is, with a service of its own, and times to live of a second.
const signedZones = `schema: 1
zones:
  isochrone.test:
    nameservers: {ns1.isochrone.test: [127.0.0.1]}
    hostmaster: hostmaster.isochrone.test
    ttl: 5m
    negative_ttl: 1m
    records:
      - www A 192.0.2.1
      - www AAAA 2001:db8::1
      - '@ TXT "a text"'
      - '*.wild A 192.0.2.2'
      - '*.wild TXT "for everybody"'
      - here.wild A 192.0.2.3
      - alias CNAME intake
      - far CNAME anybody.wild
      - nowhere CNAME no-such-name
      - away CNAME www.plain
      - a.deep.name TXT "below names without records"
      - elsewhere NS ns.elsewhere
      - ns.elsewhere A 127.0.0.1
  plain.isochrone.test:
    nameservers: {ns1.isochrone.test: []}
    hostmaster: hostmaster.isochrone.test
    records: [www A 192.0.2.4]
  geo.isochrone.test:
    nameservers: {ns1.geo.isochrone.test: [127.0.0.1]}
    hostmaster: hostmaster.isochrone.test
    ttl: 1s
    negative_ttl: 1s
    records:
      - www A 192.0.2.5
      - '*.wild A 192.0.2.6'
services:
  edge.geo.isochrone.test:
    steering: {ttl: 1s}
`

// signedDNS is a DNS node that serves those zones, with keys.
type signedDNS struct {
	*dnsProcess
	t   *testing.T
	dir string
}

// startSigned starts a DNS node with signed zones.
func startSigned(t *testing.T, world *running, flags ...string) *signedDNS {
	t.Helper()
	s := &signedDNS{t: t, dir: t.TempDir()}
	document := filepath.Join(t.TempDir(), "zones.yaml")
	if err := os.WriteFile(document, []byte(signedZones), 0o600); err != nil {
		t.Fatal(err)
	}
	world.run(t, "topology", "apply", "-f", document)
	s.keys(world, "keygen isochrone.test")
	s.keys(world, "keygen geo.isochrone.test --algorithm ed25519")
	s.dnsProcess = startDNS(t, world, s.dir, append([]string{"--etcd", world.Etcd, "--rate-limit", "0"}, flags...)...)
	s.metric(t, `isochrone_dns_zone_signed{zone="isochrone.test."}`, "1")
	s.metric(t, `isochrone_dns_zone_signed{zone="geo.isochrone.test."}`, "1")
	return s
}

// keys runs a command about keys.
func (s *signedDNS) keys(world *running, line string) string {
	s.t.Helper()
	return mustRun(s.t, append(strings.Fields("dns "+line), "--dir", s.dir, "--etcd", world.Etcd)...)
}

// validated is a question, and what a validator says of the answer.
type validated struct {
	name  string
	qtype string
	says  string // as delv does
}

const (
	secure           = "fully validated"
	secureNegative   = "negative response, fully validated"
	insecure         = "unsigned answer"
	insecureNegative = "negative response, unsigned answer"
)

var validatedQuestions = []validated{
	{"www.isochrone.test", "A", secure},
	{"isochrone.test", "SOA", secure},
	{"isochrone.test", "NS", secure},
	{"www.isochrone.test", "TXT", secureNegative},
	{"no-such-name.isochrone.test", "A", secureNegative},
	{"deep.name.isochrone.test", "A", secureNegative}, // which has no records, and is there
	{"anybody.wild.isochrone.test", "A", secure},
	{"some.body.wild.isochrone.test", "TXT", secure},
	{"anybody.wild.isochrone.test", "AAAA", secureNegative},
	{"other.here.wild.isochrone.test", "A", secureNegative}, // below a name that is there, and so not of the wildcard
	{"intake.isochrone.test", "A", secure},
	{"intake.isochrone.test", "HTTPS", secure},
	{"intake.isochrone.test", "AAAA", secureNegative},
	{"sin1.intake.isochrone.test", "A", secure},
	{"alias.isochrone.test", "A", secure},
	{"far.isochrone.test", "A", secure},
	{"away.isochrone.test", "A", secure + "; " + insecure},
	{"www.plain.isochrone.test", "A", insecure},
	{"no-such-name.plain.isochrone.test", "A", insecureNegative},
	{"plain.isochrone.test", "DS", secureNegative},
	{"elsewhere.isochrone.test", "DS", secureNegative},
	{"geo.isochrone.test", "DS", secure},
	{"edge.geo.isochrone.test", "HTTPS", secure},
	{"no-such-name.geo.isochrone.test", "TXT", secureNegative},
}

// validates asks all questions, by delv and by unbound.
func validates(t *testing.T, when, at, anchors string, questions []validated) {
	t.Helper()
	resolver := startUnbound(t, at, anchors)
	for _, q := range questions {
		if said, out := delv(t, at, "isochrone.test", anchors, q.name, q.qtype); said != q.says {
			t.Errorf("%s: delv %s %s: got %s, want %s:\n%s", when, q.name, q.qtype, said, q.says, out)
		}
		if err := resolver.validates(q); err != nil {
			t.Errorf("%s: unbound: %v", when, err)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
}

// validates asks a question whose answer is told to be secure or not, as it should be.
func (u *unbound) validates(q validated) error {
	answer, err := askFor(u.at, q.name, mdns.StringToType[q.qtype])
	if err != nil {
		return fmt.Errorf("%s %s: %w", q.name, q.qtype, err)
	}
	isSecure, isNegative := q.says == secure || q.says == secureNegative, q.says == secureNegative || q.says == insecureNegative
	wrongCode := answer.Rcode != mdns.RcodeSuccess && !(isNegative && answer.Rcode == mdns.RcodeNameError)
	if wrongCode || answer.AuthenticatedData != isSecure || isNegative != (len(answer.Answer) == 0) {
		return fmt.Errorf("%s %s: want %s, got\n%v", q.name, q.qtype, q.says, answer)
	}
	return nil
}

// inUse waits until the DNS node has taken over what a step of a roll says.
func (s *signedDNS) inUse(zone, when string, keys, dnskeySigners, zoneSigners []string) {
	s.t.Helper()
	list := func(tags []string) string {
		numbers := make([]int, len(tags))
		for i, tag := range tags {
			fmt.Sscan(tag, &numbers[i])
		}
		slices.Sort(numbers)
		return fmt.Sprint(numbers)
	}
	want := "keys " + list(keys) + ", signed by " + list(dnskeySigners) + ", zone signed by " + list(zoneSigners)
	eventually(s.t, when+": "+want, func() error {
		got, err := keysInUse(s.DNS, zone)
		if err == nil && got != want {
			err = errors.New(got)
		}
		return err
	})
}

// tagsOf returns the tags of a zone's keys of a role, in the order in which they came.
func (s *signedDNS) tagsOf(world *running, zone, role string) []string {
	s.t.Helper()
	var tags []string
	for _, found := range regexp.MustCompile(`(?m)`+regexp.QuoteMeta(zone)+` +`+role+` +(\d+) `).FindAllStringSubmatch(s.keys(world, "keys "+zone), -1) {
		tags = append(tags, found[1])
	}
	return tags
}

// rolls replaces both keys of a zone, and calls a function after each step, which is in force then. DS is whether the parent is to
// exchange its DS records now.
func (s *signedDNS) rolls(world *running, zone string, after func(when string, ds bool)) {
	s.t.Helper()
	ksks := func() []string { return s.tagsOf(world, zone, "ksk") }
	zsks := func() []string { return s.tagsOf(world, zone, "zsk") }
	ksk, zsk := ksks()[0], zsks()[0]
	step := func(when, line string, zoneSigner func() string, ds bool) {
		s.t.Helper()
		s.keys(world, "roll "+zone+" "+line)
		s.inUse(zone, when, append(ksks(), zsks()...), ksks(), []string{zoneSigner()})
		after(when, ds)
	}
	first := func() string { return zsks()[0] }
	last := func() string { all := zsks(); return all[len(all)-1] }

	step("new ZSK published", "zsk", first, false)
	step("new ZSK signs", "--next --force", last, false)
	step("old ZSK gone", "--next --force", last, false)
	step("new KSK signs as well", "ksk", last, false)
	step("new DS wanted", "--next --force", last, false)
	step("new DS seen", "--next --force --ds-seen", last, true)
	step("old KSK gone", "--next --force", last, false)
	if k, z := ksks(), zsks(); len(k) != 1 || len(z) != 1 || k[0] == ksk || z[0] == zsk {
		s.t.Errorf("the keys are %v and %v, and were %s and %s", k, z, ksk, zsk)
	}
}

// TestValidators rolls both keys, with validators that have nothing in a cache: unbound is another one after each step.
func TestValidators(t *testing.T) {
	t.Parallel()
	need(t, "delv")
	need(t, "unbound")
	world := startUp(t, "")
	s := startSigned(t, world)
	anchors := s.keys(world, "ds isochrone.test")
	validates(t, "before", s.DNS, anchors, validatedQuestions)
	if said, out := delv(t, s.DNS, "isochrone.test", anchors[:len(anchors)-9]+"01234567", "www.isochrone.test", "A"); said == secure {
		t.Errorf("delv with an anchor of another key: %s", out)
	}
	s.rolls(world, "isochrone.test", func(when string, ds bool) {
		if ds {
			before := anchors
			if anchors = s.keys(world, "ds isochrone.test"); anchors == before || strings.Count(anchors, "\n") != 1 {
				t.Fatalf("the DS record was %s, is %s", before, anchors)
			}
		}
		validates(t, when, s.DNS, anchors, validatedQuestions)
	})
}
