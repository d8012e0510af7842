package relay

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology/store"
)

// present is a node that has a stream.
type present struct {
	streams  []*func(error) // of each, the oldest first: cuts it off
	reported chan struct{}  // closed with the first report
	once     sync.Once
	changed  chan struct{} // the report has changed
	mu       sync.Mutex
	told     presence
	end      func() // stops telling the store of it, and waits for that
}

// presence is what a node tells of itself.
type presence struct {
	store.Node
	Report    []byte `json:"report,omitempty"`    // as a vantage, as package health encodes it; in base64
	Announces []byte `json:"announces,omitempty"` // by BGP; likewise
}

func (p *present) node() store.Node {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told.Node
}

func (p *present) report() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told.Report
}

func (p *present) announces() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.told.Announces
}

// errDisplaced ends a stream.
var errDisplaced = errors.New("the node has newer streams, and more than a few are of no use")

// enter notes that a node has a stream, until leave is called. It returns false when there are too many.
func (h *Hub) enter(who identity, cut func(error)) (leave func(), ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.nodes[who]
	if h.streams >= h.config.MaxNodes {
		return nil, false
	}
	h.streams++
	if p == nil {
		p = &present{reported: make(chan struct{}), changed: make(chan struct{}, 1)}
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan struct{})
		go func() {
			defer close(done)
			h.tellOf(ctx, who, p)
		}()
		p.end = func() { cancel(); <-done }
		h.nodes[who] = p
	}
	mine := &cut
	if p.streams = append(p.streams, mine); len(p.streams) > h.config.MaxStreams {
		(*p.streams[len(p.streams)-1-h.config.MaxStreams])(errDisplaced)
	}
	return func() {
		h.mu.Lock()
		h.streams--
		p.streams = slices.DeleteFunc(p.streams, func(one *func(error)) bool { return one == mine })
		last := len(p.streams) == 0
		if last {
			delete(h.nodes, who)
		}
		h.mu.Unlock()
		if last {
			p.end()
		}
	}, true
}

// tellOf keeps a node's record in the store, once there is a report.
func (h *Hub) tellOf(ctx context.Context, who identity, p *present) {
	select {
	case <-p.reported:
	case <-ctx.Done():
		return
	}
	if h.config.Register == nil {
		return
	}
	if err := h.config.Register(ctx, who.String(), store.Presence{Node: p.node, Report: p.report, Announces: p.announces, Changed: p.changed}); ctx.Err() == nil {
		h.config.Log.Error("a node behind the relay does not show in the status", "node", who.String(), "error", err)
	}
}

// report takes what a node tells of itself.
func (h *Hub) report(w http.ResponseWriter, r *http.Request, who client) {
	var told presence
	if err := readJSON(r.Body, &told); err != nil {
		problem.Write(w, http.StatusBadRequest, err.Error())
		return
	}
	if told.Kind != string(who.kind) {
		problem.Write(w, http.StatusForbidden, "the report is of another kind of node than the certificate")
		return
	}
	h.mu.Lock()
	p := h.nodes[who.identity]
	h.mu.Unlock()
	if p == nil {
		problem.Write(w, http.StatusConflict, "want a stream before a report")
		return
	}
	p.mu.Lock()
	p.told = told
	p.mu.Unlock()
	select {
	case p.changed <- struct{}{}:
	default:
	}
	p.once.Do(func() { close(p.reported) })
	w.WriteHeader(http.StatusNoContent)
}
