package dataplane

import "github.com/isochrone/isochrone/topology"

// TakesEarly reports whether requests are taken in 0-RTT under a topology, nil for none: when a service requires an Idempotency-Key,
// without which they are answered 425 (RFC 8470).
func TakesEarly(snap *topology.Snapshot) bool {
	if snap == nil {
		return false
	}
	for _, s := range snap.Topology.Services {
		if s.Intake.IdempotencyKey == topology.IdempotencyRequired {
			return true
		}
	}
	return false
}
