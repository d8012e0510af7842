package dnssec

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// The errors by which a caller can decide.
var (
	ErrRolling     = errors.New("a key roll is in progress already")
	ErrNotRolling  = errors.New("no key roll is in progress")
	ErrTooEarly    = errors.New("too early")
	ErrUnconfirmed = errors.New("the parent's DS records are not confirmed")
)

// TTLs are the times for which caches keep what a key roll changes.
type TTLs struct {
	DNSKEY      time.Duration // of the zone's DNSKEY records
	Zone        time.Duration // the longest of the zone's other records
	DS          time.Duration // of the DS records, in the parent zone
	Propagation time.Duration // until all servers of the zone have taken over a change
}

// StepOptions are what an operator says about the next step of a key roll.
type StepOptions struct {
	DSSeen bool // all servers of the parent have the new key's DS records, and no longer the old one's
	Force  bool // take the step before its time: some validators will fail for as long as their caches are old
}

// StartRoll returns the signing with which the roll of a key begins: the active key of a role gives way to a new one. A ZSK is
// published before it signs (RFC 7583 section 2.1 and 3.2.1); a KSK is published and signs the DNSKEY records beside the old one
// (section 2.2 and 3.3.1). The signing that is given stays as it is. The error is ErrRolling when there is a roll.
func StartRoll(s *topology.Signing, role topology.KeyRole, fresh topology.SigningKey, now time.Time, ttls TTLs) (*topology.Signing, error) {
	if s.Roll != nil {
		return nil, fmt.Errorf("%w: that of the %s %d", ErrRolling, s.Roll.Role, s.Roll.Old)
	}
	var old *topology.SigningKey
	for i := range s.Keys {
		k := &s.Keys[i]
		switch {
		case k.Role != role || k.State != topology.KeyActive || k.Algorithm != fresh.Algorithm:
		case old != nil:
			return nil, fmt.Errorf("two active %ss: %d and %d: a roll replaces one key", role, old.Tag, k.Tag)
		default:
			old = k
		}
	}
	switch {
	case fresh.Role != role:
		return nil, fmt.Errorf("the new key is a %s: want a %s", fresh.Role, role)
	case s.Key(fresh.Tag) != nil:
		return nil, fmt.Errorf("the zone has a key %d already: make another", fresh.Tag)
	case old == nil:
		return nil, fmt.Errorf("the zone has no active %s of algorithm %d: a roll keeps the algorithm (RFC 6781 section 4.1.4)", role, fresh.Algorithm)
	}
	fresh.State, fresh.Since = topology.KeyPublished, second(now)
	if role == topology.KSK {
		fresh.State = topology.KeyActive
	}
	next := copySigning(s)
	next.Keys = append(next.Keys, fresh)
	next.Roll = &topology.Roll{
		Role: role, Old: old.Tag, New: fresh.Tag, Step: topology.RollPublished, NotBefore: later(now, ttls.Propagation+ttls.DNSKEY),
	}
	return next, nil
}

// NextStep returns the signing after the next step of the roll that is in progress, and tells what was done and what comes next.
// The signing that is given stays as it is. The errors are ErrNotRolling, ErrTooEarly unless Force is given, and ErrUnconfirmed
// when the step needs DSSeen; Force does not stand for that.
func NextStep(s *topology.Signing, now time.Time, ttls TTLs, o StepOptions) (*topology.Signing, string, error) {
	if s.Roll == nil {
		return nil, "", ErrNotRolling
	}
	if now.Before(s.Roll.NotBefore) && !o.Force {
		return nil, "", fmt.Errorf("%w: caches may still need what the next step takes away; wait until %s, %v from now",
			ErrTooEarly, s.Roll.NotBefore.Format(time.RFC3339), s.Roll.NotBefore.Sub(now).Round(time.Second))
	}
	next := copySigning(s)
	r := next.Roll
	old, fresh := next.Key(r.Old), next.Key(r.New)
	if old == nil || fresh == nil {
		return nil, "", fmt.Errorf("the roll is from key %d to key %d, and the zone lacks one of them", r.Old, r.New)
	}
	switch step := string(r.Role) + " " + r.Step; {
	case step == "zsk "+topology.RollPublished:
		old.State, old.Since = topology.KeyRetired, second(now)
		fresh.State, fresh.Since = topology.KeyActive, second(now)
		r.Step, r.NotBefore = topology.RollSwapped, later(now, ttls.Propagation+ttls.Zone)
	case step == "ksk "+topology.RollPublished:
		r.Step, r.NotBefore = topology.RollDSWanted, second(now)
	case step == "ksk "+topology.RollDSWanted && !o.DSSeen:
		return nil, "", fmt.Errorf("%w: when all servers of the parent have the DS records of key %d alone, say so", ErrUnconfirmed, r.New)
	case step == "ksk "+topology.RollDSWanted:
		r.Step, r.NotBefore = topology.RollDSSeen, later(now, ttls.DS)
	case step == "zsk "+topology.RollSwapped, step == "ksk "+topology.RollDSSeen:
		done := fmt.Sprintf("The roll of the %s is done: key %d is gone, key %d is in use.", r.Role, r.Old, r.New)
		next.Keys = slices.DeleteFunc(next.Keys, func(k topology.SigningKey) bool { return k.Tag == r.Old })
		next.Roll = nil
		return next, done, nil
	default:
		return nil, "", fmt.Errorf("a roll of a %s has no step %q", r.Role, r.Step)
	}
	return next, DescribeRoll(next), nil
}

// DescribeRoll tells where a roll stands and what comes next, in whole sentences.
func DescribeRoll(s *topology.Signing) string {
	r := s.Roll
	if r == nil {
		return "No key roll is in progress."
	}
	at := r.NotBefore.UTC().Format(time.RFC3339)
	switch {
	case r.Role == topology.ZSK && r.Step == topology.RollPublished:
		return fmt.Sprintf("The new ZSK %d is published; the old one, %d, signs. Next, not before %s: the new one signs.", r.New, r.Old, at)
	case r.Role == topology.ZSK:
		return fmt.Sprintf("The new ZSK %d signs; the old one, %d, is still published for what it has signed. "+
			"Next, not before %s: the old one goes.", r.New, r.Old, at)
	case r.Step == topology.RollPublished:
		return fmt.Sprintf("The new KSK %d signs the DNSKEY records beside the old one, %d, to which the parent's DS points. "+
			"Next, not before %s: the DS records of the new one are asked for, by CDS and CDNSKEY records and by hand.", r.New, r.Old, at)
	case r.Step == topology.RollDSWanted:
		return fmt.Sprintf("The parent is to replace the DS records of the old KSK %d by those of the new one, %d. "+
			"Next, when all its servers have: confirm it.", r.Old, r.New)
	}
	return fmt.Sprintf("The parent has the DS records of the new KSK %d. Next, not before %s, when caches have forgotten those of "+
		"the old one, %d: the old one goes.", r.New, at, r.Old)
}

func copySigning(s *topology.Signing) *topology.Signing {
	next := *s
	next.Keys = slices.Clone(s.Keys)
	if s.Roll != nil {
		roll := *s.Roll
		next.Roll = &roll
	}
	return &next
}

// second and later give times of whole seconds, as they are stored: the latter rounds up, so that a wait is never cut short.
func second(t time.Time) time.Time { return t.UTC().Truncate(time.Second) }

func later(t time.Time, wait time.Duration) time.Time {
	return second(t.Add(wait + time.Second - time.Nanosecond))
}
