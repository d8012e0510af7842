package quorum

import (
	"fmt"
	"time"

	"github.com/isochrone/isochrone/health"
)

// judge is a DNS node: it hears reports and reaches verdicts.
type judge struct {
	*world
	place
	index    int
	clock    clock
	all      []health.Vantage
	ledger   *health.Ledger
	leases   map[string]bool // as etcd tells
	verdicts health.Verdicts
	waiting  bool
	living   int // vantages that were alive when verdicts were reached
	judged   time.Duration
}

const (
	directLife = 5 * time.Second       // how long a vantage is alive after a datagram
	coalesce   = 20 * time.Millisecond // how long reports wait for others before they are judged
)

func (j *judge) hear(b []byte) {
	now := j.clock.local(j.now)
	r, err := health.DecodeReport(b, now)
	if err != nil {
		panic(err)
	}
	changed, err := j.ledger.Take(r, now)
	if err != nil {
		j.score.Old++
	}
	if changed && !j.waiting { // for others that come at once
		j.waiting = true
		j.when(j.now+coalesce, j.judge)
	}
}

// tick looks each second whether a vantage died without a word, and judges now and then anyhow.
func (j *judge) tick() {
	if len(j.reports()) != j.living || j.now-j.judged > 5*time.Second {
		j.judge()
	}
	j.when(j.now+time.Second, j.tick)
}

// reports returns those of vantages that are alive.
func (j *judge) reports() []*health.Report {
	now := j.clock.local(j.now)
	return j.ledger.Reports(func(name string, heard time.Time) bool {
		return j.leases[name] && !j.storeAway() || now.Sub(heard) < directLife
	})
}

func (j *judge) judge() {
	reports := j.reports()
	j.waiting, j.living, j.judged = false, len(reports), j.now
	in := health.Inputs{
		Reports: reports, Targets: j.targets, Vantages: j.all, Previous: j.verdicts, Now: j.clock.local(j.now),
	}
	before := j.verdicts
	j.verdicts = health.Judge(in).Verdicts
	for i, t := range j.targets {
		j.compare(i, before[t], j.verdicts[t])
	}
}

// compare holds a verdict against the truth, when it changes.
func (j *judge) compare(pop int, before, after health.Verdict) {
	e := j.struck(pop, j.now)
	if before.Status != after.Status {
		dead := e != nil && e.fault != RegionCut
		switch after.Status {
		case health.Down:
			if !dead {
				j.wrong("%s says down of %s, which is well: %s", j.name, j.pops[pop].name, after.Reason)
			} else if e.down[j.index] == 0 {
				e.down[j.index] = j.now - e.begin
			}
		case health.Up:
			if dead && before.Status == health.Down {
				j.wrong("%s says up of %s, which is dead: %s", j.name, j.pops[pop].name, after.Reason)
			}
			if last := j.last(pop); !dead && before.Status == health.Down && last != nil && last.up[j.index] == 0 {
				last.up[j.index] = j.now - last.end
			}
		}
	}
	for region, r := range after.Regions {
		if r.Status != health.Down || before.Regions[region].Status == health.Down {
			continue
		}
		switch {
		case e == nil || e.fault == RegionCut && e.region != region:
			j.score.WrongRegional++
			j.score.note("%v %v %s says down of %s for %s, where it is well: %s", j.bad, j.now, j.name, j.pops[pop].name, region, r.Reason)
		case e.fault == RegionCut && e.down[j.index] == 0:
			e.down[j.index] = j.now - e.begin
		}
	}
}

// last returns the latest fault of a PoP that has ended.
func (w *world) last(pop int) (last *event) {
	for _, e := range w.events {
		if e.pop == pop && e.end <= w.now && (last == nil || e.end > last.end) {
			last = e
		}
	}
	return last
}

func (j *judge) wrong(format string, args ...any) {
	j.score.Wrong++
	j.score.note("%v %v %s", j.bad, j.now, fmt.Sprintf(format, args...))
}

// agree compares the judges' verdicts with each other.
func (w *world) agree() {
	for _, j := range w.judges[1:] {
		if !j.verdicts.SameStatus(w.judges[0].verdicts) {
			w.score.Disagreements++
			w.score.note("%v %v %s and %s disagree", w.bad, w.now, w.judges[0].name, j.name)
		}
	}
}
