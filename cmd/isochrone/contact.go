package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// contact knows when etcd, or the relay in its place, answered last. It is safe for concurrent use.
type contact struct {
	log   *slog.Logger
	with  string                    // etcd or the relay
	since time.Time                 // when it began
	last  atomic.Pointer[time.Time] // nil before the first
	lost  atomic.Pointer[string]    // why the topology cannot be followed; nil when it can
}

func newContact(log *slog.Logger, with string) *contact {
	return &contact{log: log, with: with, since: time.Now()}
}

// note takes that there was an answer, or why there was none, and tells when that changes.
func (c *contact) note(err error) {
	if err == nil {
		now := time.Now()
		if c.last.Swap(&now); c.lost.Swap(nil) != nil {
			c.log.Info(c.with + " answers again, and the topology is followed")
		}
		return
	}
	reason := err.Error()
	if errors.Is(err, context.DeadlineExceeded) {
		reason = "no answer"
	}
	if before := c.lost.Swap(&reason); before == nil || *before != reason {
		c.log.Error(c.with+" cannot be used: what is in force stays so, and it is tried again", "error", reason)
	}
}

// up reports whether there are answers and the topology can be followed.
func (c *contact) up() bool { return c.last.Load() != nil && c.lost.Load() == nil }

// String tells how things are.
func (c *contact) String() string {
	text := c.with + " has not answered yet"
	if c.last.Load() != nil {
		text = c.with + " answered " + c.age().Round(time.Second).String() + " ago"
	}
	if reason := c.lost.Load(); reason != nil {
		text += ": " + *reason
	}
	return text
}

// age is how long ago there was an answer; the time since the start when there has been none yet.
func (c *contact) age() time.Duration { return time.Since(*cmp.Or(c.last.Load(), &c.since)) }
