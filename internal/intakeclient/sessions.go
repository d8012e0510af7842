package intakeclient

import (
	"crypto/tls"
	"sync"
)

// Bounds of what is kept for later connections.
const (
	maxSessionNames = 64 // names of servers
	maxSessions     = 4  // of one name
)

// sessions is a tls.ClientSessionCache that gives each session to one connection: so tickets do not tell who looks on that two connections
// are of one client (RFC 8446 appendix C.4), and connections that are made at the same time share no state, which quic-go writes to.
type sessions struct {
	mu    sync.Mutex
	known map[string][]*tls.ClientSessionState // the newest last
}

// Get implements tls.ClientSessionCache.
func (s *sessions) Get(name string) (*tls.ClientSessionState, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.known[name]
	if len(kept) == 0 {
		return nil, false
	}
	newest := kept[len(kept)-1]
	s.known[name] = kept[:len(kept)-1]
	return newest, true
}

// early reports whether the session that Get would return allows early data.
func (s *sessions) early(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.known[name]
	if len(kept) == 0 {
		return false
	}
	_, state, err := kept[len(kept)-1].ResumptionState()
	return err == nil && state != nil && state.EarlyData
}

// Put implements tls.ClientSessionCache. Nil forgets what there is: it was not good.
func (s *sessions) Put(name string, session *tls.ClientSessionState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if session == nil {
		delete(s.known, name)
		return
	}
	if s.known == nil || len(s.known) >= maxSessionNames && s.known[name] == nil {
		s.known = map[string][]*tls.ClientSessionState{}
	}
	kept := append(s.known[name], session)
	if len(kept) > maxSessions {
		kept = append([]*tls.ClientSessionState(nil), kept[len(kept)-maxSessions:]...)
	}
	s.known[name] = kept
}
