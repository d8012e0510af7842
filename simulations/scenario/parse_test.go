package scenario

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const example = `scenario: two-regions
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

func parsed(tb testing.TB, text string) *Scenario {
	tb.Helper()
	s, err := Parse([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestParse(t *testing.T) {
	s := parsed(t, example)
	if s.World.Clients.Rate != 0.02 || *s.World.Network.Spread != 0 || *s.World.Network.Detours != 0.03 || s.World.Clients.Resolvers.Farm != 1 {
		t.Errorf("defaults: got %+v", s.World)
	}
	if s.World.Policy.Rank != "rtt" || time.Duration(s.World.Policy.Within) != 2*time.Millisecond {
		t.Errorf("policy: got %+v", s.World.Policy)
	}
	if got := s.Timeline[1].Kind(); got != "crowd" {
		t.Errorf("got event %q, want crowd", got)
	}
}

func TestShortForm(t *testing.T) {
	s := parsed(t, example)
	short := s.ShortForm()
	if short.World.Clients.Count != 10_000 || short.World.PoPs.Count != 12 || time.Duration(short.Duration) != 8*time.Hour || len(short.Seeds) != 1 {
		t.Errorf("got %+v", short)
	}
	if len(short.Timeline) != 1 || len(short.Asserts) != 1 {
		t.Errorf("got %d events and %d assertions, want 1 and 1", len(short.Timeline), len(short.Asserts))
	}
	if s.World.PoPs.Count != 40 || len(s.Timeline) != 2 || len(s.Asserts) != 2 {
		t.Error("the scenario has been changed")
	}
	if faults := short.Validate(); len(faults) > 0 {
		t.Errorf("the short form is not valid: %v", faults)
	}
}

// TestFaults changes one line of the example each and holds what is told to the line and the words.
func TestFaults(t *testing.T) {
	for _, test := range []struct{ old, text, want string }{
		{"scales: [flow]", "scales: [flwo]", `line 3: scales[0]: "flwo" is not known; did you mean flow?`},
		{"duration: 24h", "duraton: 24h", "line 4: duraton: unknown key; did you mean duration?"},
		{"duration: 24h", "duration: 24", `line 4: duration: "24" is not a duration such as 20s or 1h30m`},
		{"seeds: [1, 2, 3]", "seeds: [1, 1]", "line 5: seeds[1]: 1 stands here twice"},
		{"seeds: [1, 2, 3]", "seeds: [-1]", `line 5: seeds[0]: "-1" is not a whole number in 0..18446744073709551615`},
		{"policies: [ours, anycast]", "policies: [our, anycast]", "policies[0]: \"our\" is not known; did you mean ours?"},
		{"{count: 40,", "{count: 501,", "line 8: world.pops.count: 501 is not in 1..500"},
		{"{count: 40,", "{at: [SIN], count: 40,", "line 8: world.pops.count: stands beside at: want one of both"},
		{"{count: 40,", "{at: [XXX],", `line 8: world.pops.at[0]: "XXX" is neither the IATA code`},
		{"{fra1: 0.1}", "{fra1: 0.9, sin1: 0.2}", "line 8: world.pops.shares: the shares add up to 1.1, more than 1"},
		{"within: 2ms}", "within: 2s}", "line 10: world.policy.within: 2s is not in 0s..1s"},
		{"rank: rtt", "rank: rrt", "line 10: world.policy.rank"},
		{"count: 1000000", "count: 0", "line 12: world.clients.count: 0 is not in 1..100000000"},
		{"line: fibre", "line: fiber", `line 13: world.clients.access[0].line: "fiber" is not known; did you mean fibre?`},
		{"part: 0.5}]", "part: 0.6}]", "world.clients.access: the parts add up to 1.1, not to 1"},
		{"50.1,8.7,DE", "95.1,8.7,DE", `world.clients.near[1].place: "95.1,8.7,DE": "95.1" is not in -90..90`},
		{"ecs: 0.2", "ecs: 0.8", "line 15: world.clients.resolvers: the parts add up to 1.1, more than 1"},
		{"spread: 0,", "spread: .nan,", "world.network.spread: "},
		{`"sin,iad"`, `"sin-iad"`, "want two names with a comma between them"},
		{"at: 6h,", "at: 13h,", "line 19: timeline[1].at: 12h0m0s is earlier than the event before it, at 13h0m0s"},
		{"lose: [largest],", "lose: [largest], etcd_away: true,", "line 18: timeline[0]: 2 things happen in it ([lose etcd_away]): want exactly one"},
		{"lose: [largest],", "", "line 18: timeline[0]: 0 things happen in it"},
		{"factor: 10,", "factor: 0.5,", "line 19: timeline[1].crowd.factor: 0.5 is not in 1..1000"},
		{"80 ms", "80 mss", `line 21: assert[0].that: "ours/rtt.p99 <= 80 mss": unit "mss" is not known`},
		{"ours/rtt.p99", "rtt.p99", "rtt.p99 is measured of several policies: want one of [ours anycast] before it"},
		{"ours/rtt.p99", "oracle/rtt.p99", "policy oracle is not among the scenario's, [ours anycast]"},
		{"pops: 12", "pops: -1", "line 23: short.pops: -1 is not in 0..500"},
		{"duration: 8h", "duration: 25h", "line 23: short.duration: 25h0m0s is not in 0s..24h0m0s"},
	} {
		text := strings.Replace(example, test.old, test.text, 1)
		if text == example {
			t.Fatalf("%q is not in the example", test.old)
		}
		_, err := Parse([]byte(text))
		if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), test.want) {
			t.Errorf("%s: got %v, want %q in it", test.text, err, test.want)
		}
	}
	_, err := Parse([]byte("scenario: X\nscales: []\nworld: {clients: {count: 0}, what: 1}\n"))
	var invalid *InvalidError
	if !errors.As(err, &invalid) || len(invalid.Faults) < 4 {
		t.Errorf("got %v, want all faults at once", err)
	}
}

func TestLoad(t *testing.T) {
	files := map[string]string{
		"a/s.yaml": "scenario: s\nscales: [flow]\nworld: {topology: ../t.yaml, clients: {count: 1}, network: {matrix: m.csv}}\n",
		"t.yaml":   "schema: 1\nzones: {x.test: {nameservers: {ns.x.test: [192.0.2.1]}, hostmaster: h.x.test}}\nservices: {i.x.test: {}}\npops: {a: {location: {lat: 1, lon: 1, country: SG}, addresses: [192.0.2.2]}}\nclusters: {c: {location: {country: SG}, endpoints: ['https://c']}}\n",
		"a/m.csv":  "from,to,rtt_ms\nSIN,a,12.5\nA,sin,13.5\nx,y,1\n",
	}
	read := func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	s, err := Load("a/s.yaml", read)
	if err != nil {
		t.Fatal(err)
	}
	if us, ok := s.World.Network.Measured.Microseconds("sin", "A"); !ok || us != 13_000 || s.World.Network.Measured.Len() != 2 {
		t.Errorf("matrix: got %d µs, %v", us, ok)
	}
	if s.World.Topology.PoPs["a"] == nil {
		t.Error("the topology was not read")
	}
	files["t.yaml"], files["a/m.csv"] = "schema: 1\npop: {}\n", "from,to,rtt_ms\na,b,-1\na,b,x\n"
	_, err = Load("a/s.yaml", read)
	for _, want := range []string{"a/s.yaml", "did you mean pops?", "line 2: rtt_ms", "line 3: rtt_ms"} {
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q in it", err, want)
		}
	}
	if _, err = Load("b.yaml", read); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestPlaces(t *testing.T) {
	if n := len(Places()); n != 113 {
		t.Errorf("got %d places, want 113", n)
	}
	p, err := PlaceOf("sin")
	if err != nil || p.City != "Singapore" || p.Country != "SG" {
		t.Errorf("got %+v, %v", p, err)
	}
	p, err = PlaceOf("-33.9, 18.4, ZA")
	if diff := cmp.Diff([]float64{-33.9, 18.4}, []float64{p.LatDeg, p.LonDeg}); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"", "XXX", "1,2", "1,2,sg", "a,2,SG", "1,NaN,SG", "1,2,3,4"} {
		if _, err := PlaceOf(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// FuzzParse reads files of others. What is taken is run in short and in full, so both must be valid, and bounded.
func FuzzParse(f *testing.F) {
	f.Add([]byte(example))
	f.Add([]byte("scenario: s\nscales: [packet]\nworld: {pops: {at: [SIN]}, clusters: {at: [IAD]}, clients: {count: 1}}\n"))
	f.Add([]byte(`{"scenario":"s","scales":["flow"],"world":{"clients":{"count":1,"near":[{"place":"1,2,SG","weight":1e9}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := Parse(text)
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatal(err)
			}
			return
		}
		if faults := s.ShortForm().Validate(); len(faults) > 0 {
			t.Fatalf("the short form is not valid: %v", faults)
		}
		if s.World.Clients.Count > MaxClients || len(s.Timeline) > maxEvents {
			t.Fatal("out of bounds")
		}
	})
}

// FuzzParseMatrix reads tables of others.
func FuzzParseMatrix(f *testing.F) {
	f.Add([]byte("from,to,rtt_ms\na,b,1\nb,a,3.5\n"))
	f.Add([]byte("rtt_ms,to,from\n1,\"x\",y\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := ParseMatrix(text)
		if err != nil {
			return
		}
		for pair, us := range m.us {
			if got, ok := m.Microseconds(pair[1], pair[0]); !ok || got != us || us > maxMatrixMS*1000 {
				t.Fatalf("%v: got %d, %v, want %d", pair, got, ok, us)
			}
		}
	})
}

// TestDocs reads the example of docs/simulations.md, which must be valid.
func TestDocs(t *testing.T) {
	text, err := os.ReadFile("../../docs/simulations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "```yaml\n")
	example, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("there is no example")
	}
	if s := parsed(t, example); s.Name != "two-losses" || len(s.ShortForm().Asserts) != 2 {
		t.Errorf("got %+v", s)
	}
	if err := compiled(t).Validate(seen(t, example)); err != nil {
		t.Errorf("the schema: %v", err)
	}
	for _, key := range eventKinds {
		if !strings.Contains(string(text), "| `"+key) {
			t.Errorf("event %s is not told of", key)
		}
	}
}
