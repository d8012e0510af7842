package scenario

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

const varied = `scenario: varied
scales: [flow]
world:
  pops: {count: 12}
  clusters: {at: [IAD]}
  clients: {count: 1000, resolvers: {public: 0.4, farm: 3}}
variants:
  - {name: plain, world: {}}
  - {name: with-ecs, world: {scopes: echo, clients: {resolvers: {public: 0, ecs: 0.4}}}}
  - {name: fewer, world: {pops: {count: 6}}}
assert:
  - {that: with-ecs/rtt.mean <= 0.9 * plain/ours/rtt.mean}
  - {that: fewer/flow/ours/rtt.mean >= plain/rtt.mean}
short: {clients: 100}
`

func TestVariants(t *testing.T) {
	s, err := Parse([]byte(varied))
	if err != nil {
		t.Fatal(err)
	}
	plain, ecs, fewer := s.Vary("plain").World, s.Vary("with-ecs").World, s.Vary("fewer").World
	if plain.Clients.Resolvers.Public != 0.4 || plain.PoPs.Count != 12 || plain.Scopes != ScopesOurs {
		t.Errorf("a variant that says nothing is %+v", plain)
	}
	if r := ecs.Clients.Resolvers; r.Public != 0 || r.ECS != 0.4 || r.Farm != 3 || ecs.Clients.Count != 1000 || ecs.Scopes != ScopesEcho {
		t.Errorf("what a variant does not say is %+v", ecs)
	}
	if fewer.PoPs.Count != 6 || len(s.Vary("fewer").Variants) > 0 {
		t.Errorf("got %+v", fewer.PoPs)
	}
	if short := s.ShortForm().Vary("fewer").World; short.Clients.Count != 100 || short.PoPs.Count != 6 || s.Vary("fewer").World.Clients.Count != 1000 {
		t.Errorf("the short form has %d clients", short.Clients.Count)
	}
	run := func(variant string, ms float64) *Run {
		return &Run{Variant: variant, Scale: Flow, Policy: Ours, Figures: map[string]Figure{"rtt.mean": {ms, "ms"}}}
	}
	outcomes, err := Check(s, []*Run{run("plain", 20), run("with-ecs", 10), run("fewer", 19)})
	if err != nil || !outcomes[0].Held || outcomes[1].Held {
		t.Errorf("got %+v, %v", outcomes, err)
	}
}

func TestFaultsOfVariants(t *testing.T) {
	for change, want := range map[string]string{
		"name: fewer":         "variants[2].name: ours is the name of a scale or a policy already",
		"count: 6":            "variants[2].world.pops.count: 0 is not in 1..500",
		"pops: {count: 6}":    "unknown",
		"plain/ours/rtt.mean": "assert[0].that",
	} {
		with := map[string]string{"name: fewer": "name: ours", "count: 6": "count: 0", "pops: {count: 6}": "pobs: {count: 6}", "plain/ours/rtt.mean": "plane/ours/rtt.mean"}[change]
		_, err := Parse([]byte(strings.Replace(varied, change, with, 1)))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q in it", with, err, want)
		}
	}
}

// TestVariantsReadFiles reads what a variant names.
func TestVariantsReadFiles(t *testing.T) {
	text := strings.Replace(varied, "world: {pops: {count: 6}}", "world: {network: {matrix: rtts.csv}}", 1)
	files := fstest.MapFS{"a/b.yaml": {Data: []byte(text)}, "a/rtts.csv": {Data: []byte("from,to,rtt_ms\nIAD,FRA,90\n")}}
	s, err := Load("a/b.yaml", func(name string) ([]byte, error) { return fs.ReadFile(files, name) })
	if err != nil {
		t.Fatal(err)
	}
	if m := s.Vary("fewer").World.Network.Measured; m == nil || m.Len() != 1 || s.World.Network.Measured != nil {
		t.Errorf("got %v", m)
	}
	delete(files, "a/rtts.csv")
	if _, err := Load("a/b.yaml", func(name string) ([]byte, error) { return fs.ReadFile(files, name) }); err == nil || !strings.Contains(err.Error(), "variants[2].world.network.matrix") {
		t.Errorf("got %v", err)
	}
}
