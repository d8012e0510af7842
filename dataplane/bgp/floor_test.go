package bgp

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var worlds = flag.Uint64("worlds", 20, "how many worlds of nodes at random the floor is tried in")

// member is a node of a world in which what nodes say arrives late.
type member struct {
	*Machine
	in    Inputs
	heard map[string]Standing // of the others
	last  Decision
}

type saying struct {
	at       time.Time // when it arrives
	from, to int
	standing Standing
}

// TestTheFloorHoldsWhateverHappensTogether has nodes fail, recover and be drained at random, often all at once, while what they say of
// themselves takes up to a bound to arrive. By withdrawals alone there are never fewer announcers than the floor wants, and nobody announces
// without the community who wants to leave.
func TestTheFloorHoldsWhateverHappensTogether(t *testing.T) {
	const tick, late = 50 * time.Millisecond, 450 * time.Millisecond // and one tick more until it is acted on
	for seed := range *worlds {
		random := rand.New(rand.NewPCG(seed, 8))
		floor := 1 + random.IntN(3)
		nodes := make([]*member, floor+random.IntN(4))
		settings := Settings{MinAnnouncers: floor, Rise: 500 * time.Millisecond, MaxRise: time.Second, Drain: time.Duration(random.IntN(3)) * time.Second, Settle: 2*late + 3*tick}
		for i := range nodes {
			nodes[i] = &member{Machine: NewMachine(fmt.Sprintf("n%d", i), vip, settings), heard: map[string]Standing{}, in: Inputs{Service: good, Verdict: good, Known: true}}
			nodes[i].last.Standing = Left
		}
		var onTheWay []saying
		arrives := map[[2]int]time.Time{} // the last saying of one node at another
		withdrawn, held := 0, 0
		for now := began; now.Before(began.Add(3 * time.Minute)); now = now.Add(tick) {
			if random.IntN(40) == 0 { // something happens, to all, some or one
				all, service, wish := random.IntN(3), random.IntN(2) == 0, []Wish{AsHealth, AsHealth, GoAway}[random.IntN(3)]
				for _, n := range nodes {
					if all == 0 || random.IntN(len(nodes)) == 0 {
						n.in.Service, n.in.Operator = Check{service, "by chance"}, wish
					}
				}
			}
			rest := onTheWay[:0]
			for _, s := range onTheWay {
				if s.at.After(now) {
					rest = append(rest, s)
				} else {
					nodes[s.to].heard[nodes[s.from].node] = s.standing
				}
			}
			onTheWay = rest
			for _, i := range random.Perm(len(nodes)) {
				n := nodes[i]
				n.in.Now, n.in.Others = now, map[netip.Prefix][]Other{}
				for name, standing := range n.heard {
					n.in.Others[vip] = append(n.in.Others[vip], Other{name, standing})
				}
				before, was := announcers(nodes), n.last
				n.last = n.Decide(n.in)
				if n.last.Action == Announce && !n.in.Service.OK && n.badSince.Add(n.settings.Fall).Before(now) {
					t.Fatalf("seed %d: %s announces what does not work: %+v", seed, n.node, n.last)
				}
				if after := announcers(nodes); after < before {
					withdrawn++
					if after < floor {
						t.Fatalf("seed %d, after %v: %d announce, want %d; %s has withdrawn: %s", seed, now.Sub(began), after, floor, n.node, n.last.Reason)
					}
				}
				if n.last.Held {
					held++
				}
				if n.last.Standing != was.Standing {
					for j := range nodes {
						if j != i {
							at := later(arrives[[2]int{i, j}], now.Add(time.Duration(random.Int64N(int64(late)))))
							arrives[[2]int{i, j}] = at
							onTheWay = append(onTheWay, saying{at, i, j, n.last.Standing})
						}
					}
				}
			}
		}
		if len(nodes) > floor && withdrawn == 0 || held == 0 {
			t.Errorf("seed %d: %d nodes, floor %d: %d withdrawals, held for %d ticks: nothing was tried", seed, len(nodes), floor, withdrawn, held)
		}
	}
}

func announcers(nodes []*member) (n int) {
	for _, m := range nodes {
		if m.last.Action == Drain || m.last.Action == Announce {
			n++
		}
	}
	return n
}
