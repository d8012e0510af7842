package main

import "testing"

// TestWhere asks a running world which PoP a machine on loopback is on.
func TestWhere(t *testing.T) {
	t.Parallel()
	r := startUp(t, "")
	found := decode[whereabouts](t, r.run(t, "where", "-o", "json"))
	if len(found.Choices) < 2 || found.Choices[0].PoP != "fra1" || found.Choices[0].Protocol != "h3" || found.Choices[0].RoundTripMS <= 0 || len(found.Why) == 0 {
		t.Errorf("got %+v", found)
	}
	over := decode[whereabouts](t, r.run(t, "where", "intake.isochrone.test", "--h2", "-o", "json"))
	if over.Choices[0].Protocol != "h2" || over.Choices[0].HandshakeMS <= 0 {
		t.Errorf("over TCP: got %+v", over)
	}
}
