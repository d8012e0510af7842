package quorum

import (
	"time"

	"github.com/isochrone/isochrone/health"
)

// How reports travel.
const (
	heartbeat   = time.Second
	fullEvery   = 10                     // heartbeats: then all statements are sent again
	recent      = 5 * time.Second        // changed statements are repeated for so long
	etcdSpacing = 250 * time.Millisecond // between two writes of one vantage
	etcdLeast   = 50 * time.Millisecond
	etcdMost    = 150 * time.Millisecond
	datagram    = 1200 // octets
)

// vantage is a PoP's process: it probes, and reports what it sees.
type vantage struct {
	*world
	health.Vantage
	place
	index    int
	clock    clock
	all      []health.Vantage
	life     int // which process it is; 0 when there is none
	lives    int
	watcher  *health.Watcher
	schedule *health.Schedule
	ledger   *health.Ledger
	sequence uint64
	beats    int
	changed  map[health.Target]time.Time // when what is said of it changed
	wake     time.Duration               // when the schedule is asked next
	written  time.Duration               // to etcd
	writing  bool                        // soon
}

func (v *vantage) local() time.Time { return v.clock.local(v.now) }

// alive wraps f so that it is for this process alone.
func (v *vantage) alive(f func()) func() {
	life := v.life
	return func() {
		if v.life == life {
			f()
		}
	}
}

func (v *vantage) start() {
	v.lives++
	v.life = v.lives
	v.watcher = health.NewWatcher(health.Thresholds{}, health.Damping{})
	v.schedule = health.NewSchedule(v.Vantage.Name, health.Timing{})
	v.ledger = health.NewLedger()
	v.sequence, v.changed, v.writing = 0, map[health.Target]time.Time{}, false
	v.schedule.Assign(v.targets, v.all, v.local())
	for _, j := range v.judges {
		j.leases[v.Vantage.Name] = true
	}
	v.probeDue()
	v.beat()
}

func (v *vantage) stop() {
	life := v.life
	v.life = 0
	v.when(v.now+10*time.Second, func() { // its lease ends
		if v.life == 0 && v.lives == life {
			for _, j := range v.judges {
				j.leases[v.Vantage.Name] = false
			}
		}
	})
}

// probeDue begins the probes that are due.
func (v *vantage) probeDue() {
	due, again := v.schedule.Due(v.local())
	for _, t := range due {
		v.begin(t)
	}
	if again.IsZero() {
		return
	}
	v.wake = max(v.clock.global(again), v.now+time.Microsecond)
	wake := v.wake
	v.when(wake, v.alive(func() {
		if v.wake == wake {
			v.probeDue()
		}
	}))
}

func (v *vantage) begin(t health.Target) {
	v.score.Probes++
	timeout, late := v.watcher.Timeout(t), v.watcher.LateAfter(t)
	end, o := v.probe(v, v.world.index[t.Name], v.now, timeout)
	if end > v.now+late {
		v.when(v.now+late, v.alive(func() { v.late(t) }))
	}
	began := v.local()
	v.when(end, v.alive(func() {
		if o.OK {
			v.schedule.Answered(t, began)
		}
		v.observe(o)
	}))
}

func (v *vantage) late(t health.Target) {
	if v.watcher.Late(t, v.local()) {
		v.schedule.Confirm(t, v.local())
		v.news(t)
		v.probeDue()
	}
}

func (v *vantage) observe(o health.Observation) {
	o.At = v.local()
	changed := v.watcher.Observe(o)
	s, _ := v.watcher.Statement(o.Target, o.At)
	if o.OK && s.Status == health.Down && !s.Suppressed || !o.OK && s.Suspects() {
		v.schedule.Confirm(o.Target, o.At)
		v.probeDue()
	}
	if changed {
		v.news(o.Target)
	}
}

// news has what is said of a target be told: at once by datagram, soon through etcd.
func (v *vantage) news(t health.Target) {
	v.changed[t] = v.local()
	s, _ := v.watcher.Statement(t, v.local())
	v.send(false, s.Suspects() || s.Status == health.Down)
	v.write()
}

// beat is what is sent each second.
func (v *vantage) beat() {
	v.beats++
	v.send(v.beats%fullEvery == 1, false)
	if v.bad == WrongClock && v.index == v.badOne && v.beats%5 == 0 {
		v.clock.offset += time.Duration(v.random.NormFloat64() * float64(time.Minute))
		v.wake = 0
		v.probeDue()
	}
	v.when(v.now+heartbeat, v.alive(v.beat))
}

// hear takes a report of another vantage.
func (v *vantage) hear(b []byte) {
	now := v.local()
	r, err := health.DecodeReport(b, now)
	if err != nil {
		panic(err)
	}
	if _, err := v.ledger.Take(r, now); err != nil {
		return
	}
	for _, theirs := range r.Statements {
		mine, _ := v.watcher.Statement(theirs.Target, now)
		if v.schedule.Heard(r.Name, theirs, mine, now) {
			v.score.Bursts++
			v.probeDue()
		}
	}
}
