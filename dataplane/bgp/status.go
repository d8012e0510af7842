package bgp

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/osrg/gobgp/v4/api"
)

// Status is what a speaker does at a moment. Whoever reads it must not change it.
type Status struct {
	Node     string         `json:"node"`
	Prefixes []PrefixStatus `json:"prefixes"`
	Sessions []Session      `json:"sessions"`
}

// PrefixStatus is what is done with a prefix, why, and since when.
type PrefixStatus struct {
	Prefix   netip.Prefix `json:"prefix"`
	Action   Action       `json:"action"`
	Reason   string       `json:"reason"`
	Since    time.Time    `json:"since"`
	Held     bool         `json:"held,omitempty"` // by the floor, against the node's will
	Standing Standing     `json:"standing"`
}

// Session is how it stands with a peer.
type Session struct {
	Peer       string     `json:"peer"`
	Address    netip.Addr `json:"address"`
	ASN        uint32     `json:"asn"`
	State      string     `json:"state"` // established, or a state of RFC 4271 section 8.2.2 before it; down when it is not tried
	Since      time.Time  `json:"since,omitzero"`
	Reason     string     `json:"reason,omitempty"` // why it is down
	Advertised int        `json:"advertised"`       // prefixes
	Received   int        `json:"received"`         // prefixes, all of which are refused
}

// Established is the state of a session in which routes are told.
const Established = "established"

// Status returns what the speaker does. It is safe for concurrent use.
func (s *Speaker) Status() *Status { return s.status.Load() }

// lookInterval is how often sessions are looked at.
const lookInterval = 500 * time.Millisecond

// look finds out how the sessions stand.
func (s *Speaker) look(now time.Time) {
	if now.Sub(s.looked) < lookInterval {
		return
	}
	s.looked = now
	before := map[string]Session{}
	for _, one := range s.sessions {
		before[one.Peer] = one
	}
	s.sessions = nil
	if s.plan.BGP == nil {
		return
	}
	found := map[string]*api.Peer{}
	if s.routers != nil {
		_ = s.routers.server.ListPeer(context.Background(), &api.ListPeerRequest{EnableAdvertised: true}, func(p *api.Peer) { // fails once it has ended
			found[p.Conf.NeighborAddress] = p
		})
	}
	for _, name := range slices.Sorted(maps.Keys(s.plan.BGP.Peers)) {
		p := s.plan.BGP.Peers[name]
		one := Session{Peer: name, Address: p.Address, ASN: p.ASN, State: "down", Reason: s.faults[name]}
		if s.routers == nil {
			one.Reason = s.faults[""]
		} else if got := found[p.Address.String()]; got != nil {
			s.routers.describe(&one, got, now)
		}
		if was := before[name]; was.State == one.State {
			if one.Since = was.Since; one.Reason == "" && one.State != Established {
				one.Reason = was.Reason
			}
		} else if one.Since = now; one.State == Established || was.State == Established {
			s.config.Log.Info("BGP session", "peer", name, "address", one.Address, "state", one.State, "reason", one.Reason)
		}
		s.sessions = append(s.sessions, one)
	}
}

// describe fills in what GoBGP knows of a session. One that is down since the peer has sent too much may come up again after a while.
func (r *routers) describe(one *Session, p *api.Peer, now time.Time) {
	one.State = strings.ToLower(strings.TrimPrefix(p.State.SessionState.String(), "SESSION_STATE_"))
	for _, family := range p.AfiSafis {
		if family.State != nil {
			one.Advertised += int(family.State.Advertised)
			one.Received += int(family.State.Received)
		}
	}
	if one.State != Established {
		one.Advertised, one.Received = 0, 0
		one.Reason = p.State.DisconnectMessage
	}
	at := p.Conf.NeighborAddress
	if p.State.AdminState != api.PeerState_ADMIN_STATE_PFX_CT {
		delete(r.tooMany, at)
		return
	}
	one.Reason = fmt.Sprintf("it has sent more than %d prefixes: have it send none", maxReceived)
	if since, ok := r.tooMany[at]; !ok {
		r.tooMany[at] = now
	} else if now.Sub(since) >= retryTooMany {
		delete(r.tooMany, at)
		_ = r.server.EnablePeer(context.Background(), &api.EnablePeerRequest{Address: at}) // tried again in a minute
	}
}
