package quorum

import (
	"math/rand/v2"
	"time"
)

// Fault is what happens to a PoP.
type Fault string

// The faults. Of the last one the world as a whole must not hear.
const (
	HostDead      Fault = "host dead"      // silence, also of the PoP's own vantage
	ProcessKilled Fault = "process killed" // ports are unreachable, and the vantage is silent
	BrownOut      Fault = "brown-out"      // it answers after three seconds
	Errors        Fault = "errors"         // it answers 503
	RegionCut     Fault = "region cut off" // what vantages of one region send does not arrive
)

// Faults are all of them.
var Faults = []Fault{HostDead, ProcessKilled, BrownOut, Errors, RegionCut}

// Bad is how the bad vantage of a world is bad.
type Bad string

// The bad vantages.
const (
	Nobody      Bad = "nobody"
	CutOff      Bad = "cut off"         // nothing that it sends to PoPs arrives; its reports do
	Slow        Bad = "slow"            // its probes take 1.5 s longer, its reports 2 s
	Contrary    Bad = "contrary"        // it says of each target the contrary
	LiesRegion  Bad = "lies by region"  // it says that Europe is dead and all else well
	Alarmist    Bad = "alarmist"        // it suspects all targets again and again
	Replays     Bad = "replays"         // it sends its old reports again, and from the middle on no others
	Silent      Bad = "silent for some" // it says nothing of half of its targets
	ReplayedAll Bad = "replayed"        // somebody on the way sends everybody's old datagrams again
	WrongClock  Bad = "wrong clock"     // by hours, and it is set every few seconds
	StoreAway   Bad = "etcd away"       // no vantage is bad: reports travel directly alone
	DirectCut   Bad = "datagrams cut"   // no vantage is bad: reports travel through etcd alone
)

// Bads are all of them.
var Bads = []Bad{Nobody, CutOff, Slow, Contrary, LiesRegion, Alarmist, Replays, Silent, ReplayedAll, WrongClock, StoreAway, DirectCut}

// event is a fault of one PoP.
type event struct {
	fault      Fault
	pop        int
	region     string // of RegionCut
	begin, end time.Duration
	down       []time.Duration // by judge: when the verdict was down, counted from begin; 0 when it never was
	up         []time.Duration // when it was up again, counted from end
}

// storeAway reports whether etcd is away now.
func (w *world) storeAway() bool { return w.bad == StoreAway && w.now > warmUp/2 }

// directCut reports whether no datagram arrives now.
func (w *world) directCut() bool { return w.bad == DirectCut && w.now > warmUp/2 }

const (
	warmUp     = 90 * time.Second
	faultEvery = 45 * time.Second
	faultLasts = 20 * time.Second
)

// plan draws n faults of a world of so many PoPs. None strikes the bad vantage's own PoP, so that it is there to be bad.
func plan(random *rand.Rand, n, pops, bad int) []*event {
	events := []*event{}
	for i := range n {
		e := &event{fault: Faults[i%len(Faults)], pop: random.IntN(pops)}
		for e.pop == bad {
			e.pop = random.IntN(pops)
		}
		e.begin = warmUp + time.Duration(i)*faultEvery + time.Duration(random.Int64N(int64(5*time.Second)))
		e.end = e.begin + faultLasts + time.Duration(random.Int64N(int64(5*time.Second)))
		if e.fault == RegionCut {
			e.region = []string{"EU", "NA", "AS"}[random.IntN(3)]
		}
		e.down, e.up = make([]time.Duration, len(judges)), make([]time.Duration, len(judges))
		events = append(events, e)
	}
	return events
}

// struck returns the fault of a PoP at a time, nil when there is none.
func (w *world) struck(pop int, t time.Duration) *event {
	for _, e := range w.events {
		if e.pop == pop && t >= e.begin && t < e.end {
			return e
		}
	}
	return nil
}
