package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"
)

var (
	// errCompacted ends a watch whose revision is gone: all is read anew.
	errCompacted = errors.New("the watched revision was compacted")
	// errUnsettled ends a watch that would go on without a change ever taking effect: all is read anew, and the change with it.
	errUnsettled = errors.New("etcd does not say when all of a change has been told, as proxies do not")
	// errWentBack ends a watch of an etcd that has fallen behind: it would wait for a revision without a word.
	errWentBack = errors.New("etcd has gone back to an earlier revision: it was restored from a backup, or is another one")
)

// askInterval is how often etcd is asked whether it is there, and how long it may take to answer.
const askInterval = 2 * time.Second

// settleLimit is how long a change may wait for etcd to say so.
const settleLimit = 3 * time.Second

// settleInterval is how long etcd may take to say that all has been told of a transaction, before it is asked again.
const settleInterval = 20 * time.Millisecond

// Feed returns the feed of sections, from etcd itself.
func (s *Store) Feed(sections Sections) Feed {
	return func(ctx context.Context, _ Sum, take func(Update) error) error {
		all := Update{Whole: true, Put: map[string][]byte{}}
		var err error
		all.Revision, err = s.load(ctx, sections, func(kv *mvccpb.KeyValue) { all.Put[strings.TrimPrefix(string(kv.Key), s.root)] = kv.Value })
		if err == nil {
			err = take(all)
		}
		if err != nil {
			return err
		}
		return s.watch(ctx, sections, all.Revision, take)
	}
}

// told is what a watch, or the asking, has to say.
type told struct {
	section  int // -1 for the asking
	response clientv3.WatchResponse
	open     bool
	err      error // of asking
}

// streams counts streams of watches, so that each has a name of its own.
var streams atomic.Int64

// ownStream returns a context for watches, and for asking for their progress, that share a stream with no others. Etcd answers all
// watches of a stream at once: what it answers before it has begun with a new one says nothing of that one, but reaches it.
func ownStream(ctx context.Context) context.Context {
	return metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(ctx), "isochrone-stream", strconv.FormatInt(streams.Add(1), 10))
}

// watch tells what changes after a revision. A watch for each section is better than one for all: what else stands below the root, such
// as quotas and reports, changes far more often.
func (s *Store) watch(ctx context.Context, sections Sections, revision int64, take func(Update) error) error {
	ctx, cancel := context.WithCancel(ownStream(ctx))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel()
	news := make(chan told, 64)
	send := func(t told) {
		select {
		case news <- t:
		case <-ctx.Done():
		}
	}
	for i, section := range sections {
		watch := s.client.Watch(ctx, s.root+section, clientv3.WithPrefix(), clientv3.WithRev(revision+1))
		running.Go(func() {
			for response := range watch {
				send(told{section: i, response: response, open: true})
			}
			send(told{section: i})
		})
	}
	m := newMerger(len(sections), revision)
	running.Go(func() { s.ask(ctx, m.known, send) })

	settle := time.NewTimer(0)
	defer settle.Stop()
	began := time.Time{}         // when the oldest of what waits came; zero when nothing does
	for settled := int64(0); ; { // the revision that etcd was asked about last
		var waiting []told
		select {
		case t := <-news:
			waiting = append(waiting, t)
		case <-settle.C:
			settled = 0
		case <-ctx.Done():
			return ctx.Err()
		}
		for len(waiting) < maxWaiting && len(news) > 0 { // one update for what comes in a burst
			waiting = append(waiting, <-news)
		}
		answered := false
		for _, t := range waiting {
			if err := m.note(t); err != nil {
				return err
			}
			answered = answered || t.section < 0
		}
		update := m.update(s.root)
		changed := len(update.Put)+len(update.Delete) > 0
		if answered || changed {
			if err := take(update); err != nil {
				return err
			}
		}
		newest := m.newest()
		switch {
		case newest == 0:
			began = time.Time{}
		case changed || began.IsZero():
			began = time.Now()
		case time.Since(began) > settleLimit:
			return errUnsettled
		}
		if newest > settled { // other sections may have more of that transaction: etcd says when they do not
			if err := s.client.RequestProgress(ctx); err != nil {
				return fmt.Errorf("watch the store: %w", err)
			}
			settled = newest
			settle.Reset(settleInterval)
		}
	}
}

// maxWaiting bounds of how many responses one update is made.
const maxWaiting = 4096

// ask asks etcd again and again until ctx ends, and finds out when it has gone back.
func (s *Store) ask(ctx context.Context, known func() int64, send func(told)) {
	ask := time.NewTicker(askInterval)
	defer ask.Stop()
	for {
		select {
		case <-ask.C:
		case <-ctx.Done():
			return
		}
		atLeast := known() // asked before, so that etcd cannot be behind by an edit that comes meanwhile
		asking, cancel := context.WithTimeout(ctx, askInterval)
		response, err := s.client.Get(asking, s.root+"topology/") // all roles may read it; there is nothing
		cancel()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			err = fmt.Errorf("read the store: %w", err)
		} else if response.Header.Revision < atLeast {
			err = fmt.Errorf("%w (%d, after %d)", errWentBack, response.Header.Revision, atLeast)
		}
		send(told{section: -1, err: err})
	}
}

// merger puts together what the watches of several sections tell, so that what one transaction changed is told at once.
type merger struct {
	mu       sync.Mutex // of revision
	revision int64      // up to which all has been told
	complete []int64    // by section: the revision up to which its watch has told all
	waiting  []*clientv3.Event
}

func newMerger(sections int, revision int64) *merger {
	m := &merger{revision: revision, complete: make([]int64, sections)}
	for i := range m.complete {
		m.complete[i] = revision
	}
	return m
}

// known returns the revision up to which all has been told. It may be called from any goroutine.
func (m *merger) known() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.revision
}

func (m *merger) note(t told) error {
	switch {
	case t.section < 0:
		return t.err
	case !t.open:
		return errors.New("the watch of the store has ended")
	case t.response.CompactRevision != 0:
		return errCompacted
	case t.response.Err() != nil:
		return fmt.Errorf("watch the store: %w", t.response.Err())
	case t.response.IsProgressNotify():
		m.complete[t.section] = max(m.complete[t.section], t.response.Header.Revision)
	}
	for _, event := range t.response.Events {
		m.waiting = append(m.waiting, event)
		m.complete[t.section] = max(m.complete[t.section], event.Kv.ModRevision)
	}
	return nil
}

// newest returns the highest revision of what waits, or 0.
func (m *merger) newest() (revision int64) {
	for _, event := range m.waiting {
		revision = max(revision, event.Kv.ModRevision)
	}
	return revision
}

// update returns what is complete, and forgets it.
func (m *merger) update(root string) Update {
	complete := int64(math.MaxInt64)
	for _, revision := range m.complete {
		complete = min(complete, revision)
	}
	u := Update{Put: map[string][]byte{}}
	deleted, rest := map[string]bool{}, m.waiting[:0]
	for _, event := range m.waiting { // those of one key are in order
		key := strings.TrimPrefix(string(event.Kv.Key), root)
		switch {
		case event.Kv.ModRevision > complete:
			rest = append(rest, event)
		case event.Type == clientv3.EventTypeDelete:
			deleted[key] = true
			delete(u.Put, key)
		default:
			u.Put[key] = event.Kv.Value
			delete(deleted, key)
		}
	}
	clear(m.waiting[len(rest):])
	m.waiting = rest
	for key := range deleted {
		u.Delete = append(u.Delete, key)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.revision = max(m.revision, complete)
	u.Revision = m.revision
	return u
}
