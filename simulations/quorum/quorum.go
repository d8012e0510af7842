package quorum

import (
	"fmt"
	"slices"
	"time"
)

// Result is what was measured in one world, or in several.
type Result struct {
	Down           map[Fault][]time.Duration // from the fault to the verdict; of RegionCut, to that of the region
	Up             map[Fault][]time.Duration // from the end of the fault to the verdict
	Missed         int                       // faults that a judge reached no verdict of while they lasted
	Wrong          int                       // verdicts of the world that were not true when they were reached
	WrongRegional  int                       // verdicts of regions
	Disagreements  int                       // of two judges, when reports had settled
	Old            int                       // reports that were disregarded
	Probes         int64
	Bursts         int64 // times that a vantage began one because of another's word
	Datagrams      int64
	DatagramOctets int64
	Writes         int64 // to etcd
	WriteOctets    int64
	Passed         time.Duration
	Notes          []string // what went wrong, the first of it
}

const mostNotes = 20

func (r *Result) note(format string, args ...any) {
	if len(r.Notes) < mostNotes {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

// Run lets a world with a bad vantage and so many faults, one every 45 seconds, pass, and returns what was measured.
func Run(seed uint64, bad Bad, faults int) Result {
	w := newWorld(seed, bad, faults, thirty)
	if bad == Replays || bad == ReplayedAll {
		w.when(0, w.replay)
	}
	w.run(warmUp - time.Second)
	for _, e := range w.events {
		w.run(e.begin - time.Millisecond)
		w.agree() // the fault before is over for at least fifteen seconds
		w.run(e.end - time.Millisecond)
		w.agree()
	}
	w.run(w.length())
	w.agree()
	w.collect()
	return w.score
}

func (w *world) length() time.Duration { return warmUp + time.Duration(len(w.events))*faultEvery }

func (w *world) collect() {
	w.score.Passed = w.length()
	w.score.Down, w.score.Up = map[Fault][]time.Duration{}, map[Fault][]time.Duration{}
	for _, e := range w.events {
		for i, took := range e.down {
			if took == 0 {
				w.score.Missed++
				w.score.note("%v: %s reached no verdict of %s: %s from %v to %v", w.bad, judges[i].name, w.pops[e.pop].name, e.fault, e.begin, e.end)
				continue
			}
			w.score.Down[e.fault] = append(w.score.Down[e.fault], took)
			if e.up[i] > 0 {
				w.score.Up[e.fault] = append(w.score.Up[e.fault], e.up[i])
			}
		}
	}
}

// Add adds what was measured in another world.
func (r *Result) Add(other Result) {
	if r.Down == nil {
		r.Down, r.Up = map[Fault][]time.Duration{}, map[Fault][]time.Duration{}
	}
	for _, fault := range Faults {
		r.Down[fault] = append(r.Down[fault], other.Down[fault]...)
		r.Up[fault] = append(r.Up[fault], other.Up[fault]...)
	}
	r.Missed, r.Wrong, r.WrongRegional = r.Missed+other.Missed, r.Wrong+other.Wrong, r.WrongRegional+other.WrongRegional
	r.Disagreements, r.Old = r.Disagreements+other.Disagreements, r.Old+other.Old
	r.Probes, r.Bursts = r.Probes+other.Probes, r.Bursts+other.Bursts
	r.Datagrams, r.DatagramOctets = r.Datagrams+other.Datagrams, r.DatagramOctets+other.DatagramOctets
	r.Writes, r.WriteOctets, r.Passed = r.Writes+other.Writes, r.WriteOctets+other.WriteOctets, r.Passed+other.Passed
	for _, note := range other.Notes {
		r.note("%s", note)
	}
}

// Quantile returns the value that a share q of them does not exceed; 0 when there is none.
func Quantile(of []time.Duration, q float64) time.Duration {
	if len(of) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(of))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

// Cost is what health costs in a world of n PoPs, for a second.
type Cost struct {
	PoPs                      int
	Probes                    float64 // of one target
	ReportOctets              float64 // of a whole report, the mean
	Datagrams, DatagramOctets float64 // of one vantage
	Writes, WriteOctets       float64 // to etcd, of all vantages
}

// Costs lets a world of n PoPs pass a minute in which nothing happens, and returns what that costs; and, if dies is true, ten seconds in
// which a host dies at the begin.
func Costs(n int, dies bool) Cost {
	w := newWorld(1, Nobody, 1, places(n))
	w.events[0].fault, w.events[0].begin, w.events[0].end = BrownOut, 0, 0
	w.run(2 * warmUp)
	length := time.Minute
	if dies {
		length = 10 * time.Second
		e := w.events[0]
		e.fault, e.begin, e.end = HostDead, w.now, w.now+time.Hour
		w.vantages[e.pop].stop()
	}
	w.score = Result{}
	w.run(w.now + length)
	c, seconds, vantages := Cost{PoPs: n}, length.Seconds(), float64(len(w.vantages))
	for _, v := range w.vantages {
		c.ReportOctets += float64(len(v.report(true).Append(nil, 0, v.local()))) / vantages
	}
	s := w.score
	c.Probes = float64(s.Probes) / seconds / vantages
	c.Datagrams, c.DatagramOctets = float64(s.Datagrams)/seconds/vantages, float64(s.DatagramOctets)/seconds/vantages
	c.Writes, c.WriteOctets = float64(s.Writes)/seconds, float64(s.WriteOctets)/seconds
	return c
}
