package packet

import (
	"container/heap"
	"net/netip"
	"sync"
	"time"

	"github.com/isochrone/isochrone/simulations/virtual"
)

// wire has things happen when they are due, one after the other: what one has caused is done before the next happens, also where two are due at the
// same moment. So the order in which hosts see packets is that of time and addresses, whatever goroutine was faster.
type wire struct {
	running sync.WaitGroup // while something is to happen

	mu     sync.Mutex
	events events
	number uint64
	busy   bool
	sooner chan struct{} // what is due next is due earlier than was waited for
}

// event is something that is to happen.
type event struct {
	due      time.Time
	from, to netip.Addr // of two at a time, that of the lower addresses comes first, and of these the first that was asked for
	number   uint64
	do       func()
}

func newWire() *wire { return &wire{sooner: make(chan struct{}, 1)} }

// at has something happen. It must not wait.
func (w *wire) at(due time.Time, from, to netip.Addr, do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.number++
	e := &event{due, from, to, w.number, do}
	heap.Push(&w.events, e)
	if !w.busy {
		w.busy = true
		w.running.Go(w.run)
	} else if w.events[0] == e {
		select {
		case w.sooner <- struct{}{}:
		default:
		}
	}
}

// run has everything happen, and ends when nothing is left.
func (w *wire) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		w.mu.Lock()
		if len(w.events) == 0 {
			w.busy = false
			w.mu.Unlock()
			return
		}
		wait := time.Until(w.events[0].due)
		w.mu.Unlock()
		if wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-w.sooner:
			}
			continue
		}
		virtual.Settle()
		w.mu.Lock()
		next := heap.Pop(&w.events).(*event)
		w.mu.Unlock()
		next.do()
	}
}

type events []*event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	a, b := e[i], e[j]
	if c := a.due.Compare(b.due); c != 0 {
		return c < 0
	}
	if c := a.from.Compare(b.from); c != 0 {
		return c < 0
	}
	if c := a.to.Compare(b.to); c != 0 {
		return c < 0
	}
	return a.number < b.number
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(*event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	(*e)[len(*e)-1] = nil
	*e = (*e)[:len(*e)-1]
	return last
}
