package packet

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
)

// scene reads a scenario and builds its world.
func scene(t *testing.T, text string, seed uint64) (*scenario.Scenario, *world.World) {
	t.Helper()
	s, err := scenario.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Build(s.World, seed)
	if err != nil {
		t.Fatal(err)
	}
	return s, w
}

const small = `
scenario: small
summary: four cities
scales: [packet]
world:
  pops: {at: [SIN, FRA, IAD]}
  clusters: {at: [IAD, FRA]}
  clients:
    count: 20
    near: [{place: SIN, weight: 1}, {place: FRA, weight: 1}, {place: IAD, weight: 1}, {place: GRU, weight: 1}]
  network: {jitter: false}
`

func TestOnePostEach(t *testing.T) {
	s, w := scene(t, small, 1)
	begin := time.Now()
	run, err := Run(context.Background(), s, w, scenario.Ours, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := json.MarshalIndent(run.Figures, "", " ")
	t.Logf("%v %s\n%v %v", time.Since(begin), text, run.Notes, run.PoPs)
}
