package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/peer"
	"github.com/isochrone/isochrone/dataplane/quota"
)

// peersSecretFile is where the secret of calls between PoPs is that share a state folder, if none is sealed. "isochrone up" makes it.
const peersSecretFile = "peers.secret"

// receiptPatience is how long another PoP may take to tell what has become of a request.
const receiptPatience = 2 * time.Second

// peers are the other PoPs, for one PoP, and what it is for them.
type peers struct {
	client  *peer.Client
	server  *peer.Server
	homes   *peer.Homes
	metrics *peer.Metrics
}

// newPeers returns the peers of a PoP. If there is no secret, nobody is asked and nobody answered, until there is one.
func (n *node) newPeers(name string, secrets func() [][]byte, log *slog.Logger) *peers {
	p := &peers{metrics: peer.NewMetrics(name)}
	p.server = peer.NewServer(peer.ServerConfig{Name: name, Secrets: secrets, Metrics: p.metrics, Log: log})
	p.client = peer.NewClient(peer.ClientConfig{
		Name: name, Secrets: secrets, Metrics: p.metrics, Roots: n.roots,
		Find: func(pop string) (peer.Address, bool) { return peer.Find(n.Snapshot().Topology, pop) },
	})
	p.homes = &peer.Homes{Client: p.client, Snapshot: n.Snapshot}
	return p
}

// peerSecrets returns what returns the secrets of calls: those that are sealed, else that of the state folder, else none.
func (n *node) peerSecrets(log *slog.Logger) func() [][]byte {
	ofFolder, err := n.dir.read(peersSecretFile)
	if n.kind == "up" {
		ofFolder, err = n.dir.secret(peersSecretFile)
	}
	var own [][]byte
	if err == nil {
		own, _ = peer.ParseSecrets([]byte(ofFolder)) // one that is broken is none
	}
	var (
		mu     sync.Mutex
		text   string
		parsed [][]byte
	)
	current := func() [][]byte {
		sealed, ok := n.secrets.value(peer.Secret)
		if !ok {
			return own
		}
		mu.Lock()
		defer mu.Unlock()
		if string(sealed) != text {
			text = string(sealed)
			var err error
			if parsed, err = peer.ParseSecrets(sealed); err != nil {
				log.Error("the sealed secret of calls between PoPs is of no use", "secret", peer.Secret, "error", err)
			}
		}
		return parsed
	}
	if len(current()) == 0 {
		log.Warn("PoPs do not ask each other: there is no secret that they share, or this PoP cannot open it", "secret", peer.Secret)
	}
	return current
}

// receiptAsk asks what has become of a request of a key.
type receiptAsk struct {
	ID  string `json:"id"`
	Key string `json:"key"` // its id, which the PoP that asks has checked
}

// receiptAnswer is the answer, nothing for a request that there is not.
type receiptAnswer struct {
	Outcome *dataplane.Outcome `json:"outcome"`
}

// serve has other PoPs answered.
func (p *peers) serve(n *node, grants *quota.Ledger, outcome func(id, keyID string) *dataplane.Outcome) {
	peer.ServeQuota(p.server, grants, n.Snapshot)
	peer.Handle(p.server, peer.ReceiptCall, func(_ context.Context, _ string, ask receiptAsk) (*receiptAnswer, error) {
		if ask.ID == "" || ask.Key == "" || len(ask.ID) > 128 || len(ask.Key) > 128 {
			return nil, &peer.Error{Status: http.StatusBadRequest, Detail: "want the id of a request and that of its key"}
		}
		return &receiptAnswer{outcome(ask.ID, ask.Key)}, nil
	})
}

// outcome is a dataplane.Peer.
func (p *peers) outcome(ctx context.Context, pop, id, keyID string) (*dataplane.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, receiptPatience)
	defer cancel()
	var answer receiptAnswer
	err := p.client.Call(ctx, pop, peer.ReceiptCall, receiptAsk{ID: id, Key: keyID}, &answer)
	if errors.Is(err, peer.ErrOff) {
		return nil, dataplane.ErrNoPeers
	}
	if err != nil {
		return nil, err
	}
	if answer.Outcome != nil && answer.Outcome.ID != id {
		return nil, fmt.Errorf("PoP %s tells of another request", pop)
	}
	return answer.Outcome, nil
}
