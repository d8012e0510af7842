package packet

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/simulations/scenario"
	"github.com/isochrone/isochrone/simulations/world"
)

var runs = flag.Int("runs", 2, "how often a world is run that must come out equal")

// scene reads a scenario and builds its world.
func scene(t testing.TB, text string) (*scenario.Scenario, *world.World) {
	t.Helper()
	s, err := scenario.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w, err := world.Build(s.World, 1)
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
    count: 24
    near: [{place: SIN, weight: 1}, {place: FRA, weight: 1}, {place: IAD, weight: 1}, {place: GRU, weight: 1}]
    resolvers: {own: 0.2, public: 0.2, ecs: 0.2}
  network: {jitter: false}
`

// Without chance, each time is the round trips that it takes, to a microsecond.
func TestTimesAreRoundTrips(t *testing.T) {
	s, w := scene(t, small)
	for policy, pop := range map[scenario.PolicyName]string{scenario.Ours: "", Fixed + "iad1": "iad1"} {
		e, err := simulate(context.Background(), s, w, policy, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range e.posts {
			rtt := time.Duration(w.RTT(p.network, p.pop)) * time.Microsecond
			trips := time.Duration(1)
			if p.fresh {
				trips = 2
			}
			if !p.accepted() || (p.took-trips*rtt).Abs() > time.Microsecond {
				t.Errorf("%s: post took %v, want %d × %v: %+v", policy, p.took, trips, rtt, p)
			}
			a, known := e.acks[p.id]
			_, hop := w.NearestCluster(p.pop, nil)
			want := p.took - rtt/2 + time.Duration(hop)*time.Microsecond
			got := a.at.Sub(p.end.Add(-p.took))
			if !known || got < want-time.Microsecond || got > want+time.Microsecond && !underWay(e, p) {
				t.Errorf("%s: acknowledged after %v, want %v", policy, got, want)
			}
			if pop != "" && w.PoPs[p.pop].Name != pop {
				t.Errorf("%s: post was answered by %s", policy, w.PoPs[p.pop].Name)
			}
		}
		run := e.figures()
		for name, want := range map[string]float64{"posts": 48, "accepted": 48, "lost": 0, "refused": 0, "moved": 0} {
			if got := run.Figures[name].Value; got != want {
				t.Errorf("%s: %s is %v, want %v", policy, name, got, want)
			}
		}
		questions := run.Figures["questions"].Value
		if pop == "" && (questions < 20 || questions > 48 || run.Figures["cache.hits"].Value == 0) || pop != "" && questions > 0 {
			t.Errorf("%s: %v questions, %v of them hits", policy, questions, run.Figures["cache.hits"])
		}
	}
}

// underWay reports whether others were on their way from a post's PoP to a cluster when it came there: a forwarder that has not done much yet sends one
// after the other.
func underWay(e *engine, p *post) bool {
	at := p.end.Add(-time.Duration(e.world.RTT(p.network, p.pop)) * time.Microsecond / 2)
	for _, o := range e.posts {
		if o != p && o.pop == p.pop && e.acks[o.id].at.After(at) && o.end.Before(p.end.Add(time.Second)) {
			return true
		}
	}
	return false
}

func TestEqualRuns(t *testing.T) {
	s, w := scene(t, strings.Replace(small, "jitter: false", "jitter: true", 1))
	var first []byte
	for i := range *runs {
		run, err := Run(context.Background(), s, w, scenario.Ours, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.MarshalIndent(run, "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = text
		} else if string(first) != string(text) {
			t.Errorf("run %d differs: got %s, want %s", i, text, first)
		}
	}
	other, err := Run(context.Background(), s, w, scenario.Ours, 2, nil)
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := json.MarshalIndent(other, "", " "); string(text) == string(first) {
		t.Error("another seed makes no difference")
	}
}

const eventful = `
scenario: eventful
summary: what can happen
scales: [packet]
duration: 40s
step: 10s
world:
  pops: {at: [SIN, FRA]}
  clusters: {at: [FRA, SIN]}
  ttl: 2s
  clients:
    count: 8
    rate: 0.5
    fresh: 0.3
    near: [{place: SIN, weight: 3}, {place: FRA, weight: 1}]
  network: {jitter: true, loss: 0.002}
timeline:
  - {at: 2s, for: 10s, lose: [largest]}
  - {at: 15s, for: 6s, drain: [sin1]}
  - {at: 15s, for: 6s, crowd: {near: FRA, within: 10ms, factor: 10}}
  - {at: 24s, for: 4s, edit: "pops: {sin1: {state: disabled}}"}
  - {at: 30s, for: 8s, etcd_away: true}
  - {at: 31s, for: 4s, brown_out: {pop: fra1, delay: 100ms}}
  - {at: 36s, for: 1s, partition: [sin1]}
`

func TestEvents(t *testing.T) {
	s, w := scene(t, eventful)
	e, err := simulate(context.Background(), s, w, scenario.Ours, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	run := e.figures()
	sin, _ := w.PoP("sin1")
	fra, _ := w.PoP("fra1")
	count := func(from, to time.Duration, is func(*post) bool) (n int) {
		for _, p := range e.posts {
			if at := p.start.Sub(e.began); at >= from*time.Second && at < to*time.Second && is(p) {
				n++
			}
		}
		return n
	}
	at := func(pop int) func(*post) bool { return func(p *post) bool { return p.accepted() && p.pop == pop } }
	// Clients know of it when their answers are over: after the TTL, two seconds, of the resolver's; and what they had open they use until then.
	for what, n := range map[string]int{"dead": count(3, 11, at(sin)), "drained": count(20, 21, at(sin)), "disabled": count(27, 28, at(sin))} {
		if n > 0 {
			t.Errorf("sin1 was %s and has answered %d posts", what, n)
		}
	}
	if count(0, 2, at(sin)) == 0 || count(38, 40, at(sin)) == 0 {
		t.Error("sin1 has answered nothing while it was well")
	}
	slow := count(31, 34, func(p *post) bool { return at(fra)(p) && p.took > 100*time.Millisecond })
	if all := count(31, 34, at(fra)); slow == 0 || slow < all {
		t.Errorf("fra1 was slow: %d of its %d posts were", slow, all)
	}
	if before, crowd := count(12, 15, at(fra)), count(15, 18, at(fra)); crowd < 2*before || crowd < 10 {
		t.Errorf("fra1 answered %d posts before the crowd, %d with it", before, crowd)
	}
	for name, bound := range map[string]float64{"verdict": 5, "next.202": 20} {
		if f, known := run.Figures[name]; !known || f.Value <= 0 || f.Value > bound {
			t.Errorf("%s is %+v, want at most %v s", name, f, bound)
		}
	}
	if run.Figures["last.wrong"].Value > 8 || run.Figures["lost"].Value > 0 || run.Figures["refused"].Value > 0 {
		t.Errorf("got figures %+v", run.Figures)
	}
	notes := strings.Join(run.Notes, "\n")
	for _, want := range []string{
		"00:00:02.0 death of sin1", "sin1 was up and is down", "00:00:12.0 end of the death of sin1", "sin1 was down and is up", "00:00:15.0 sin1 is drained",
		"00:00:15.0 clients near FRA", "00:00:24.0 the topology is edited", "00:00:28.0 the edit is taken back", "00:00:30.0 etcd is away", "00:00:38.0 etcd is back",
		"00:00:31.0 brown-out of fra1", "00:00:36.0 partition of sin1",
	} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not noted", want)
		}
	}
	if t.Failed() {
		t.Logf("notes:\n%s\nfigures: %+v", notes, run.Figures)
	}
}

func TestUnsupported(t *testing.T) {
	s, w := scene(t, small)
	for _, policy := range []scenario.PolicyName{scenario.Anycast, scenario.Oracle, "anything"} {
		if _, err := Run(context.Background(), s, w, policy, 1, nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "ours, nearest and fixed:POP") {
			t.Errorf("policy %s: got %v", policy, err)
		}
	}
	if _, err := Run(context.Background(), s, w, Fixed+"mars1", 1, nil); err == nil || !strings.Contains(err.Error(), `no PoP "mars1"`) {
		t.Errorf("got %v", err)
	}
	s.Duration = scenario.Duration(time.Minute)
	s.Timeline = []scenario.Event{{Flip: &scenario.Flip{Part: 0.1}}}
	if _, err := Run(context.Background(), s, w, scenario.Ours, 1, nil); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "timeline[0].flip") {
		t.Errorf("got %v", err)
	}
	s.Timeline = []scenario.Event{{Lose: []string{"mars1"}}}
	if _, err := Run(context.Background(), s, w, scenario.Ours, 1, nil); !errors.Is(err, scenario.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, s, w, scenario.Ours, 1, nil); err == nil {
		t.Error("a run that is given up has no error")
	}
}

const upgraded = `
scenario: upgraded
summary: all PoPs get new processes
scales: [packet]
duration: 60s
world:
  pops: {at: [SIN, FRA]}
  clusters: {at: [FRA, SIN]}
  ttl: 2s
  clients: {count: 6, rate: 1, near: [{place: SIN, weight: 1}, {place: FRA, weight: 1}]}
timeline:
  - {at: 2s, rolling_upgrade: {at_once: 1, pause: 5s, away: 3s}}
`

// While PoPs are replaced one after the other, nobody waits longer than before by more than another PoP is farther, and nothing is lost.
func TestUpgrade(t *testing.T) {
	s, w := scene(t, upgraded)
	e, err := simulate(context.Background(), s, w, scenario.Ours, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	run := e.figures()
	if len(e.acks) < len(e.posts) || run.Figures["accepted"] != run.Figures["posts"] || run.Figures["fresh.p99"].Value > 1000 {
		t.Errorf("got %d acknowledgements, %+v", len(e.acks), run.Figures)
	}
	notes := strings.Join(run.Notes, "\n")
	for _, want := range []string{"00:00:02.0 fra1 is drained", "00:00:14.0 the process of fra1 ends", "fra1 has another process", "00:00:22.0 sin1 is drained", "sin1 has another process"} {
		if !strings.Contains(notes, want) {
			t.Errorf("%q is not noted: got\n%s", want, notes)
		}
	}
}
