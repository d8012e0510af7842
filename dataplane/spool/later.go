package spool

import (
	"container/heap"
	"time"
)

// later are items that were given back, and are not to be taken before a time: a heap, the earliest first. All that is guarded by the
// spool's mutex.
type later struct {
	items []delayed
	timer *time.Timer // fires when the first one is due; nil while nothing waits
}

// delayed is an item and when it is due.
type delayed struct {
	at   time.Time
	item *Item
}

// Len is one of heap.Interface, as are the others.
func (l *later) Len() int           { return len(l.items) }
func (l *later) Less(i, j int) bool { return l.items[i].at.Before(l.items[j].at) }
func (l *later) Swap(i, j int)      { l.items[i], l.items[j] = l.items[j], l.items[i] }
func (l *later) Push(x any)         { l.items = append(l.items, x.(delayed)) }
func (l *later) Pop() any {
	last := l.items[len(l.items)-1]
	l.items[len(l.items)-1] = delayed{}
	l.items = l.items[:len(l.items)-1]
	return last
}

// ReturnAt is Return of an item that is not to be taken again before a time. After a restart it can be taken at once.
func (s *Spool) ReturnAt(item *Item, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if item = s.returned(item); item == nil || s.closed {
		return
	}
	heap.Push(&s.later, delayed{at, item})
	s.await()
}

// Hasten has all items that ReturnAt has put off be taken now, in the order in which they were due.
func (s *Spool) Hasten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.later.items) > 0 {
		s.offer(heap.Pop(&s.later).(delayed).item)
	}
	s.await()
}

// due offers what is due.
func (s *Spool) due() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for now := time.Now(); len(s.later.items) > 0 && !s.later.items[0].at.After(now); {
		s.offer(heap.Pop(&s.later).(delayed).item)
	}
	s.await()
}

// await has the timer fire when the first one is due. The caller holds mu.
func (s *Spool) await() {
	l := &s.later
	switch {
	case len(l.items) == 0 || s.closed:
		if l.timer != nil {
			l.timer.Stop()
		}
	case l.timer == nil:
		l.timer = time.AfterFunc(time.Until(l.items[0].at), s.due)
	default:
		l.timer.Reset(time.Until(l.items[0].at))
	}
}
