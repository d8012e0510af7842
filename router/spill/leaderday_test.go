package spill

import (
	"encoding/binary"
	"fmt"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// realDay is a day of the forty PoPs in which router.Decide says where every bucket of clients goes, and a Leader plans by what PoPs tell.
type realDay struct {
	table    *router.Table
	clients  []Client
	east     []float64 // of clients: degrees of longitude
	crowd    []bool    // of clients: they are near to the place that the crowd comes to
	verdicts health.Verdicts
	spill    router.Spill
	revision int64
	step     time.Duration
	buckets  int // of each client's 1,024 that are asked
}

// midnight is when days begin.
var midnight = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// worldRPS is what all clients ask for on the mean, in requests a second.
const worldRPS = 1e6

func newRealDay(tb testing.TB) *realDay {
	d := &realDay{step: 30 * time.Minute, buckets: 256, verdicts: health.Verdicts{}}
	if *campaign {
		d.step, d.buckets = time.Minute, 1024
	}
	plain := fortyView(tb, 1)
	top := plain.Table.Snapshot().Topology
	sum := 0.0
	for i, m := range rtt.Metros() {
		d.clients = append(d.clients, Client{metro(i), m.Weight})
		d.east = append(d.east, m.Location.LonDeg)
		sum += m.Weight
	}
	for i := range d.clients {
		d.clients[i].Weight /= sum
		orders := plain.Table.Orders(0, router.IPv4, d.clients[i].Client.Addr())
		d.crowd = append(d.crowd, orders[0].Leading[0] == "fra1")
	}
	d.table = plain.Table
	pops := map[topology.Ref]topology.Object{}
	for name, load := range d.loads(plain, d.weights(-1)) {
		pop := *top.PoPs[name]
		pop.CapacityRPS = int(1.7*load + 0.005*worldRPS)
		pops[topology.Ref{Kind: topology.PoPs, Name: name}] = &pop
	}
	table, err := router.Compile(&topology.Snapshot{Topology: top.With(pops, nil)}, plain.Table.Atlas(), nil)
	if err != nil {
		tb.Fatal(err)
	}
	d.table = table
	return d
}

// weights are what clients ask for at a time of the day, or on the mean (below 0), in requests a second.
func (d *realDay) weights(now time.Duration) []float64 {
	weights := make([]float64, len(d.clients))
	for i, c := range d.clients {
		weights[i] = worldRPS * c.Weight
		if now < 0 {
			continue
		}
		local := now.Hours() + d.east[i]/15
		growth := 0.0
		if d.crowd[i] {
			growth = 2.5 * max(0, min((now-crowdFrom).Minutes()/10, (crowdTo-now).Minutes()/10, 1))
		}
		weights[i] *= 1 + 0.6*math.Sin(2*math.Pi*(local-9)/24) + growth
	}
	return weights
}

func (d *realDay) view(now time.Duration) *router.View {
	in := router.Inputs{Now: midnight.Add(now), Verdicts: d.verdicts, Spill: d.spill}
	return &router.View{Table: d.table, State: router.NewState(d.table, in)}
}

// loads is what PoPs get when every bucket is decided.
func (d *realDay) loads(v *router.View, weights []float64) map[string]float64 {
	got := make([]float64, v.Table.PoPs())
	for i, c := range d.clients {
		first := binary.BigEndian.Uint32(c.Client.Addr().AsSlice())
		for bucket := range d.buckets {
			var b [4]byte
			binary.BigEndian.PutUint32(b[:], first+uint32(bucket*1024/d.buckets)<<12)
			a := router.Decide(v, 0, router.IPv4, netip.PrefixFrom(netip.AddrFrom4(b), 32), nil)
			got[a.Choices[0]] += weights[i] / float64(d.buckets)
		}
	}
	loads := map[string]float64{}
	for c, load := range got {
		name, _ := v.Table.PoP(router.Choice(c))
		loads[name] = load
	}
	return loads
}

// next returns when is looked next: soon while the crowd comes and goes, and while a PoP comes back.
func (d *realDay) next(now time.Duration) time.Duration {
	step := d.pace(now)
	for _, event := range []time.Duration{crowdFrom, crowdTo - 10*time.Minute, lostFrom, lostTo} {
		if now < event {
			step = min(step, event-now)
		}
	}
	return step
}

func (d *realDay) pace(now time.Duration) time.Duration {
	switch {
	case now >= crowdFrom && now < crowdFrom+10*time.Minute:
		return 10 * time.Second
	case now >= crowdTo-10*time.Minute && now < crowdTo:
		return time.Minute
	case now >= lostFrom && now < lostFrom+time.Minute:
		return 6 * time.Second
	case now >= lostFrom && now < lostTo:
		return min(d.step, 5*time.Minute)
	case now >= lostTo && now < lostTo+90*time.Second:
		return 6 * time.Second
	}
	return d.step
}

// fullest returns the PoP that has the largest part of its capacity.
func (d *realDay) fullest(loads map[string]float64) (part float64, pop string) {
	for i := range d.table.PoPs() {
		name, p := d.table.PoP(router.Choice(i))
		if one := loads[name] / float64(p.CapacityRPS); one > part {
			part, pop = one, name
		}
	}
	return part, pop
}

var lostPoP = health.Target{Kind: health.PoP, Name: "iad1"}

// lose has a PoP lost, and come back.
func (d *realDay) lose(now time.Duration) {
	switch {
	case now >= lostTo:
		d.verdicts = health.Verdicts{lostPoP: {Status: health.Up, Recovered: midnight.Add(lostTo)}}
	case now >= lostFrom:
		d.verdicts = health.Verdicts{lostPoP: {Status: health.Down}}
	}
}

// TestDayOfALeader runs 24 hours, and a few in which all may return, with a Leader.
func TestDayOfALeader(t *testing.T) {
	t.Parallel()
	d := newRealDay(t)
	var leader Leader
	worst, when, atLoss, moved, hour, most, plans, bytes := 0.0, "", 0.0, 0.0, 0.0, 0.0, 0, 0
	for now := time.Duration(0); now < 30*time.Hour; now += d.next(now) {
		d.lose(now)
		view := d.view(now)
		weights := d.weights(now)
		loads := d.loads(view, weights)
		if part, pop := d.fullest(loads); now >= lostFrom && now < lostFrom+30*time.Second {
			atLoss = max(atLoss, part)
		} else if part > worst {
			worst, when = part, fmt.Sprintf("%s at %v", pop, now)
		}
		told := Told{
			Now: midnight.Add(now), View: view, Clients: d.clients, Loads: map[string]Load{}, InForce: d.spill, Revision: d.revision, TTL: time.Second,
		}
		for pop, load := range loads {
			told.Loads[pop] = Load{RequestsRPS: load}
		}
		o := leader.Next(told)
		if now%time.Hour == 0 {
			hour = 0
		}
		if o.Changed {
			text, err := Encode(o.Spill)
			if err != nil {
				t.Fatal(err)
			}
			plans, bytes = plans+1, max(bytes, len(text))
			part := o.Report.Moved / o.Demand
			hour, moved = hour+part, moved+part
			most = max(most, hour)
			d.spill, d.revision = o.Spill, d.revision+1
		}
	}
	t.Logf("worst %.3f (%s), %.3f in the first moments of a loss; %d plans moved %.3f of the demand, at most %.3f in an hour; records of at most %d bytes", worst, when, atLoss, plans, moved, most, bytes)
	if worst > 1.1 || atLoss > 1.3 { // shares divide few buckets here, and what comes of them is seen minutes later
		t.Errorf("%s has %.3f of what it can do; in the first moments of a loss it is %.3f", when, worst, atLoss)
	}
	if plans == 0 || most > 0.45 {
		t.Errorf("%d plans moved %.3f of the demand in an hour", plans, most)
	}
	if len(d.spill.Takes) > 0 {
		t.Errorf("in the end there are shares: %v", d.spill.Takes)
	}
}

// TestDayOfNearest runs the same day without a leader. A PoP that has more than it can do is dead, and its clients go to the next one.
func TestDayOfNearest(t *testing.T) {
	t.Parallel()
	d := newRealDay(t)
	dead, waves := map[string]bool{}, 0
	for now := time.Duration(0); now < 24*time.Hour && len(dead) < d.table.PoPs(); now += d.next(now) {
		for wave := 1; ; wave++ {
			d.lose(now)
			for pop := range dead {
				d.verdicts[health.Target{Kind: health.PoP, Name: pop}] = health.Verdict{Status: health.Down}
			}
			loads, failed := d.loads(d.view(now), d.weights(now)), false
			for i := range d.table.PoPs() {
				if name, p := d.table.PoP(router.Choice(i)); loads[name] > float64(p.CapacityRPS) && !dead[name] {
					dead[name], failed = true, true
				}
			}
			if !failed || len(dead) == d.table.PoPs() {
				break
			}
			waves = max(waves, wave)
		}
	}
	t.Logf("%d of %d PoPs are dead, in up to %d waves", len(dead), d.table.PoPs(), waves)
	if waves < 3 || len(dead) < d.table.PoPs()/2 {
		t.Errorf("%d PoPs are dead, in up to %d waves: no cascade", len(dead), waves)
	}
}
