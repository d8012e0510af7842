package relay

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/isochrone/isochrone/topology/store"
)

// Config says what a hub needs. Zero values of the limits stand for the defaults.
type Config struct {
	Feed store.Feed // of everything that a snapshot is made of
	// Revision returns that of the store as it is now, by which a hub that lags behind is told from a store that has gone back; nil when
	// there is only one hub. It is (*store.Store).Revision.
	Revision func(ctx context.Context) (int64, error)
	// Register keeps a node's record and report in the store until ctx ends; nil for none. It is (*store.Store).Register.
	Register func(ctx context.Context, name string, p store.Presence) error
	// Quota tells of windows and grants quota of keys, as dataplane/quota's Store does; nil when there is none.
	Quota func(ctx context.Context, q Quota) (QuotaAnswer, error)
	// Admit refuses nodes that have not been let in, or were turned out since, by their certificates, which the server has verified; nil
	// for none. It is asked for each request, and again and again while a stream lasts. It does not wait. The error is ErrUnsure while it
	// cannot tell.
	Admit func(*x509.Certificate) error
	Log   *slog.Logger

	RingChanges int           // how many changes are kept for those who come back; default 4096
	RingBytes   int           // of their values, at most; default 32 MiB
	Heartbeat   time.Duration // default 3 s
	Patience    time.Duration // how long etcd may be away before the nodes are told; default 10 s
	MaxNodes    int           // streams at once; default 4096
	MaxStreams  int           // of one node: a new one takes the place of the oldest; default 4
}

// ErrUnsure is returned for nodes of which it is not known yet whether they have been let in. They may ask again.
var ErrUnsure = errors.New("who has been let in is not known yet")

// Hub relays the store to nodes. It is safe for concurrent use.
type Hub struct {
	config Config
	ended  chan struct{} // closed when Run ends

	mu        sync.Mutex
	values    map[string][]byte // all that is stored; nil before it has been read
	revision  int64
	first     int64                  // number of the first change of the ring
	changes   []*change              // the ring
	base      map[kind]store.Sum     // before the first change
	sums      map[kind]store.Sum     // now
	bytes     int                    // of the ring
	newest    map[kind]int64         // the place behind the newest change that concerns a kind
	news      map[kind]chan struct{} // closed at the next change of anything that concerns a kind
	away      string                 // why etcd cannot be read; empty when it can
	awaySince time.Time
	streams   int
	nodes     map[identity]*present

	encoding sync.Mutex // of wholes
	wholes   map[kind]*whole
}

// kind is a kind of node, which gets sections of its own.
type kind string

var kinds = []kind{"dns", "pop"}

// change is what one update changed.
type change struct {
	bytes  int
	sums   map[kind]store.Sum       // afterwards
	frames map[kind]func() [][]byte // encoded for the first who asks; none for a kind that it does not concern
}

// whole is all there is for one kind of node, at the place of the ring that follows it.
type whole struct {
	at     int64
	frames [][]byte
}

// NewHub returns a hub, which serves nothing until it runs.
func NewHub(c Config) *Hub {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, limit := range []struct {
		of  *int
		def int
	}{{&c.RingChanges, 4096}, {&c.RingBytes, 32 << 20}, {&c.MaxNodes, 4096}, {&c.MaxStreams, 4}} {
		if *limit.of == 0 {
			*limit.of = limit.def
		}
	}
	if c.Admit == nil {
		c.Admit = func(*x509.Certificate) error { return nil }
	}
	if c.Heartbeat == 0 {
		c.Heartbeat = 3 * time.Second
	}
	if c.Patience == 0 {
		c.Patience = 10 * time.Second
	}
	h := &Hub{
		config: c, ended: make(chan struct{}), newest: map[kind]int64{}, news: map[kind]chan struct{}{}, sums: map[kind]store.Sum{}, base: map[kind]store.Sum{},
		away: "the control plane has not read it yet", awaySince: time.Now(), nodes: map[identity]*present{}, wholes: map[kind]*whole{},
	}
	for _, k := range kinds {
		h.news[k] = make(chan struct{})
	}
	return h
}

// Run follows the store until ctx ends, whose error it returns; the streams end with it. It may be called once.
func (h *Hub) Run(ctx context.Context) error {
	defer close(h.ended)
	return (&store.Tail{Feed: h.config.Feed, Take: h.take, Contact: h.contact}).Run(ctx)
}

// contact takes whether etcd could be read.
func (h *Hub) contact(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case err == nil && h.away == "":
	case err == nil && h.values == nil: // what was read is about to be taken
	case err == nil:
		h.away = ""
		h.config.Log.Info("the relay reads etcd")
		h.tell(kinds...)
	default:
		if h.away == "" {
			h.awaySince = time.Now()
			h.config.Log.Error("the relay cannot read etcd: nodes keep what they have", "error", err)
		}
		h.away = err.Error()
	}
}

// tell wakes the streams of some kinds.
func (h *Hub) tell(of ...kind) {
	for _, k := range of {
		close(h.news[k])
		h.news[k] = make(chan struct{})
	}
}

// take adds a change to the ring.
func (h *Hub) take(u store.Update) {
	h.mu.Lock()
	defer h.mu.Unlock()
	concerns := map[kind]bool{}
	flip := func(key string, value []byte) {
		sum := store.SumOf(key, value)
		for _, k := range kinds {
			if store.SectionsOf(string(k)).Have(key) {
				s := h.sums[k]
				s.Combine(sum)
				h.sums[k], concerns[k] = s, true
			}
		}
	}
	started := h.values != nil
	if !started {
		h.values, h.away = map[string][]byte{}, ""
	}
	c := &change{sums: map[kind]store.Sum{}, frames: map[kind]func() [][]byte{}}
	for _, key := range u.Delete {
		if before, there := h.values[key]; there { // what came and went while the hub was busy is deleted without ever having been here
			flip(key, before)
			delete(h.values, key)
			c.bytes += len(key)
		}
	}
	for key, value := range u.Put {
		if before, there := h.values[key]; there {
			flip(key, before)
		}
		flip(key, value)
		h.values[key] = value
		c.bytes += len(key) + len(value)
	}
	h.revision = u.Revision
	if !started {
		maps.Copy(h.base, h.sums)
		h.tell(kinds...)
		return
	}
	for k := range concerns {
		sum := h.sums[k]
		c.frames[k] = sync.OnceValue(func() [][]byte { return encode(of(k, u), sum) })
		h.newest[k] = h.first + int64(len(h.changes)) + 1
		h.tell(k) // DNS nodes sleep through changes of keys
	}
	maps.Copy(c.sums, h.sums)
	h.changes, h.bytes = append(h.changes, c), h.bytes+c.bytes
	for len(h.changes) > h.config.RingChanges || h.bytes > h.config.RingBytes && len(h.changes) > 0 {
		h.base, h.bytes = h.changes[0].sums, h.bytes-h.changes[0].bytes
		h.changes[0] = nil
		h.changes, h.first = h.changes[1:], h.first+1
	}
}

// of returns the part of an update that concerns a kind of node.
func of(k kind, u store.Update) store.Update {
	sections, part := store.SectionsOf(string(k)), store.Update{Revision: u.Revision, Whole: u.Whole, Put: map[string][]byte{}}
	for key, value := range u.Put {
		if sections.Have(key) {
			part.Put[key] = value
		}
	}
	for _, key := range u.Delete {
		if sections.Have(key) {
			part.Delete = append(part.Delete, key)
		}
	}
	return part
}

// find returns the place of the ring from which on a node of a kind, which has contents of a sum, is to be told changes, or -1.
func (h *Hub) find(k kind, sum store.Sum) int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := len(h.changes) - 1; i >= 0; i-- {
		if h.changes[i].sums[k] == sum {
			return h.first + int64(i) + 1
		}
	}
	if h.values != nil && h.base[k] == sum {
		return h.first
	}
	return -1
}

// lags reports why a node that has been told of a revision, and has other contents than any that this hub knows, is not to be told all there
// is here: another hub was ahead, and what was revoked since would be good again. A store that has gone back itself is no reason.
func (h *Hub) lags(ctx context.Context, revision int64) error {
	h.mu.Lock()
	here := h.revision
	h.mu.Unlock()
	if revision <= here || h.config.Revision == nil {
		return nil
	}
	now, err := h.config.Revision(ctx)
	if err != nil {
		return fmt.Errorf("it is at revision %d, the node at %d, and etcd cannot be asked: %w", here, revision, err)
	}
	if now >= revision {
		return fmt.Errorf("it is at revision %d, and behind the node, which is at %d", here, revision)
	}
	return nil
}

// after returns the frames of the changes from a place of the ring on, and the place behind them. It returns false when the ring does not
// reach back to the place.
func (h *Hub) after(k kind, at int64) (frames []func() [][]byte, next int64, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	end := h.first + int64(len(h.changes))
	if at >= h.newest[k] {
		return nil, end, true
	}
	if at < h.first {
		return nil, at, false
	}
	for _, c := range h.changes[at-h.first:] {
		if c.frames[k] != nil {
			frames = append(frames, c.frames[k])
		}
	}
	return frames, end, true
}

// all returns the frames of all there is for a kind of node, and the place of the ring that follows. What was encoded before is good for as
// long as the ring leads on from it.
func (h *Hub) all(k kind) (frames [][]byte, at int64) {
	h.encoding.Lock()
	defer h.encoding.Unlock()
	h.mu.Lock()
	if kept := h.wholes[k]; kept != nil && kept.at >= h.first {
		h.mu.Unlock()
		return kept.frames, kept.at
	}
	u, sum := store.Update{Revision: h.revision, Whole: true, Put: maps.Clone(h.values)}, h.sums[k]
	at = h.first + int64(len(h.changes))
	h.mu.Unlock()
	h.wholes[k] = &whole{at: at, frames: encode(of(k, u), sum)}
	return h.wholes[k].frames, at
}

// heartbeat returns the message that says that all has been told up to a place of the ring, if that is the newest.
func (h *Hub) heartbeat(k kind, at int64) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at != h.first+int64(len(h.changes)) {
		return nil
	}
	sum := h.sums[k]
	return frame(message{Revision: h.revision, Sum: &sum})
}

// state returns what a stream has to know: what to wait for, and why there is nothing to tell, if there is nothing.
func (h *Hub) state(k kind) (news <-chan struct{}, away string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.values != nil && time.Since(h.awaySince) < h.config.Patience {
		return h.news[k], ""
	}
	return h.news[k], h.away
}
