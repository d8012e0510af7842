package overload

import (
	"context"
	"math"
	"runtime"
	"runtime/metrics"
	"syscall"
	"time"
)

// Load is how busy a PoP is.
type Load struct {
	RequestsPerSecond float64       `json:"requests_per_second"` // that came, those that were shed among them
	CPU               float64       `json:"cpu"`                 // share of the processors that the process may use, in 0..1
	QueueDelay        time.Duration `json:"queue_delay"`         // for a processor: what one of ten waits exceeds, at its worst
	StorageDelay      time.Duration `json:"storage_delay"`       // for the disk: the mean
	ShedShare         float64       `json:"shed_share"`          // of the requests, in 0..1
}

// reportEvery is how long the time is that a Load is about.
const reportEvery = time.Second

// Run looks at the delays, and sheds accordingly, until ctx ends.
func (o *Overload) Run(ctx context.Context) error {
	var (
		waits    schedulerWaits
		control  controller
		ticker   = time.NewTicker(o.options.Interval)
		count    = o.since(time.Now())
		report   = count
		longest  time.Duration
		accepted float64 // a second, of late
	)
	waits.late()
	defer ticker.Stop()
	defer o.share.Store(0)
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		now := o.since(time.Now())
		done := float64(now.left-count.left) / now.at.Sub(count.at).Seconds()
		accepted += (done - accepted) / 4
		o.pace(accepted)
		queue, storage := waits.late(), now.storageDelay(count)
		count, longest = now, max(longest, queue)
		delay := max(queue, time.Duration(float64(storage)*float64(o.options.Target)/float64(o.options.Storage)))
		o.share.Store(uint32(control.look(delay, o.options.Target) * (1 << 32)))
		if now.at.Sub(report.at) >= reportEvery {
			o.load.Store(now.load(report, longest))
			report, longest = now, 0
		}
	}
}

// totals are what was counted until a moment.
type totals struct {
	at                  time.Time
	entered, shed, left uint64
	waited, cpu         time.Duration
}

func (o *Overload) since(now time.Time) totals {
	t := totals{at: now}
	t.entered, t.shed = o.Totals()
	t.left, t.waited = o.left()
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

func (t totals) load(before totals, queue time.Duration) *Load {
	seconds := t.at.Sub(before.at).Seconds()
	came := float64(t.entered-before.entered) + float64(t.shed-before.shed)
	l := &Load{
		RequestsPerSecond: came / seconds, QueueDelay: queue, StorageDelay: t.storageDelay(before),
		CPU: min((t.cpu-before.cpu).Seconds()/seconds/float64(runtime.NumCPU()), 1),
	}
	if came > 0 {
		l.ShedShare = float64(t.shed-before.shed) / came
	}
	return l
}

// schedulerWaits measures how long goroutines that could run have waited for a processor: each stream of a request is one, so that
// this is the time in the queue in front of the work.
type schedulerWaits struct {
	sample [1]metrics.Sample
	before []uint64
	last   time.Duration // that was measured
	few    int           // looks since then
}

// Under fewWaits measured ones a look tells nothing, and those of the next one are taken together with them; after manyLooks of this
// kind there is nothing to wait for.
const (
	fewWaits  = 10
	manyLooks = 10
)

// late returns the wait since the last call that one of ten has exceeded, in steps of about an eighth. The median would not do: a
// goroutine that another wakes and then waits for runs at once, whatever else there is.
func (s *schedulerWaits) late() time.Duration {
	s.sample[0].Name = "/sched/latencies:seconds"
	metrics.Read(s.sample[:])
	if s.sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
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
			s.last = 0
		}
		return s.last
	}
	s.few = 0
	rest, found := n*9/10, false
	for i, c := range histogram.Counts {
		part := c - s.before[i]
		if part > rest && !found {
			found = true
			late := histogram.Buckets[i+1]
			if math.IsInf(late, 1) {
				late = histogram.Buckets[i]
			}
			s.last = time.Duration(late * float64(time.Second))
		}
		rest -= min(part, rest)
		s.before[i] = c
	}
	return s.last
}
