package dns

import (
	"slices"

	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/router"
)

// serving is all that answers are made of. It is immutable, but for the answers that its index keeps.
type serving struct {
	view       *router.View // nil before the first
	index      *index       // likewise
	challenges *challenges  // of ACME; nil for none
	epoch      int64        // of the signatures: see epochLength
	popCounter []uint16     // by router.Choice
	settings   Settings
	jar        cookieJar
	limiter    *limiter // nil for none
}

// ahead is an index that was made before it is served.
type ahead struct {
	of    *router.Table
	keys  *dnssec.Keyring
	epoch int64
	*index
}

// Prepare makes what a view needs that is going to be published, if it needs more than what is served: that can take long, and other views
// can be published meanwhile. It is for router.Live's Prepare; without it Publish does all the work.
func (s *Server) Prepare(view *router.View) {
	s.mu.Lock()
	old, began := s.serving.Load(), s.now()
	if old.view == nil || old.view.Table.Snapshot().Signed != view.Table.Snapshot().Signed {
		s.readKeys()
	}
	next := *old
	next.view, next.settings, next.epoch = view, s.settings, began.Unix()/epochLength
	next.popCounter = s.countersOf(view.Table) // the answers that are made ahead name PoPs as this table counts them
	s.mu.Unlock()
	if old.index != nil && next.epoch == old.epoch && sameNames(view.Table, old.view.Table) {
		return
	}
	next.index = newIndex(view.Table, next.settings.Keys, next.epoch, old.index)
	if old.index != nil {
		next.headStart(began)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = &ahead{of: view.Table, keys: next.settings.Keys, epoch: next.epoch, index: next.index}
}

// indexOf returns the index of a table, which may have been made ahead.
func (s *Server) indexOf(t *router.Table, epoch int64, old *index) (x *index, isNew bool) {
	if made := s.ahead; made != nil && made.epoch == epoch && made.keys.Equal(s.settings.Keys) && sameNames(made.of, t) {
		s.ahead = nil
		return made.index, false
	}
	return newIndex(t, s.settings.Keys, epoch, old), true
}

// Publish takes a new view. Questions are answered from it when Publish returns.
func (s *Server) Publish(view *router.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.renew(view, false)
}

// Configure takes new settings. They are in force when it returns.
func (s *Server) Configure(c Settings) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rekeyed := !s.settings.Keys.Equal(c.Keys)
	s.settings = c
	s.renew(s.serving.Load().view, rekeyed)
	wake(s.changed) // other secondaries may be told
}

// wake tells whoever waits for a channel of one place, unless it has been told already.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// renew replaces what is served. The index, with its answers, is made anew only when what it is made of has changed. Rekeyed says that
// the private keys are others than before.
func (s *Server) renew(view *router.View, rekeyed bool) {
	old, began := s.serving.Load(), s.now()
	next := *old
	next.view = view
	if view != nil && (old.view == nil || old.view.Table.Snapshot().Signed != view.Table.Snapshot().Signed) {
		rekeyed = s.readKeys() || rekeyed
	}
	next.settings = s.settings
	if !slices.Equal(old.settings.Cookies, s.settings.Cookies) {
		next.jar = newCookieJar(s.settings.Cookies)
	}
	if !old.settings.RateLimit.sameAs(s.settings.RateLimit) {
		next.limiter = newLimiter(s.settings.RateLimit)
	}
	next.epoch = s.now().Unix() / epochLength
	if view != nil && (old.index == nil || rekeyed || next.epoch != old.epoch || !sameNames(view.Table, old.view.Table)) {
		var isNew bool
		next.index, isNew = s.indexOf(view.Table, next.epoch, old.index)
		next.popCounter = s.countersOf(view.Table)
		s.tellProblems(old.index, next.index)
		if old.index != nil && isNew {
			next.headStart(began)
		}
	}
	if view != nil {
		next.challenges = old.challenges.renewed(view.Table.Snapshot().Challenges, next.index)
	}
	s.serving.Store(&next)
	retabled := view != nil && (old.view == nil || !view.Table.DecidesAs(old.view.Table))
	if next.index != old.index {
		wake(s.changed)
	}
	if next.index != old.index || retabled { // by another table, clients may get other tuples of choices
		wake(s.renewed)
	}
	now := s.now()
	s.swaps.n++
	s.swaps.took += now.Sub(began)
	s.swaps.view = now
	if retabled {
		s.swaps.table = now
	}
}

// tellProblems logs what is wrong with an index, unless it was with the one before, and that all is well again.
func (s *Server) tellProblems(old, next *index) {
	var before []string
	if old != nil {
		before = old.problems
	}
	for _, problem := range next.problems {
		if !slices.Contains(before, problem) {
			s.config.Log.Error("a zone is not signed as it should be", "problem", problem)
		}
	}
	if len(before) > 0 && len(next.problems) == 0 {
		s.config.Log.Info("every signed zone has its private keys")
	}
}

// readKeys reads the private keys again, and reports whether they are others than before.
func (s *Server) readKeys() bool {
	if s.settings.ReadKeys == nil {
		return false
	}
	keys, err := s.settings.ReadKeys()
	if err != nil {
		if err.Error() != s.unread { // they are looked at again and again while some are missing
			s.config.Log.Error("the private keys of zones cannot be read, those that were read before stay in use", "error", err)
		}
		s.unread = err.Error()
		return false
	}
	s.unread = ""
	if s.settings.Keys.Equal(keys) {
		return false
	}
	s.settings.Keys = keys
	return true
}

// check renews the present view when an epoch has ended, and reads the private keys again while some are missing. Nobody can publish
// another view meanwhile, which would be lost.
func (s *Server) check() {
	s.mu.Lock()
	defer s.mu.Unlock()
	sv := s.serving.Load()
	if sv.index == nil {
		return
	}
	found := len(sv.index.problems) > 0 && s.readKeys()
	if found || s.now().Unix()/epochLength != sv.epoch {
		s.renew(sv.view, found)
	}
}

// sameNames reports whether two tables have the same zones, services, PoPs and keys.
func sameNames(a, b *router.Table) bool {
	x, y := a.Snapshot(), b.Snapshot()
	return x.Topology == y.Topology && x.Signed == y.Signed && x.Good == y.Good
}

// countersOf returns the counter of each PoP of a table.
func (s *Server) countersOf(t *router.Table) []uint16 {
	counters := make([]uint16, t.Choices())
	for c := range counters {
		name, _ := t.PoP(router.Choice(c))
		counter, known := s.popsSeen[name]
		switch {
		case known:
		case len(s.popNames) < maxPoPs-1:
			counter = uint16(len(s.popNames))
			s.popNames, s.popsSeen[name] = append(s.popNames, name), counter
		default:
			counter = maxPoPs - 1
		}
		counters[c] = counter
	}
	return counters
}

// Problems tells what is wrong with what is served, such as private keys that are missing. It is empty when all is well.
func (s *Server) Problems() []string {
	sv := s.serving.Load()
	switch {
	case sv.view == nil:
		return []string{"no topology has been read yet"}
	case sv.index == nil:
		return nil
	}
	return sv.index.problems
}
