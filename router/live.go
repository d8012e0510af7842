package router

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// Live holds the current view and renews it when one of its inputs changes. View may be called from any goroutine and never
// waits; the other methods are serialised among themselves. The zero Live is not usable: see NewLive.
type Live struct {
	view atomic.Pointer[View]

	edits  sync.Mutex // of those who compile, one after the other
	atlas  *Atlas
	rttMap *rtt.Map

	mu       sync.Mutex         // of those who publish; whoever has both took edits first
	snapshot *topology.Snapshot // nil before the first
	decided  *topology.Snapshot // whose overrides are in force already, while its topology is not; nil for none
	verdicts health.Verdicts
	shares   map[string]float64
	spill    Spill
	prepared []func(*View)
	followed []func(*View)
}

// NewLive returns a Live without a view; it has one after the first Topology.
func NewLive(atlas *Atlas) *Live { return &Live{atlas: atlas} }

// Follow calls publish with the current view, if there is one, and with each that comes after it, in order, before the method
// that renews the view returns. Publish must not call methods of the Live but View.
func (l *Live) Follow(publish func(*View)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.followed = append(l.followed, publish)
	if view := l.view.Load(); view != nil {
		publish(view)
	}
}

// Prepare has prepare called with a view of what takes more than a new state, such as another topology or other signing, before Follow's
// publish is called with one: what takes long is made meanwhile, while verdicts and overrides go on to take effect. The view that is
// published afterwards has that table or a copy with a newer snapshot, and another state if there is one. Prepare must not call methods of
// the Live but View.
func (l *Live) Prepare(prepare func(*View)) {
	l.edits.Lock()
	defer l.edits.Unlock()
	l.prepared = append(l.prepared, prepare)
}

// View returns the current view, or nil before there is one.
func (l *Live) View() *View { return l.view.Load() }

// Topology takes a new snapshot. The table is compiled anew only if the topology in force has changed; an override or key
// needs only a new state. When compiling fails, the view stays as it is.
func (l *Live) Topology(snap *topology.Snapshot, now time.Time) error {
	if l.Renew(snap, now) {
		return nil
	}
	l.edits.Lock()
	defer l.edits.Unlock()
	if old := l.View(); old != nil && old.Table.snapshot.Topology == snap.Topology { // other signing
		renewed := *old.Table
		renewed.snapshot = snap
		l.take(&renewed, l.newest(), now)
		return nil
	}
	return l.compile(snap, l.atlas, l.rttMap, now)
}

// Renew takes a new snapshot as Topology does, if that needs no more than a new state, since topology and signing are those in force. Else
// it reports false, and all stays as it is.
func (l *Live) Renew(snap *topology.Snapshot, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.view.Load()
	if old == nil || old.Table.snapshot.Topology != snap.Topology || old.Table.snapshot.Signed != snap.Signed {
		return false
	}
	renewed := *old.Table
	renewed.snapshot, l.snapshot, l.decided = snap, snap, nil
	l.publish(&renewed, now)
	return true
}

// Decisions takes the overrides of a snapshot whose topology is not in force yet, since one is being compiled. They take effect on the
// topology in force, and go on to do so when an earlier snapshot's is. The snapshot itself is for Topology, later.
func (l *Live) Decisions(snap *topology.Snapshot, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.decided = snap; l.snapshot == nil {
		return
	}
	renewed := *l.view.Load().Table
	renewed.snapshot = withOverrides(l.snapshot, snap)
	l.snapshot = renewed.snapshot
	l.publish(&renewed, now)
}

// withOverrides returns a snapshot with the overrides of a later one.
func withOverrides(snap, later *topology.Snapshot) *topology.Snapshot {
	decided := *snap
	decided.Overrides = later.Overrides
	return &decided
}

// Atlas takes a new geo database.
func (l *Live) Atlas(atlas *Atlas, now time.Time) error {
	l.edits.Lock()
	defer l.edits.Unlock()
	return l.compile(l.newest(), atlas, l.rttMap, now)
}

// Measured takes a new RTT map; nil stands for none.
func (l *Live) Measured(measured *rtt.Map, now time.Time) error {
	l.edits.Lock()
	defer l.edits.Unlock()
	return l.compile(l.newest(), l.atlas, measured, now)
}

// newest returns the snapshot in force, or nil before the first.
func (l *Live) newest() *topology.Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot
}

// compile publishes a new table, or leaves all as it is. Without a snapshot the inputs wait for the first one. Verdicts, shares and
// overrides take effect on the old table meanwhile.
func (l *Live) compile(snap *topology.Snapshot, atlas *Atlas, measured *rtt.Map, now time.Time) error {
	if snap != nil {
		before := l.newest()
		var old *Table
		if view := l.View(); view != nil {
			old = view.Table
		}
		table, err := compile(snap, atlas, measured, max(1, runtime.GOMAXPROCS(0)/2), old) // the other half goes on answering
		if err != nil {
			return fmt.Errorf("compile topology of revision %d: %w", snap.Revision, err)
		}
		l.take(table, before, now)
		if old == nil || table.targets != old.targets {
			runtime.GC() // the old table and what compiling has left are as large as all that is in use
		}
	}
	l.atlas, l.rttMap = atlas, measured
	return nil
}

// take has a new table prepared for, and publishes it. What was taken since the snapshot before was the newest one stays in force.
func (l *Live) take(table *Table, before *topology.Snapshot, now time.Time) {
	if len(l.prepared) > 0 {
		ahead := l.ahead(table, now)
		for _, prepare := range l.prepared {
			prepare(ahead)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if newer := l.snapshot; newer != before && newer.Topology == table.snapshot.Topology {
		table.snapshot = newer
	}
	if d := l.decided; d != nil && d.Revision > table.snapshot.Revision {
		table.snapshot = withOverrides(table.snapshot, d)
	} else {
		l.decided = nil
	}
	l.snapshot = table.snapshot
	l.publish(table, now)
}

// ahead returns a view of a table that is not in force yet.
func (l *Live) ahead(table *Table, now time.Time) *View {
	l.mu.Lock()
	in := Inputs{Verdicts: l.verdicts, Overrides: table.snapshot.Overrides, Shares: l.shares, Spill: l.spill, Now: now}
	l.mu.Unlock()
	return &View{Table: table, State: NewState(table, in)}
}

// Verdicts takes new verdicts, which must not change afterwards.
func (l *Live) Verdicts(verdicts health.Verdicts, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verdicts = verdicts
	l.renew(now)
}

// Shares takes what share of its clients each PoP gets, by name; those that are not named get all. The map must not change
// afterwards.
func (l *Live) Shares(shares map[string]float64, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shares = shares
	l.renew(now)
}

// Spill takes what share of its clients each PoP gets, by clients. It must not change afterwards.
func (l *Live) Spill(spill Spill, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.spill = spill
	l.renew(now)
}

// Expire renews the state when an override has expired by now. It returns when to call it next, or the zero time when
// nothing will expire.
func (l *Live) Expire(now time.Time) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	view := l.view.Load()
	if view == nil {
		return time.Time{}
	}
	if next, ok := view.State.Expires(); !ok || now.Before(next) {
		return next
	}
	l.renew(now)
	next, _ := l.view.Load().State.Expires()
	return next
}

// renew makes a new state of the present table.
func (l *Live) renew(now time.Time) {
	if view := l.view.Load(); view != nil {
		l.publish(view.Table, now)
	}
}

func (l *Live) publish(table *Table, now time.Time) {
	in := Inputs{Verdicts: l.verdicts, Overrides: l.snapshot.Overrides, Shares: l.shares, Spill: l.spill, Now: now}
	view := &View{Table: table, State: NewState(table, in)}
	l.view.Store(view)
	for _, publish := range l.followed {
		publish(view)
	}
}
