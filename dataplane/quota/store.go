package quota

import (
	"context"
	"sync"
)

// MaxAsks is how much can be asked for at once.
const MaxAsks = 100

// maxWant bounds one ask, far above any quota.
const maxWant = 1 << 41

// Request is what a PoP asks of a store.
type Request struct {
	PoP  string // who asks
	Open int64  // the window that the PoP has watched for all of its length, and that is to be followed by the next; 0 for none
	Lost int64  // the highest number that the PoP knows of, if the store told a lower one: no number may come twice; 0 else
	Asks []Ask  // at most MaxAsks, each of another key and window
}

// Ask asks for some of a key's quota.
type Ask struct {
	Key    string // its id
	Window int64  // the present one, or one of the two that follow
	Limit  int64  // the key's quota
	Want   int64  // at most
}

// Answer is a store's answer.
type Answer struct {
	Window int64 // the number of the present window
	Rest   bool  // nothing is granted in it, since it is not known what was granted before
	Grants []Granted
}

// Granted answers an Ask.
type Granted struct {
	Granted   int64
	Remaining int64 // what nobody has taken yet
	PoPs      int   // that took grants of the key in this window and the one before
	Closed    bool  // nothing is granted in that window at all, or there is no such key
	Busy      bool  // others asked at the same time: it may be asked for again
}

// Store holds the number of the window and what has been granted, for all PoPs.
type Store interface {
	// Exchange opens the next window if that is asked for and the present one is the one that the PoP has watched, grants what is asked
	// for, and tells the number. Each grant is atomic among all that share the store. After an error it is not known what was done: then
	// what may have been granted is lost.
	Exchange(ctx context.Context, r Request) (Answer, error)
}

// Memory is a Store for PoPs of one process. It may be used concurrently. What it holds of windows that are over is dropped.
type Memory struct {
	mu      sync.Mutex
	window  int64
	records map[Ask]*record // by key and window alone
}

// NewMemory returns a store whose present window has a number.
func NewMemory(window int64) *Memory { return &Memory{window: window, records: map[Ask]*record{}} }

// Exchange implements Store.
func (m *Memory) Exchange(_ context.Context, r Request) (Answer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.Open == m.window {
		m.window++
		for at := range m.records {
			if at.Window < m.window-1 {
				delete(m.records, at)
			}
		}
	}
	answer := Answer{Window: m.window}
	for _, ask := range r.Asks {
		if ask.Window < m.window || ask.Window > m.window+ahead {
			answer.Grants = append(answer.Grants, Granted{Closed: true})
			continue
		}
		at := Ask{Key: ask.Key, Window: ask.Window}
		if m.records[at] == nil {
			m.records[at] = after(m.records[Ask{Key: ask.Key, Window: ask.Window - 1}])
		}
		answer.Grants = append(answer.Grants, m.records[at].take(r.PoP, ask.Limit, ask.Want))
	}
	return answer, nil
}
