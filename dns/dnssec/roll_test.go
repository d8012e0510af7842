package dnssec

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// world is a zone, its parent, and all validators that there can be, with times in whole seconds.
type world struct {
	ttls   TTLs
	zone   []change[*topology.Signing]
	parent []change[[]uint16] // tags of the KSKs that DS records point to
	early  []early            // what some of the parent's servers have before all have it
}

// change is what holds from a time on.
type change[T any] struct {
	at    int
	value T
}

// early is what becomes known at some servers at one time and at all at another.
type early struct {
	some, all int
	ds        []uint16
}

func (w *world) time(at int) time.Time { return start.Add(time.Duration(at) * time.Second) }

func (w *world) now() *topology.Signing { return w.zone[len(w.zone)-1].value }

// within returns what held at some time after from and until to.
func within[T any](changes []change[T], from, to int) []T {
	var values []T
	for i, c := range changes {
		if c.at <= to && (i+1 == len(changes) || changes[i+1].at > from) {
			values = append(values, c.value)
		}
	}
	return values
}

func seconds(d time.Duration) int { return int(d / time.Second) }

// bogus returns a time at which a validator that has some mix of what can be in its caches finds the zone bogus, or "".
func (w *world) bogus(until int) string {
	lag := seconds(w.ttls.Propagation)
	for t := range until {
		dsSets := within(w.parent, t-seconds(w.ttls.DS), t)
		for _, e := range w.early {
			if e.some <= t && t < e.all {
				dsSets = append(dsSets, e.ds)
			}
		}
		for _, keys := range within(w.zone, t-lag-seconds(w.ttls.DNSKEY), t) {
			for _, ds := range dsSets {
				if !slices.ContainsFunc(keys.Keys, func(k topology.SigningKey) bool {
					return k.Role == topology.KSK && k.State == topology.KeyActive && slices.Contains(ds, k.Tag)
				}) {
					return fmt.Sprintf("at %d: DS %v against DNSKEY %v", t, ds, keys.Keys)
				}
			}
			for _, data := range within(w.zone, t-lag-seconds(w.ttls.Zone), t) {
				if !slices.ContainsFunc(data.Keys, func(k topology.SigningKey) bool {
					return k.Role == topology.ZSK && k.State == topology.KeyActive && keys.Key(k.Tag) != nil
				}) {
					return fmt.Sprintf("at %d: signatures by %v against DNSKEY %v", t, data.Keys, keys.Keys)
				}
			}
		}
	}
	return ""
}

func tags(t testing.TB, s *topology.Signing) []uint16 {
	t.Helper()
	var all []uint16
	for _, k := range wantedKSKs(s) {
		all = append(all, k.Tag)
	}
	return all
}

// roll takes a whole roll, each step as early as it may be or later, or earlier by force; it returns when the last was.
func (w *world) roll(t *testing.T, random *rand.Rand, at int, role topology.KeyRole, force bool) int {
	t.Helper()
	taken := make([]uint16, 0, len(w.now().Keys))
	for _, k := range w.now().Keys {
		taken = append(taken, k.Tag)
	}
	fresh := generate(t, role, ED25519, taken...)
	next, err := StartRoll(w.now(), role, fresh.Public(topology.KeyPublished, w.time(at)), w.time(at), w.ttls)
	for {
		if err != nil {
			t.Fatal(err)
		}
		if _, faults := topology.ParseSigning("example.net", topology.MarshalValue(next)); len(faults) > 0 {
			t.Fatalf("a roll leads to an invalid signing: %v", faults)
		}
		w.zone = append(w.zone, change[*topology.Signing]{at, next})
		if next.Roll == nil {
			return at
		}
		if next.Roll.Step == topology.RollDSWanted { // the operator changes the parent, server by server
			some := at + random.IntN(3)
			at += 3 + random.IntN(3)
			w.early = append(w.early, early{some, at, tags(t, next)})
			w.parent = append(w.parent, change[[]uint16]{at, tags(t, next)})
		}
		earliest := seconds(next.Roll.NotBefore.Sub(start))
		if _, _, err := NextStep(next, w.time(earliest-1), w.ttls, StepOptions{DSSeen: true}); !errors.Is(err, ErrTooEarly) {
			t.Fatalf("a second before its time: got %v, want ErrTooEarly", err)
		}
		if !force {
			at = max(at, earliest) + random.IntN(2)*random.IntN(40)
		}
		next, _, err = NextStep(next, w.time(at), w.ttls, StepOptions{DSSeen: true, Force: force})
		if err == nil && next == w.now() {
			t.Fatal("a step changed the signing that it was given")
		}
	}
}

// TestRollsAreNeverBogus lets every validator look at every time of several rolls, whatever it has in its caches.
func TestRollsAreNeverBogus(t *testing.T) {
	for seed := range uint64(60) {
		w, random := newWorld(t, seed)
		end := 50
		for range 3 {
			role := []topology.KeyRole{topology.KSK, topology.ZSK}[random.IntN(2)]
			end = w.roll(t, random, end+random.IntN(20), role, false)
		}
		if found := w.bogus(end + 100); found != "" {
			t.Fatalf("seed %d, %+v: %s", seed, w.ttls, found)
		}
		last := w.now()
		if len(last.Keys) != 2 || last.Roll != nil {
			t.Fatalf("seed %d: after all rolls there is %+v", seed, last)
		}
	}
}

// TestForcedRollsAreBogus shows that the model can find what is wrong.
func TestForcedRollsAreBogus(t *testing.T) {
	for _, role := range []topology.KeyRole{topology.KSK, topology.ZSK} {
		w, random := newWorld(t, 1)
		at := w.roll(t, random, 50, role, true)
		if w.bogus(at+100) == "" {
			t.Errorf("a forced roll of a %s does no harm", role)
		}
	}
}

// TestEachWaitIsNeeded shortens what the steps wait for, one at a time.
func TestEachWaitIsNeeded(t *testing.T) {
	for name, shorten := range map[string]func(*TTLs){
		"DNSKEY": func(x *TTLs) { x.DNSKEY /= 2 }, "zone": func(x *TTLs) { x.Zone /= 2 }, "DS": func(x *TTLs) { x.DS /= 2 },
		"propagation": func(x *TTLs) { x.Propagation = 0 },
	} {
		found := ""
		for seed := uint64(0); seed < 50 && found == ""; seed++ {
			w, random := newWorld(t, seed)
			real := w.ttls
			shorten(&w.ttls)
			at := w.roll(t, random, 50, topology.KSK, false)
			at = w.roll(t, random, at+200, topology.ZSK, false)
			w.ttls = real
			found = w.bogus(at + 100)
		}
		if found == "" {
			t.Errorf("without the whole wait for %s nothing is bogus", name)
		}
	}
}

func newWorld(t *testing.T, seed uint64) (*world, *rand.Rand) {
	random := rand.New(rand.NewPCG(seed, 1))
	some := func(low, high int) time.Duration { return time.Duration(low+random.IntN(high-low)) * time.Second }
	w := &world{ttls: TTLs{DNSKEY: some(5, 30), Zone: some(5, 30), DS: some(5, 30), Propagation: some(2, 10)}}
	ksk := generate(t, topology.KSK, ED25519)
	s, _ := signed(t, ksk, generate(t, topology.ZSK, ED25519, ksk.Tag()))
	w.zone = []change[*topology.Signing]{{-1000, s}}
	w.parent = []change[[]uint16]{{-1000, tags(t, s)}}
	return w, random
}

func TestRollRefuses(t *testing.T) {
	ksk, zsk := generate(t, topology.KSK, ED25519), generate(t, topology.ZSK, ED25519)
	s, _ := signed(t, ksk, zsk)
	ttls := TTLs{DNSKEY: time.Hour, Zone: time.Hour, DS: 24 * time.Hour, Propagation: time.Minute}
	fresh := generate(t, topology.KSK, ED25519, ksk.Tag(), zsk.Tag()).Public(topology.KeyPublished, start)
	if _, _, err := NextStep(s, start, ttls, StepOptions{}); !errors.Is(err, ErrNotRolling) {
		t.Errorf("got %v, want ErrNotRolling", err)
	}
	other := generate(t, topology.KSK, ECDSAP256SHA256).Public(topology.KeyPublished, start)
	for name, start := range map[string]func() (*topology.Signing, error){
		"another algorithm": func() (*topology.Signing, error) { return StartRoll(s, topology.KSK, other, start, ttls) },
		"another role":      func() (*topology.Signing, error) { return StartRoll(s, topology.ZSK, fresh, start, ttls) },
		"a key it has":      func() (*topology.Signing, error) { return StartRoll(s, topology.KSK, s.Keys[0], start, ttls) },
	} {
		if got, err := start(); err == nil {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	rolling, err := StartRoll(s, topology.KSK, fresh, start.Add(time.Millisecond), ttls)
	if err != nil {
		t.Fatal(err)
	}
	if want := start.Add(time.Hour + time.Minute + time.Second); !rolling.Roll.NotBefore.Equal(want) {
		t.Errorf("the next step may be at %v, want %v", rolling.Roll.NotBefore, want)
	}
	if _, err := StartRoll(rolling, topology.ZSK, fresh, start, ttls); !errors.Is(err, ErrRolling) {
		t.Errorf("got %v, want ErrRolling", err)
	}
	if _, _, err := NextStep(rolling, start, ttls, StepOptions{}); !errors.Is(err, ErrTooEarly) || !strings.Contains(err.Error(), "2026-03-01T13:01:01Z") {
		t.Errorf("got %v, want ErrTooEarly with the time", err)
	}
	if got := tags(t, rolling); !slices.Equal(got, []uint16{ksk.Tag()}) {
		t.Errorf("DS records are wanted of %v, want the old key %d", got, ksk.Tag())
	}
	asked, told, err := NextStep(rolling, start, ttls, StepOptions{Force: true})
	if err != nil || !strings.Contains(told, "parent") {
		t.Fatalf("got %q, %v", told, err)
	}
	if got := tags(t, asked); !slices.Equal(got, []uint16{fresh.Tag}) {
		t.Errorf("DS records are wanted of %v, want the new key %d", got, fresh.Tag)
	}
	if _, _, err := NextStep(asked, start, ttls, StepOptions{Force: true}); !errors.Is(err, ErrUnconfirmed) {
		t.Errorf("got %v, want ErrUnconfirmed", err)
	}
}
