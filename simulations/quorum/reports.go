package quorum

import (
	"slices"
	"time"

	"github.com/isochrone/isochrone/health"
)

// report returns what the vantage says: the truth as it sees it, or what it makes of it.
func (v *vantage) report(full bool) *health.Report {
	v.sequence++
	r := &health.Report{
		Vantage: v.Vantage, Incarnation: int64(v.lives), Sequence: v.sequence, Full: full, Statements: v.watcher.Statements(v.local()),
	}
	if v.index == v.badOne {
		r.Statements = slices.DeleteFunc(r.Statements, func(s health.Statement) bool {
			return v.world.bad == Silent && v.world.index[s.Target.Name]%2 == 0
		})
		for i := range r.Statements {
			v.lie(&r.Statements[i])
		}
	}
	return r
}

func (v *vantage) lie(s *health.Statement) {
	says := func(status health.Status) {
		s.Status, s.Late, s.Failures, s.Code, s.Reason = status, false, 0, "", "accepted a probe"
		if status == health.Down {
			s.Failures, s.Code, s.Reason = 2, health.Timeout, "no answer within 1s"
		}
	}
	switch p := v.pops[v.world.index[s.Target.Name]]; {
	case v.world.bad == Contrary && s.Status == health.Up, v.world.bad == LiesRegion && p.continent == "EU":
		says(health.Down)
	case v.world.bad == Contrary, v.world.bad == LiesRegion:
		says(health.Up)
	case v.world.bad == Alarmist && s.Status == health.Up && v.now/time.Second%3 == 0:
		s.Late = true
	}
}

// lies reports whether what the vantage says changes without its seeing anything.
func (v *vantage) lies() bool { return v.index == v.badOne && v.world.bad == Alarmist }

// send sends datagrams: all statements, or those that changed a short time ago. The other vantages of a target are told only of suspicions.
func (v *vantage) send(full, suspicion bool) {
	r := v.report(full)
	if !full && !v.lies() {
		r.Statements = slices.DeleteFunc(r.Statements, func(s health.Statement) bool {
			changed, ok := v.changed[s.Target]
			return !ok || v.local().Sub(changed) > recent
		})
	}
	b := r.Append(nil, datagram, v.local())
	if v.index == v.badOne && v.world.bad == Replays && v.now > v.middle() {
		b = nil // it has only old ones
	}
	v.tape(b)
	told := map[string]bool{}
	if suspicion || v.lies() {
		for _, s := range r.Statements {
			v.schedule.Others(s.Target, func(name string) { told[name] = true })
		}
	}
	for _, j := range v.judges {
		v.datagram(b, v.place, j.place, j.hear)
	}
	for _, other := range v.vantages {
		if told[other.Vantage.Name] {
			v.datagram(b, v.place, other.place, func(b []byte) {
				if other.life != 0 {
					other.hear(b)
				}
			})
		}
	}
}

// datagram sends one, if there is something to send.
func (w *world) datagram(b []byte, from, to place, deliver func([]byte)) {
	if b == nil {
		return
	}
	w.score.Datagrams++
	w.score.DatagramOctets += int64(len(b))
	if w.random.Float64() < loss || w.directCut() {
		return
	}
	w.when(w.now+w.oneWay(from.at, to.at)+w.badDelay(from), func() { deliver(b) })
}

func (w *world) badDelay(from place) time.Duration {
	if w.bad == Slow && from.name == w.pops[w.badOne].name {
		return 2 * time.Second
	}
	return 0
}

// tape keeps a datagram for who replays it.
func (v *vantage) tape(b []byte) {
	if b == nil || v.world.bad != ReplayedAll && (v.world.bad != Replays || v.index != v.badOne) {
		return
	}
	v.world.taped = append(v.world.taped, b)
}

// replay sends old datagrams to all judges, again and again.
func (w *world) replay() {
	for range min(len(w.taped), 5) {
		b := w.taped[w.random.IntN(len(w.taped))]
		for _, j := range w.judges {
			w.when(w.now+time.Duration(w.random.Int64N(int64(100*time.Millisecond))), func() { j.hear(b) })
		}
	}
	w.when(w.now+200*time.Millisecond, w.replay)
}

func (w *world) middle() time.Duration { return w.length() / 2 }

// write has the report written to etcd, not more than four times a second. Everybody reads it there a little later.
func (v *vantage) write() {
	if v.writing || v.storeAway() || v.index == v.badOne && v.world.bad == Replays && v.now > v.middle() {
		return
	}
	v.writing = true
	v.when(max(v.now, v.written+etcdSpacing), v.alive(func() {
		v.writing, v.written = false, v.now
		if v.storeAway() {
			return
		}
		b := v.report(true).Append(nil, 0, v.local())
		v.score.Writes++
		v.score.WriteOctets += int64(len(b))
		for _, j := range v.judges {
			v.when(v.now+v.etcdTakes(), func() { j.hear(b) })
		}
		for _, other := range v.vantages {
			if other != v {
				v.when(v.now+v.etcdTakes(), func() {
					if other.life != 0 {
						other.hear(b)
					}
				})
			}
		}
	}))
}

func (v *vantage) etcdTakes() time.Duration {
	return etcdLeast + time.Duration(v.random.Int64N(int64(etcdMost-etcdLeast))) + v.badDelay(v.place)
}
