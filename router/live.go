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
	verdicts health.Verdicts
	shares   map[string]float64
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

// View returns the current view, or nil before there is one.
func (l *Live) View() *View { return l.view.Load() }

// Topology takes a new snapshot. The table is compiled anew only if the topology in force has changed; an override or key
// needs only a new state. When compiling fails, the view stays as it is.
func (l *Live) Topology(snap *topology.Snapshot, now time.Time) error {
	if l.sameTopology(snap, now) {
		return nil
	}
	l.edits.Lock()
	defer l.edits.Unlock()
	return l.compile(snap, l.atlas, l.rttMap, now)
}

// sameTopology publishes a view with a new snapshot, if the topology is the one in force.
func (l *Live) sameTopology(snap *topology.Snapshot, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.view.Load()
	if old == nil || old.Table.snapshot.Topology != snap.Topology {
		return false
	}
	renewed := *old.Table
	renewed.snapshot, l.snapshot = snap, snap
	l.publish(&renewed, now)
	return true
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
		var old *Table
		if view := l.View(); view != nil {
			old = view.Table
		}
		table, err := compile(snap, atlas, measured, max(1, runtime.GOMAXPROCS(0)/2), old) // the other half goes on answering
		if err != nil {
			return fmt.Errorf("compile topology of revision %d: %w", snap.Revision, err)
		}
		l.take(table, now)
		if old == nil || table.targets != old.targets {
			runtime.GC() // the old table and what compiling has left are as large as all that is in use
		}
	}
	l.atlas, l.rttMap = atlas, measured
	return nil
}

// take publishes a new table, with the newest snapshot of its topology.
func (l *Live) take(table *Table, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if newer := l.snapshot; newer != nil && newer.Topology == table.snapshot.Topology && newer.Revision > table.snapshot.Revision {
		table.snapshot = newer
	}
	l.snapshot = table.snapshot
	l.publish(table, now)
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
	in := Inputs{Verdicts: l.verdicts, Overrides: l.snapshot.Overrides, Shares: l.shares, Now: now}
	view := &View{Table: table, State: NewState(table, in)}
	l.view.Store(view)
	for _, publish := range l.followed {
		publish(view)
	}
}
