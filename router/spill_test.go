package router

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// TestSpillIsInTheScope has two places side by side whose clients have the first PoP in common and not the others. It turns away those of one
// place: no scope covers both, as it does without.
func TestSpillIsInTheScope(t *testing.T) {
	mumbai := at(19.08, 72.88, "IN")
	table := compileTest(t, sixPoPs(), networks{{netip.MustParsePrefix("10.0.0.0/16"), singapore}, {netip.MustParsePrefix("10.1.0.0/16"), mumbai}})
	leading := func(client string) (l Leading) {
		var trace Trace
		Decide(&View{table, NewState(table, Inputs{Now: start})}, 0, IPv4, netip.MustParsePrefix(client), &trace)
		for i := range l {
			l[i] = trace.Candidates[i].PoP
		}
		return l
	}
	here, there := leading("10.0.0.1/32"), leading("10.1.0.1/32")
	if here[0] != there[0] || here == there {
		t.Fatalf("%v and %v do not fit the test", here, there)
	}
	_, all := ask(t, &View{table, NewState(table, Inputs{Now: start})}, IPv4, "10.0.0.1/32")
	if all.ScopeBits > 15 {
		t.Errorf("without spill the scope is /%d", all.ScopeBits)
	}
	view := &View{table, NewState(table, Inputs{Now: start, Spill: Spill{Takes: map[Leading]Takes{there: {there[0]: 0}}}})}
	for client, want := range map[string]string{"10.0.0.1/32": here[0], "10.1.0.1/32": there[1]} {
		if got, a := ask(t, view, IPv4, client); fmt.Sprint(got) != "["+want+"]" || a.ScopeBits != 16 {
			t.Errorf("%s gets %v in /%d, want %s in /16", client, got, a.ScopeBits, want)
		}
	}
}

// TestReservedHasItsOwnClients turns away from a PoP those who come from others, and none of its own, in groups too.
func TestReservedHasItsOwnClients(t *testing.T) {
	for _, within := range []time.Duration{0, 300 * time.Millisecond} {
		top := sixPoPs()
		top.Services["intake.example"].Steering.Within = topology.Duration(within)
		table := compileTest(t, top, networks{{netip.MustParsePrefix("10.0.0.0/16"), singapore}, {netip.MustParsePrefix("10.1.0.0/16"), tokyo}})
		var trace Trace
		plain := &View{table, NewState(table, Inputs{Now: start})}
		Decide(plain, 0, IPv4, netip.MustParsePrefix("10.1.0.1/32"), &trace)
		leading := Leading{trace.Candidates[0].PoP, trace.Candidates[1].PoP, trace.Candidates[2].PoP, trace.Candidates[3].PoP}
		view := &View{table, NewState(table, Inputs{Now: start, Spill: Spill{Takes: map[Leading]Takes{leading: {"sin1": 0, leading[2]: 0.9}}}})}
		sin1, other := 0, [2]int{}
		for i := range 16 {
			client := fmt.Sprintf("10.0.%d.0/24", 16*i)
			if got, _ := ask(t, view, IPv4, client); within == 0 && fmt.Sprint(got) != "[sin1]" {
				t.Errorf("%s of Singapore gets %v", client, got)
			}
			client = fmt.Sprintf("10.1.%d.0/24", 16*i)
			if got, _ := ask(t, view, IPv4, client); fmt.Sprint(got) == "[sin1]" {
				t.Errorf("within %v, %s of Tokyo gets %v", within, client, got)
			}
			if got, _ := ask(t, plain, IPv4, client); fmt.Sprint(got) == "[sin1]" {
				sin1++
			}
			for j, v := range []*View{plain, view} {
				if got, _ := ask(t, v, IPv4, client); got[0] == leading[2] {
					other[j]++
				}
			}
		}
		if within > 0 && (sin1 == 0 || other[0] > 1 && other[1] == 0) {
			t.Errorf("of Tokyo %d would get sin1; of %d of %s it keeps %d", sin1, other[0], leading[2], other[1])
		}
	}
}

func TestSpillAllocatesNothing(t *testing.T) {
	table := compileTest(t, sixPoPs(), networks{{netip.MustParsePrefix("10.0.0.0/16"), singapore}})
	takes := map[Leading]Takes{}
	for a := range sixPoPs().PoPs {
		for b := range sixPoPs().PoPs {
			for c := range sixPoPs().PoPs {
				for d := range sixPoPs().PoPs {
					takes[Leading{a, b, c, d}] = Takes{a: 0.3, b: 0.5, c: 0.9}
				}
			}
		}
	}
	view := &View{table, NewState(table, Inputs{Now: start, Spill: Spill{Takes: takes}})}
	got := map[Choice]int{}
	i := 0
	if allocs := testing.AllocsPerRun(1000, func() {
		i++
		a := Decide(view, 0, IPv4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32), nil)
		if a.N == 0 {
			t.Error("an empty answer")
		}
	}); allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
	for i := range 16 {
		a := Decide(view, 0, IPv4, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i << 4), 0}), 32), nil)
		got[a.Choices[0]]++
	}
	if len(got) < 2 {
		t.Errorf("got %v, want clients to be split", got)
	}
}
