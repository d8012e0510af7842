package overload

import (
	"container/heap"
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

// Turn is when a connection whose request was refused is heard again. Zero is at once.
type Turn int64

// turns are those for which connections wait, in the order in which refusals were made. Places go by at the rate at which refusals may be
// made; a connection is heard before its place if there is room.
type turns struct {
	issued  atomic.Int64 // the last place that was given, in cheap refusals
	reached atomic.Int64 // the place that has gone by last
	waiting atomic.Int64

	mu      sync.Mutex
	heap    waiters
	holding list.List    // of chan Ticket, the first one first: requests that may still be let in
	held    atomic.Int64 // how many
	due     float64      // of them that are to be refused
	before  int64        // that waited at the last look
}

type waiter struct {
	at    Turn
	heard chan struct{} // closed when it is its turn
}

type waiters []waiter

func (w waiters) Len() int           { return len(w) }
func (w waiters) Less(i, j int) bool { return w[i].at < w[j].at }
func (w waiters) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *waiters) Push(x any)        { *w = append(*w, x.(waiter)) }
func (w *waiters) Pop() any {
	last := len(*w) - 1
	x := (*w)[last]
	(*w)[last] = waiter{}
	*w = (*w)[:last]
	return x
}

// take gives the next place, which is at most so many places away.
func (t *turns) take(cost, most int64) (turn Turn, away int64) {
	for {
		issued, reached := t.issued.Load(), t.reached.Load()
		next := max(issued, reached) + cost
		if next-reached > most {
			return Turn(reached + most), most
		}
		if t.issued.CompareAndSwap(issued, next) {
			return Turn(next), next - reached - cost
		}
	}
}

// pass lets so many places go by.
func (t *turns) pass(places int64) {
	reached := Turn(t.reached.Add(places))
	if t.waiting.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.heap) > 0 && t.heap[0].at <= reached {
		t.first()
	}
}

// hear lets the first ones go on before their turn.
func (t *turns) hear(n int64) {
	if t.waiting.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for ; n > 0 && len(t.heap) > 0; n-- {
		t.first()
	}
}

func (t *turns) first() {
	close(heap.Pop(&t.heap).(waiter).heard)
	t.waiting.Add(-1)
}

// hold waits for room, or until it is time to refuse.
func (o *Overload) hold(ended, stop <-chan struct{}) (Ticket, bool) {
	t, granted := &o.turns, make(chan Ticket, 1)
	t.mu.Lock()
	place := t.holding.PushBack(granted)
	t.held.Add(1)
	t.mu.Unlock()
	timer := time.NewTimer(maxHold)
	defer timer.Stop()
	select {
	case ticket, ok := <-granted:
		return ticket, ok
	case <-timer.C:
	case <-ended:
	case <-stop:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case ticket, ok := <-granted: // meanwhile
		return ticket, ok
	default:
	}
	t.holding.Remove(place)
	t.held.Add(-1)
	return Ticket{}, false
}

// grant lets those in that wait for room, while there is some.
func (o *Overload) grant() {
	t := &o.turns
	if t.held.Load() == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for first := t.holding.Front(); first != nil && o.inside() < o.limit.Load(); first = t.holding.Front() {
		t.holding.Remove(first).(chan Ticket) <- o.place() // it has room for one
		t.held.Add(-1)
	}
}

// refuse has so many of those that wait for room be refused, those that came last, unless fewer wait than the last time: then enough have
// been. A part of one is kept for the next time.
func (t *turns) refuse(n float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.held.Load()
	fewer := now < t.before
	if t.before = now; fewer {
		return
	}
	for t.due = min(t.due, 1) + n; t.due >= 1 && t.holding.Len() > 0; t.due-- {
		close(t.holding.Remove(t.holding.Back()).(chan Ticket))
		t.held.Add(-1)
	}
}

// Await returns when it is a connection's turn, when there is room before, when one of two channels is closed, or after five seconds.
func (o *Overload) Await(turn Turn, ended, stop <-chan struct{}) {
	t := &o.turns
	if int64(turn) <= t.reached.Load() {
		return
	}
	w := waiter{turn, make(chan struct{})}
	t.mu.Lock()
	heap.Push(&t.heap, w)
	t.waiting.Add(1)
	t.mu.Unlock()
	timer := time.NewTimer(maxPause)
	defer timer.Stop()
	select {
	case <-w.heard:
		return
	case <-ended:
	case <-stop:
	case <-timer.C:
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.heap {
		if t.heap[i].heard == w.heard {
			heap.Remove(&t.heap, i)
			t.waiting.Add(-1)
			return
		}
	}
}
