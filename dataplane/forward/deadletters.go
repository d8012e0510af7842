package forward

import (
	"fmt"
	"time"
)

// Bounds of dead letters that wait for the disk. After an outage of days all that is in the spool expires at once; what is beyond the bounds
// goes back to its end. What a cluster has refused is written in any case: it would be sent again.
const (
	maxUnburied     = 256
	maxUnburiedSize = 16 << 20 // octets of their bodies
)

// expire makes a dead letter of what no cluster has taken in time.
func (f *Forwarder) expire(j *job, age time.Duration) {
	if f.unburied >= maxUnburied || f.unburiedSize >= maxUnburiedSize {
		f.refund(j)
		f.giveBack(j)
		return
	}
	reason := fmt.Sprintf("no cluster has taken it in %s", age)
	if j.failure != "" {
		reason += "; the last failure: " + j.failure
	} else if last := f.lastFailure(j.item.Service); last != "" {
		reason += "; the last failure: " + last
	}
	f.mail(letter{j, reason, &f.counts.expired})
}

// lastFailure is that of the first cluster of a service that has one.
func (f *Forwarder) lastFailure(service string) string {
	if r := f.services[service]; r != nil {
		for _, c := range r.order {
			for _, e := range c.endpoints {
				if e.lastFailure != "" {
					return "cluster " + c.name + " " + e.lastFailure
				}
			}
		}
	}
	return ""
}

// mail has a letter written. The caller holds mu.
func (f *Forwarder) mail(l letter) {
	f.refund(l.job)
	f.letters = append(f.letters, l)
	f.unburied++
	f.unburiedSize += len(l.item.Body)
	select {
	case f.writing <- struct{}{}:
	default:
	}
}

// bury writes dead letters, which waits for the disk, until the channel is closed and all are written.
func (f *Forwarder) bury(ended <-chan struct{}) {
	for last := false; ; {
		f.mu.Lock()
		letters := f.letters
		f.letters = nil
		f.mu.Unlock()
		for _, l := range letters {
			f.write(l)
		}
		if last {
			return
		}
		select {
		case <-f.writing:
		case <-ended:
			last = true
		}
	}
}

func (f *Forwarder) write(l letter) {
	size := len(l.item.Body)
	err := f.config.Spool.Bury(l.item, l.reason)
	f.mu.Lock()
	f.unburied--
	f.unburiedSize -= size
	if err != nil {
		f.postpone(l.job, time.Now().Add(longestDelay))
	}
	f.mu.Unlock()
	if err != nil {
		f.config.Log.Error("a dead letter cannot be kept; its envelope stays in the queue", "error", err)
		return
	}
	l.counter.Add(1)
	f.config.Log.Warn("an envelope is a dead letter now", "id", l.item.ID, "reason", l.reason)
	f.left()
}

// left says that something has left.
func (f *Forwarder) left() {
	select {
	case f.room <- struct{}{}:
	default:
	}
}
