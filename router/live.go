package router

import (
	"fmt"
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
	geo   Geo
	model *rtt.Model
	view  atomic.Pointer[View]

	mu       sync.Mutex
	snapshot *topology.Snapshot
	verdicts health.Verdicts
}

// NewLive returns a Live without a view; it has one after the first Topology.
func NewLive(geo Geo, model *rtt.Model) *Live { return &Live{geo: geo, model: model} }

// View returns the current view, or nil before there is one.
func (l *Live) View() *View { return l.view.Load() }

// Topology takes a new snapshot. The table is compiled anew only if the topology in force has changed; an override or key
// needs only a new state. When compiling fails, the view stays as it is.
func (l *Live) Topology(snap *topology.Snapshot, now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var table *Table
	if old := l.view.Load(); old != nil && old.Table.snapshot.Topology == snap.Topology {
		renewed := *old.Table
		renewed.snapshot = snap
		table = &renewed
	} else {
		compiled, err := Compile(snap, l.geo, l.model)
		if err != nil {
			return fmt.Errorf("compile topology of revision %d: %w", snap.Revision, err)
		}
		table = compiled
	}
	l.snapshot = snap
	l.publish(table, now)
	return nil
}

// Verdicts takes new verdicts, which must not change afterwards.
func (l *Live) Verdicts(verdicts health.Verdicts, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.verdicts = verdicts
	if view := l.view.Load(); view != nil {
		l.publish(view.Table, now)
	}
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
	l.publish(view.Table, now)
	next, _ := l.view.Load().State.Expires()
	return next
}

func (l *Live) publish(table *Table, now time.Time) {
	l.view.Store(&View{Table: table, State: NewState(table, l.verdicts, l.snapshot.Overrides, now)})
}
