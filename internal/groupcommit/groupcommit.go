// Package groupcommit lets many callers share one expensive commit, such as a write with fdatasync: those who arrive while
// a commit is under way are committed together by the next.
package groupcommit

import (
	"runtime"
	"sync"
	"time"
)

// Group collects items for commits. It has no goroutine of its own: one of the waiting callers commits for all. Its methods
// may be called concurrently.
type Group[T any] struct {
	commit func([]T) error

	mu      sync.Mutex
	busy    bool
	waiting batch[T]
	last    int      // items of the last commit; for the leader alone
	spare   batch[T] // of an earlier commit, to be filled again
	calls   sync.Pool
}

// batch is items with their callers, in the order of arrival.
type batch[T any] struct {
	items []T
	calls []*call
}

// call is a caller that waits. It is told once that it leads, or what became of its item.
type call struct{ told chan outcome }

type outcome struct {
	leads bool
	err   error
}

// New returns a Group whose commit function is called by one goroutine at a time, with items in the order of their arrival.
// Its error is that of all its items. It must not keep the slice.
func New[T any](commit func([]T) error) *Group[T] {
	return &Group[T]{commit: commit, calls: sync.Pool{New: func() any { return &call{told: make(chan outcome, 1)} }}}
}

// Do commits an item and returns when that is done.
func (g *Group[T]) Do(item T) error {
	c := g.calls.Get().(*call)
	defer g.calls.Put(c)
	g.mu.Lock()
	g.waiting.items = append(g.waiting.items, item)
	g.waiting.calls = append(g.waiting.calls, c)
	leads := !g.busy
	g.busy = true
	g.mu.Unlock()
	if !leads {
		if told := <-c.told; !told.leads {
			return told.err
		}
	}
	return g.lead(c)
}

// A leader that many waited with the last time lets others join: this long, if there is nothing else to do.
const (
	manyWaited = 4
	joinFor    = 50 * time.Microsecond
)

// gather lets callers join who are about to: those that could run but have no processor, and those whose requests wait in a socket. While
// there is little to do it costs as good as nothing; when there is much, many share a commit, and the answers of the last one are sent
// before the next one begins.
func (g *Group[T]) gather() {
	runtime.Gosched()
	if g.last >= manyWaited {
		time.Sleep(joinFor)
	}
}

// lead commits all that wait, the caller's own item among them, and hands over to the first of those who came meanwhile.
func (g *Group[T]) lead(own *call) error {
	g.gather()
	g.mu.Lock()
	b := g.waiting
	g.last = len(b.items)
	g.waiting, g.spare = g.spare, batch[T]{}
	g.mu.Unlock()
	err := g.commit(b.items)
	g.mu.Lock()
	if len(g.waiting.calls) > 0 {
		g.waiting.calls[0].told <- outcome{leads: true}
	} else {
		g.busy = false
	}
	g.mu.Unlock()
	for _, c := range b.calls {
		if c != own {
			c.told <- outcome{err: err}
		}
	}
	clear(b.items)
	clear(b.calls)
	g.mu.Lock()
	g.spare = batch[T]{b.items[:0], b.calls[:0]}
	g.mu.Unlock()
	return err
}
