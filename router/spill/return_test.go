package spill

import (
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// TestReturnOverloadsNobody has a PoP come back at the height of its day, by steps: with the last step all its clients are its own again, and shares that
// count while it is lost count no more. The leader has planned for that while it came back.
func TestReturnOverloadsNobody(t *testing.T) {
	t.Parallel()
	d := newRealDay(t)
	small := *d.table.Snapshot().Topology.PoPs[lostPoP.Name]
	small.CapacityRPS = small.CapacityRPS * 7 / 10 // less than its own clients ask for then
	table, err := router.Compile(&topology.Snapshot{
		Topology: d.table.Snapshot().Topology.With(map[topology.Ref]topology.Object{{Kind: topology.PoPs, Name: lostPoP.Name}: &small}, nil),
	}, d.table.Atlas(), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.table = table
	back := 18 * time.Hour
	var leader Leader
	worst, worstBack := 0.0, 0.0
	for now := back - 4*time.Minute; now < back+90*time.Second; now += 6 * time.Second {
		d.verdicts = health.Verdicts{lostPoP: {Status: health.Down}}
		if now >= back {
			d.verdicts = health.Verdicts{lostPoP: {Status: health.Up, Recovered: midnight.Add(back)}}
		}
		view := d.view(now)
		loads := d.loads(view, d.weights(now))
		part, _ := d.fullest(loads)
		if now >= back-time.Minute { // after it has settled
			worst = max(worst, part)
		}
		if now >= back+54*time.Second {
			worstBack = max(worstBack, part)
		}
		told := Told{Now: midnight.Add(now), View: view, Clients: d.clients, Loads: map[string]Load{}, InForce: d.spill, Revision: d.revision, TTL: time.Second}
		for pop, load := range loads {
			told.Loads[pop] = Load{RequestsRPS: load}
		}
		if o := leader.Next(told); o.Changed {
			d.spill, d.revision = o.Spill, d.revision+1
		}
	}
	t.Logf("at most %.3f while it comes back, %.3f when it is back", worst, worstBack)
	if worst > 1.1 || worstBack > 1.01 { // what its clients ask for is not known well before it takes most of them
		t.Errorf("a PoP has %.3f of its capacity while another comes back, %.3f when it is back", worst, worstBack)
	}
}
