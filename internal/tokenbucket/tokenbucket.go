// Package tokenbucket bounds how often something happens, without a lock: one word, moved by compare and swap (the generic cell rate
// algorithm, ITU-T I.371). It is for what many requests ask at a time; golang.org/x/time/rate can wait, which this cannot.
package tokenbucket

import (
	"sync/atomic"
	"time"
)

// Bucket holds tokens that come at a steady rate. It may be used concurrently.
type Bucket struct {
	every time.Duration // between two tokens
	burst time.Duration // of what has not been taken before
	next  atomic.Int64  // when the next token would be due if all came evenly, nanoseconds since the epoch
}

// New returns a full bucket of a number of tokens, at least one, that gets so many a second. None come at a rate of zero or less, and
// Take is always false then.
func New(perSecond float64, burst int) *Bucket {
	if !(perSecond > 0) {
		return &Bucket{}
	}
	every := max(1, time.Duration(float64(time.Second)/perSecond))
	return &Bucket{every: every, burst: every * time.Duration(max(1, burst)-1)}
}

// Take takes a token, and reports whether there was one. A clock that is set back by more than the bucket holds fills it.
func (b *Bucket) Take(now time.Time) bool {
	if b.every == 0 {
		return false
	}
	at := now.UnixNano()
	for {
		next := b.next.Load()
		due := max(next, at)
		if due-at > int64(b.burst) {
			if due-at <= int64(b.burst+b.every) { // empty
				return false
			}
			due = at // the clock has been set back
		}
		if b.next.CompareAndSwap(next, due+int64(b.every)) {
			return true
		}
	}
}
