package overload

import (
	"context"
	"math"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"
)

// Load is how busy a PoP was in the last second: what it tells those who send clients to it. Rates are in requests a second.
type Load struct {
	RequestsPerSecond float64       `json:"requests_per_second"` // that came: accepted, shed, and refused for other reasons
	AcceptedPerSecond float64       `json:"accepted_per_second"` // that were stored
	ShedPerSecond     float64       `json:"shed_per_second"`     // that were refused for overload
	ShedShare         float64       `json:"shed_share"`          // of the requests, in 0..1
	CapacityPerSecond float64       `json:"capacity_per_second"` // what the PoP does at most, as far as it has shown: 0 until it was at its limit
	CPU               float64       `json:"cpu"`                 // share of the processors that the process may use, in 0..1
	QueueDelay        time.Duration `json:"queue_delay"`         // for a processor: what one of a hundred waits exceeds, at its worst
	StorageDelay      time.Duration `json:"storage_delay"`       // for the disk: the mean
}

// reportEvery is how long the time is that a Load is about.
const reportEvery = time.Second

// busyLooks is how many looks in a row find the processors busy before they are.
const busyLooks = 3

// Run measures, until ctx ends.
func (o *Overload) Run(ctx context.Context) error {
	var (
		waits   schedulerWaits
		ticker  = time.NewTicker(o.options.Interval)
		count   = o.since(time.Now())
		report  = count
		longest time.Duration
		done    float64 // a second, of late
		late    int     // looks in a row
		ceiling float64 // what was done in seconds in which requests were shed, of late
	)
	waits.late()
	defer ticker.Stop()
	defer o.share.Store(0)
	defer o.busy.Store(false)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		o.advance()
		now := o.since(time.Now())
		rate := float64(now.left-count.left) / now.at.Sub(count.at).Seconds()
		done += (rate - done) / 8
		o.pace(done)
		o.proceed(now.at.Sub(count.at))
		queue, worst := waits.late()
		if late++; queue <= o.options.Busy {
			late = 0
		}
		o.busy.Store(late >= busyLooks)
		o.weigh(now.shareSince(count))
		count, longest = now, max(longest, worst)
		if now.at.Sub(report.at) >= reportEvery {
			load := now.load(report, longest)
			if load.ShedShare > 0.01 && load.AcceptedPerSecond > 0 {
				ceiling += (load.AcceptedPerSecond - ceiling) / 4
				if ceiling < load.AcceptedPerSecond/2 { // the first
					ceiling = load.AcceptedPerSecond
				}
			}
			load.CapacityPerSecond = max(ceiling, 0)
			o.load.Store(load)
			report, longest = now, 0
		}
	}
}

// advance begins an epoch. What is left of the one that had its place is requests whose bodies have not come for seconds.
func (o *Overload) advance() {
	next := o.epoch.Load() + 1
	o.coming[next%epochs].Store(0)
	o.epoch.Store(next)
}

// weigh takes the share that was shed in the last interval into that of late.
func (o *Overload) weigh(share float64) {
	late := o.ShedShare()
	if late += (share - late) / 8; late < 0.001 && share == 0 {
		late = 0
	}
	o.share.Store(math.Float64bits(late))
}

// totals are what was counted until a moment.
type totals struct {
	at                  time.Time
	entered, shed, left uint64
	waited, cpu         time.Duration
}

func (o *Overload) since(now time.Time) totals {
	t := totals{at: now, left: o.left.Load(), waited: time.Duration(o.waited.Load())}
	t.entered, t.shed = o.Totals()
	var usage syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &usage) == nil {
		t.cpu = time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
	}
	return t
}

func (t totals) storageDelay(before totals) time.Duration {
	if t.left == before.left {
		return 0
	}
	return (t.waited - before.waited) / time.Duration(t.left-before.left)
}

// shareSince returns the share that was shed since.
func (t totals) shareSince(before totals) float64 {
	shed := float64(t.shed - before.shed)
	if shed == 0 {
		return 0
	}
	return shed / (shed + float64(t.entered-before.entered))
}

func (t totals) load(before totals, queue time.Duration) *Load {
	seconds := t.at.Sub(before.at).Seconds()
	per := func(after, before uint64) float64 { return float64(after-before) / seconds }
	return &Load{
		RequestsPerSecond: per(t.entered+t.shed, before.entered+before.shed), AcceptedPerSecond: per(t.left, before.left),
		ShedPerSecond: per(t.shed, before.shed), ShedShare: t.shareSince(before), QueueDelay: queue, StorageDelay: t.storageDelay(before),
		CPU: min((t.cpu-before.cpu).Seconds()/seconds/float64(runtime.GOMAXPROCS(0)), 1),
	}
}

// schedulerWaits measures how long goroutines that could run have waited for a processor: each stream of a request is one, so that
// this is the time in the queue in front of the work.
type schedulerWaits struct {
	sample      [1]metrics.Sample
	before      []uint64
	tenth, most time.Duration // that were measured
	few         int           // looks since then
}

// Under fewWaits measured ones a look tells nothing, and those of the next one are taken together with them; after manyLooks of this
// kind there is nothing to wait for.
const (
	fewWaits  = 10
	manyLooks = 10
)

// late returns the waits since the last call that one of ten has exceeded, and one of a hundred, in steps of about an eighth. The
// median would not do: a goroutine that another wakes and then waits for runs at once, whatever else there is.
func (s *schedulerWaits) late() (tenth, most time.Duration) {
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0, 0
	}
	histogram := s.sample[0].Value.Float64Histogram()
	if s.before == nil {
		s.before = make([]uint64, len(histogram.Counts))
	}
	var n uint64
	for i, c := range histogram.Counts {
		n += c - s.before[i]
	}
	if n < fewWaits {
		if s.few++; s.few > manyLooks {
			s.tenth, s.most = 0, 0
		}
		return s.tenth, s.most
	}
	s.few = 0
	s.tenth, s.most = s.exceeded(histogram, n-n/10), s.exceeded(histogram, n-n/100)
	copy(s.before, histogram.Counts)
	return s.tenth, s.most
}

// exceeded returns the wait that all but the longest have had: so many, in order of their length.
func (s *schedulerWaits) exceeded(histogram *metrics.Float64Histogram, rank uint64) time.Duration {
	for i, c := range histogram.Counts {
		part := c - s.before[i]
		if part >= rank {
			late := histogram.Buckets[i+1]
			if math.IsInf(late, 1) {
				late = histogram.Buckets[i]
			}
			return time.Duration(late * float64(time.Second))
		}
		rank -= part
	}
	return 0
}
