package scenario

import "testing"

const example = `
scenario: two-regions
summary: Two regions.
scales: [flow]
duration: 24h
seeds: [1, 2, 3]
policies: [ours, anycast]
world:
  pops: {count: 40, capacity: 1.5, shares: {fra1: 0.1}}
  clusters: {at: [IAD, FRA]}
  policy: {rank: rtt, within: 2ms}
  clients:
    count: 1000000
    access: [{line: fibre, part: 0.5}, {line: datacentre, part: 0.5}]
    near: [{place: SIN, weight: 1}, {place: "50.1,8.7,DE", weight: 2}]
    resolvers: {public: 0.3, ecs: 0.2}
  network: {spread: 0, rtt: {"sin,iad": 230ms}}
timeline:
  - {at: 6h, lose: [largest], for: 1h}
  - {at: 12h, crowd: {near: SIN, within: 50ms, factor: 10, ramp: 5m}}
assert:
  - {that: "ours/rtt.p99 <= 80 ms"}
  - {that: "ours/rtt.mean <= 1.03 * anycast/rtt.mean", full: true}
short: {clients: 10000, pops: 12, duration: 8h, seeds: [1]}
`

func TestParse(t *testing.T) {
	s, err := Parse([]byte(example))
	if err != nil {
		t.Fatal(err)
	}
	if s.World.Clients.Rate != 0.02 || *s.World.Network.Spread != 0 || *s.World.Network.Detours != 0.03 {
		t.Errorf("defaults: got %+v", s.World)
	}
}
