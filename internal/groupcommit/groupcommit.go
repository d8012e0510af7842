// Package groupcommit lets many callers share one expensive commit, such as a write with fdatasync: those who arrive while
// a commit is under way are committed together by the next.
package groupcommit

import "sync"

// Group collects items for commits. It has no goroutine of its own: one of the waiting callers commits for all. Its methods
// may be called concurrently.
type Group[T any] struct {
	commit func([]T) error

	mu      sync.Mutex
	busy    bool
	waiting []*call[T]
}

type call[T any] struct {
	item T
	done chan error    // the result
	lead chan struct{} // closed when the caller is the next to commit
}

// New returns a Group whose commit function is called by one goroutine at a time, with items in the order of their arrival.
// Its error is that of all its items.
func New[T any](commit func([]T) error) *Group[T] { return &Group[T]{commit: commit} }

// Do commits an item and returns when that is done.
func (g *Group[T]) Do(item T) error {
	c := &call[T]{item: item, done: make(chan error, 1), lead: make(chan struct{})}
	g.mu.Lock()
	g.waiting = append(g.waiting, c)
	leads := !g.busy
	g.busy = true
	g.mu.Unlock()
	if !leads {
		select {
		case err := <-c.done:
			return err
		case <-c.lead:
		}
	}
	g.lead()
	return <-c.done
}

// lead commits all that wait, the caller's own item among them, and hands over to the first of those who came meanwhile.
func (g *Group[T]) lead() {
	g.mu.Lock()
	batch := g.waiting
	g.waiting = nil
	g.mu.Unlock()
	items := make([]T, len(batch))
	for i, c := range batch {
		items[i] = c.item
	}
	err := g.commit(items)
	g.mu.Lock()
	if len(g.waiting) > 0 {
		close(g.waiting[0].lead)
	} else {
		g.busy = false
	}
	g.mu.Unlock()
	for _, c := range batch {
		c.done <- err
	}
}
