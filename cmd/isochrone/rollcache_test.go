package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
)

// TestRollWithWarmCaches rolls both keys of a zone below one of ours, while a resolver validates questions all the time and forgets
// nothing before its time. The parent's DS record follows by itself. Steps come as soon as caches have had the time that a roll has
// to leave them, which is the times to live of the zone, of a second.
func TestRollWithWarmCaches(t *testing.T) {
	t.Parallel()
	const zone, ttl = "geo.isochrone.test", time.Second
	world := startStore(t)
	s := startSigned(t, world)
	resolver := startUnbound(t, s.DNS, s.keys(world, "ds isochrone.test"), "val-bogus-ttl: 60", "aggressive-nsec: yes")
	for _, q := range []validated{{"www." + zone, "A", ""}, {zone, "DNSKEY", ""}, {zone, "DS", ""}, {"edge." + zone, "HTTPS", ""}} {
		answer, err := askFor(s.DNS, q.name, mdns.StringToType[q.qtype])
		if err != nil || len(answer.Answer) == 0 || answer.Answer[0].Header().Ttl != uint32(ttl/time.Second) {
			t.Fatalf("%s %s: got %v, %v", q.name, q.qtype, answer, err)
		}
	}

	var next atomic.Uint64
	l := startLoad(t, 20*time.Millisecond, func() error { // old names, which caches know, and new ones
		n := next.Add(1)
		questions := []validated{
			{"www." + zone, "A", secure}, {"edge." + zone, "A", secure}, {"edge." + zone, "HTTPS", secure}, {"www." + zone, "TXT", secureNegative},
			{fmt.Sprintf("n%d.wild.%s", n, zone), "A", secure}, {fmt.Sprintf("n%d.%s", n, zone), "A", secureNegative},
			{zone, "DNSKEY", secure}, {zone, "DS", secure}, {"www.isochrone.test", "A", secure},
		}
		return resolver.validates(questions[n%uint64(len(questions))])
	})
	l.more(t)
	s.rolls(world, zone, func(when string, _ bool) {
		began := time.Now()
		eventually(t, when+" for long enough", func() error {
			if time.Since(began) < ttl+ttl/2 { // unbound counts in whole seconds
				return errors.New("not yet")
			}
			return nil
		})
		l.more(t)
	})
	l.end(t)
	t.Logf("%d answers were validated", l.answered.Load())
}
