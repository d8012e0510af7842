package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	mdns "github.com/miekg/dns"

	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
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

// startStore starts an etcd with the example world in it, of which nothing runs.
func startStore(t *testing.T) *running {
	t.Helper()
	etcd, client := startEtcd(t)
	pops, clusters, texts := map[string]netip.AddrPort{}, map[string]string{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 1, byte(i + 1)}), 443)
		texts[name] = pops[name].String()
	}
	for i, name := range topology.ExampleClusters {
		clusters[name] = fmt.Sprintf("http://127.0.0.1:%d", i+1)
	}
	example := topology.Example(netip.MustParseAddr("127.0.0.1"), pops, clusters)
	put := map[topology.Ref]topology.Object{}
	for _, r := range example.Refs() {
		put[r] = example.Object(r)
	}
	if _, err := store.New(client, storeRoot).Apply(t.Context(), store.Change{Put: put}); err != nil {
		t.Fatal(err)
	}
	return &running{Up: statedir.Up{Etcd: etcd.Endpoint(), PoPs: texts}}
}

// signedDNS is a DNS node that serves those zones, with keys.
type signedDNS struct {
	*dnsProcess
	t   *testing.T
	dir string
}

// startSigned starts a DNS node with signed zones, that takes all PoPs for well.
func startSigned(t *testing.T, world *running, flags ...string) *signedDNS {
	t.Helper()
	s := &signedDNS{t: t, dir: t.TempDir()}
	applyObjects(t, world, signedZones)
	s.keys(world, "keygen isochrone.test")
	s.keys(world, "keygen geo.isochrone.test --algorithm ed25519")
	s.dnsProcess = startDNSIn(t, world, s.dir, append([]string{"--etcd", world.Etcd, "--rate-limit", "0", "--probe=false"}, flags...)...)
	s.metric(t, `isochrone_dns_zone_signed{zone="isochrone.test"}`, "1")
	s.metric(t, `isochrone_dns_zone_signed{zone="geo.isochrone.test"}`, "1")
	return s
}

// applyObjects puts objects into a store.
func applyObjects(t *testing.T, world *running, objects string) {
	t.Helper()
	document := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(document, []byte(objects), 0o600); err != nil {
		t.Fatal(err)
	}
	mustRun(t, "topology", "apply", "-f", document, "--etcd", world.Etcd)
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

// validatedQuestions are asked before and after a roll, and the first of them at each of its steps.
var validatedQuestions = []validated{
	{"www.isochrone.test", "A", secure},
	{"www.isochrone.test", "TXT", secureNegative},
	{"no-such-name.isochrone.test", "A", secureNegative},
	{"anybody.wild.isochrone.test", "A", secure},
	{"intake.isochrone.test", "A", secure},
	{"intake.isochrone.test", "HTTPS", secure},
	{"alias.isochrone.test", "A", secure},
	{"www.plain.isochrone.test", "A", insecure},
	{"geo.isochrone.test", "DS", secure},
	{"isochrone.test", "SOA", secure},
	{"isochrone.test", "NS", secure},
	{"deep.name.isochrone.test", "A", secureNegative}, // which has no records, and is there
	{"some.body.wild.isochrone.test", "TXT", secure},
	{"anybody.wild.isochrone.test", "AAAA", secureNegative},
	{"other.here.wild.isochrone.test", "A", secureNegative}, // below a name that is there, and so not of the wildcard
	{"intake.isochrone.test", "AAAA", secureNegative},
	{"sin1.intake.isochrone.test", "A", secure},
	{"far.isochrone.test", "A", secure},
	{"away.isochrone.test", "A", secure + "; " + insecure},
	{"no-such-name.plain.isochrone.test", "A", insecureNegative},
	{"plain.isochrone.test", "DS", secureNegative},
	{"elsewhere.isochrone.test", "DS", secureNegative},
	{"edge.geo.isochrone.test", "HTTPS", secure},
	{"no-such-name.geo.isochrone.test", "TXT", secureNegative},
}

// atEachStep is how many of these questions are asked at each step of a roll.
const atEachStep = 9

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

// keyTags are the tags of a zone's keys, in the order in which they came.
type keyTags struct{ ksk, zsk []string }

// tagsOf returns the keys of a zone that the store has.
func (s *signedDNS) tagsOf(world *running, zone string) (tags keyTags) {
	s.t.Helper()
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(zone) + ` +(ksk|zsk) +(\d+) `)
	for _, found := range line.FindAllStringSubmatch(s.keys(world, "keys "+zone), -1) {
		if found[1] == "ksk" {
			tags.ksk = append(tags.ksk, found[2])
		} else {
			tags.zsk = append(tags.zsk, found[2])
		}
	}
	return tags
}

// rolls replaces both keys of a zone, and calls a function after each step, when it is in force. DS is whether the parent is to
// exchange its DS records now.
func (s *signedDNS) rolls(world *running, zone string, after func(when string, ds bool)) {
	s.t.Helper()
	before := s.tagsOf(world, zone)
	now := before
	for _, step := range []struct {
		when, line string
		signer     int // index of the ZSK that signs
		ds         bool
	}{
		{"new ZSK published", "zsk", 0, false},
		{"new ZSK signs", "--next --force", 1, false},
		{"old ZSK gone", "--next --force", 0, false},
		{"new KSK signs as well", "ksk", 0, false},
		{"new DS wanted", "--next --force", 0, false},
		{"new DS seen", "--next --force --ds-seen", 0, true},
		{"old KSK gone", "--next --force", 0, false},
	} {
		s.keys(world, "roll "+zone+" "+step.line)
		now = s.tagsOf(world, zone)
		want := fmt.Sprint("keys ", numbers(slices.Concat(now.ksk, now.zsk)), ", signed by ", numbers(now.ksk),
			", zone signed by ", numbers(now.zsk[step.signer:step.signer+1]))
		eventually(s.t, step.when+": "+want, func() error {
			got, err := keysInUse(s.DNS, zone)
			if err == nil && got != want {
				err = errors.New(got)
			}
			return err
		})
		after(step.when, step.ds)
	}
	if len(now.ksk) != 1 || len(now.zsk) != 1 || now.ksk[0] == before.ksk[0] || now.zsk[0] == before.zsk[0] {
		s.t.Errorf("the keys are %v, and were %v", now, before)
	}
}

// numbers reads tags, and sorts them.
func numbers(tags []string) (read []int) {
	for _, tag := range tags {
		n, _ := strconv.Atoi(tag) // which digits are
		read = append(read, n)
	}
	slices.Sort(read)
	return read
}

// TestValidators rolls both keys, with validators that have nothing in a cache: unbound is another one after each step.
func TestValidators(t *testing.T) {
	t.Parallel()
	need(t, "delv")
	need(t, "unbound")
	world := startStore(t)
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
		validates(t, when, s.DNS, anchors, validatedQuestions[:atEachStep])
	})
	validates(t, "after", s.DNS, anchors, validatedQuestions)
}
