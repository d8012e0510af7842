package store

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// The pauses between attempts to follow a feed grow from the first to the last.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// steady is how long a feed has lasted that is tried again soon. One that ends sooner may go on doing so: a member of etcd that is cut
// off from the others says what there is, and then nothing more.
const steady = 5 * time.Second

// ErrForgotten says why a store is not followed that has no topology any more, when it is read after a while: etcd was emptied, or the
// address is that of another one. What is in force stays so. Its revision does not tell: nodes and quotas soon bring an empty etcd to any.
var ErrForgotten = errors.New("etcd has no topology any more: restore it from a backup, or apply one")

// errMissed ends a feed whose follower has something else than the feed says that is stored.
var errMissed = errors.New("a change of the store has been missed: all is read anew")

// Tail follows a feed through its failures, and gives on what changes.
type Tail struct {
	Feed Feed
	// Take is called with all there is, and then with what has changed, in order. While it works, changes add up to one update.
	Take func(Update)
	// Contact, if it is not nil, is told each time that the feed had something to say, and with an error each time that it failed and is
	// about to be tried again. It must not wait.
	Contact func(error)

	mu       sync.Mutex
	serves   bool // a topology is in force from before, until all there is has been read
	began    bool // all there is has been read once
	has      contents
	revision int64 // 0 before the first
	waiting  *Update
	wake     chan struct{}
}

// Run follows until ctx ends, whose error it returns. It may be called once.
func (t *Tail) Run(ctx context.Context) error {
	t.has, t.wake = contents{sums: map[string]Sum{}, sum: unknown}, make(chan struct{}, 1)
	if t.Contact == nil {
		t.Contact = func(error) {}
	}
	var giving sync.WaitGroup
	defer giving.Wait()
	giving.Go(func() { t.give(ctx) })

	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		heard, began := false, time.Now()
		err := t.Feed(ctx, t.has.sum, func(u Update) error {
			if err := t.take(u); err != nil {
				return err
			}
			heard = true
			t.Contact(nil)
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if heard && time.Since(began) >= steady {
			pause = firstPause
		}
		if errors.Is(err, errMissed) { // the feed cannot tell the difference to what it does not know
			t.forget()
		}
		if errors.Is(err, errCompacted) || errors.Is(err, errMissed) && heard {
			continue
		}
		if t.Contact(err); errors.Is(err, errWentBack) {
			continue
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Revision returns the store's revision up to which the tail knows all, 0 before the first. It may be called from any goroutine.
func (t *Tail) Revision() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.revision
}

// forget has the next feed tell all there is.
func (t *Tail) forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.has.sum = unknown
}

// take adds an update to what waits to be given on, as far as it is news.
func (t *Tail) take(u Update) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if serves := t.serves && !t.began || hasTopology(t.has.sums); u.Whole && serves && !hasTopology(u.Put) {
		return fmt.Errorf("%w (it is at %d, after %d)", ErrForgotten, u.Revision, t.revision)
	}
	if u.Whole { // whatever made the sum wrong is mended with it
		t.has.sum = Sum{}
		for _, sum := range t.has.sums {
			t.has.sum.Combine(sum)
		}
	}
	next := t.waiting
	if next == nil {
		next = &Update{Put: map[string][]byte{}, Whole: u.Whole && !t.began}
	}
	deleted := map[string]bool{}
	for _, key := range next.Delete {
		deleted[key] = true
	}
	news := next.Whole
	remove := func(key string) {
		if t.has.delete(key) {
			delete(next.Put, key)
			deleted[key], news = true, true
		}
	}
	if u.Whole {
		for key := range t.has.sums {
			if _, there := u.Put[key]; !there {
				remove(key)
			}
		}
	}
	for key, value := range u.Put {
		if t.has.put(key, value) {
			delete(deleted, key)
			next.Put[key], news = value, true
		}
	}
	for _, key := range u.Delete {
		remove(key)
	}
	t.began = t.began || u.Whole
	if t.revision = u.Revision; news {
		next.Delete = next.Delete[:0]
		for key := range deleted {
			next.Delete = append(next.Delete, key)
		}
		next.Revision, t.waiting = u.Revision, next
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
	if u.Sum != nil && *u.Sum != t.has.sum {
		return errMissed
	}
	return nil
}

func hasTopology[T any](values map[string]T) bool {
	for key := range values {
		if strings.HasPrefix(key, "topology/") {
			return true
		}
	}
	return false
}

// give gives on what waits, until ctx ends.
func (t *Tail) give(ctx context.Context) {
	for {
		select {
		case <-t.wake:
		case <-ctx.Done():
			return
		}
		t.mu.Lock()
		next := t.waiting
		t.waiting = nil
		t.mu.Unlock()
		if next != nil {
			t.Take(*next)
		}
	}
}
