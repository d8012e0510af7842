package overload

import (
	"container/heap"
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

	mu   sync.Mutex
	heap waiters
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
