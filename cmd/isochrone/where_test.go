package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestWhere asks a running world which PoP a machine on loopback is on.
func TestWhere(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	found := decode[whereabouts](t, r.run(t, "where", "-o", "json"))
	if len(found.Choices) < 2 || found.Choices[0].PoP != "fra1" || found.Choices[0].Protocol != "h3" || found.Choices[0].RoundTripMS <= 0 || len(found.Why) == 0 {
		t.Errorf("got %+v", found)
	}
	if first := found.Choices[0]; first.Cluster != "eu" || first.RTTMS <= 0 || first.Certificate == nil || !strings.Contains(first.Certificate.Issuer, "Isochrone") ||
		!slices.Contains(first.Certificate.Names, "intake.isochrone.test") || first.Certificate.Expires.Before(time.Now()) {
		t.Errorf("got %+v with the certificate %+v", first, first.Certificate)
	}
	for _, want := range []string{"smoothed RTT", "forwards to eu next", "certificate by"} {
		if said := r.run(t, "where"); !strings.Contains(said, want) {
			t.Errorf("%q is not in %s", want, said)
		}
	}
	over := decode[whereabouts](t, r.run(t, "where", "intake.isochrone.test", "--h2", "-o", "json"))
	if over.Choices[0].Protocol != "h2" || over.Choices[0].HandshakeMS <= 0 || over.Choices[0].Certificate == nil {
		t.Errorf("over TCP: got %+v", over)
	}
}
