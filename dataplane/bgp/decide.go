package bgp

import (
	"fmt"
	"net/netip"
	"time"
)

// Action is what is done with a prefix.
type Action string

// The actions.
const (
	Withdraw Action = "withdraw"
	Drain    Action = "drain" // announced with GRACEFUL_SHUTDOWN: routers prefer all others (RFC 8326)
	Announce Action = "announce"
)

// actions are all, in an order.
var actions = [...]Action{Announce, Drain, Withdraw}

// Wish is what an operator wants of a node, whatever its health is.
type Wish string

// The wishes.
const (
	AsHealth Wish = ""      // none: health decides
	GoAway   Wish = "drain" // leave, as far as the floor allows
	MustGo   Wish = "away"  // leave, whatever the floor says
	MustStay Wish = "stay"  // announce, whatever health says
)

// Check is what has been found out, with the reason.
type Check struct {
	OK     bool
	Reason string
}

// Inputs are what a decision is made of.
type Inputs struct {
	Now      time.Time
	Service  Check // the node's own service, from end to end
	Verdict  Check // whether what all vantages see together allows it
	Operator Wish
	Why      string // of the operator's wish

	Others map[netip.Prefix][]Other // what other nodes say of each prefix; those that have left may be missing
	Known  bool                     // Others is current, and the others know what this node says
}

// Settings say how patient a Machine is. The zero value has the defaults.
type Settings struct {
	MinAnnouncers int           // nodes that must go on announcing the prefix, this one included; 0 for no floor
	Fall          time.Duration // how long the service must have failed before the prefix is withdrawn; default 1 s
	Rise          time.Duration // how long all must have been well before it is announced; default 3 s; doubled by each failure
	MaxRise       time.Duration // bound of the doubling; default 5 min
	Forget        time.Duration // how long the prefix must have been announced for failures to be forgotten; default 10 min
	Drain         time.Duration // how long the prefix is announced with GRACEFUL_SHUTDOWN before it is withdrawn; default 5 s, negative for 0
	Settle        time.Duration // more than twice the time in which others hear what this node says; default 3 s
}

func (s Settings) withDefaults() Settings {
	def := func(d *time.Duration, value time.Duration) {
		switch {
		case *d == 0:
			*d = value
		case *d < 0:
			*d = 0
		}
	}
	def(&s.Fall, time.Second)
	def(&s.Rise, 3*time.Second)
	def(&s.MaxRise, 5*time.Minute)
	def(&s.Forget, 10*time.Minute)
	def(&s.Drain, 5*time.Second)
	def(&s.Settle, 3*time.Second)
	return s
}

// Decision is what a Machine decides.
type Decision struct {
	Action   Action
	Reason   string
	Since    time.Time // of the action
	Standing Standing  // what is to be told to the other nodes
	Held     bool      // the node would have left, and the floor keeps it
}

// Machine decides for one prefix. It is not safe for concurrent use.
type Machine struct {
	node     string
	prefix   netip.Prefix
	settings Settings

	last      Decision
	badSince  time.Time // the service has failed without a break; zero while it works
	goodSince time.Time // all has been well without a break
	failures  int       // that are not forgotten
	leaving   time.Time // since when it wants to leave; zero when it does not
	byHealth  bool      // for health's sake
	stands    time.Time // since when it stands as it does
	known     time.Time // since when the others are known without a break; zero when they are not
}

// NewMachine returns a machine whose prefix is withdrawn so far. The node is known to others by its name.
func NewMachine(node string, prefix netip.Prefix, s Settings) *Machine {
	m := &Machine{node: node, prefix: prefix, settings: s.withDefaults()}
	m.last = Decision{Action: Withdraw, Reason: "not announced yet", Standing: Left}
	return m
}

// intent is what would be done if there were no floor.
type intent struct {
	stay   bool
	health bool // it is health that decides
	forced bool // the floor does not count
	works  bool // the service does
	abrupt bool // without a time of draining
	reason string
}

// Decide returns what is to be done now. In.Now must not go back.
func (m *Machine) Decide(in Inputs) Decision {
	m.observe(in)
	want := m.intent(in)
	d := Decision{Action: Announce, Standing: Stays, Reason: want.reason}
	switch {
	case want.stay && m.last.Action == Announce:
		if in.Now.Sub(m.last.Since) >= m.settings.Forget {
			m.failures = 0
		}
	case want.stay && !m.risen(in.Now, want):
		d = m.last // as it is, draining or withdrawn
		d.Reason = fmt.Sprintf("well for %v: announced once that is %v", in.Now.Sub(m.goodSince).Truncate(time.Second), m.rise())
		if d.Action == Drain { // it does not want to leave any more
			d.Standing, d.Held = Stays, false
		}
	case want.stay:
		m.leaving, m.byHealth = time.Time{}, false
	case m.last.Action == Withdraw:
		m.byHealth = want.health
		d = Decision{Action: Withdraw, Standing: Left, Reason: want.reason}
	default:
		d = m.leave(in, want)
	}
	return m.commit(d, in.Now)
}

// observe notes how long things have been as they are.
func (m *Machine) observe(in Inputs) {
	mark := func(since *time.Time, is bool) {
		if !is {
			*since = time.Time{}
		} else if since.IsZero() {
			*since = in.Now
		}
	}
	mark(&m.badSince, !in.Service.OK)
	mark(&m.goodSince, in.Service.OK && in.Verdict.OK)
	mark(&m.known, in.Known)
}

func (m *Machine) intent(in Inputs) intent {
	works := in.Service.OK || in.Now.Sub(m.badSince) < m.settings.Fall && m.last.Action != Withdraw
	switch {
	case in.Operator == MustGo:
		return intent{forced: true, works: works, abrupt: !works, reason: in.Why}
	case in.Operator == MustStay:
		return intent{stay: true, works: works, reason: in.Why}
	case in.Operator == GoAway:
		return intent{works: works, abrupt: !works, reason: "drained: " + in.Why}
	case !works:
		return intent{health: true, abrupt: true, reason: "the service does not work here: " + in.Service.Reason}
	case !in.Verdict.OK:
		return intent{health: true, works: true, reason: "the verdict does not allow it: " + in.Verdict.Reason}
	}
	reason := in.Service.Reason
	if !in.Service.OK {
		reason = fmt.Sprintf("the service has failed for less than %v: %s", m.settings.Fall, reason)
	}
	return intent{stay: true, health: true, works: true, reason: reason}
}

// rise returns how long all must be well before the prefix is announced.
func (m *Machine) rise() time.Duration {
	d := m.settings.Rise
	for range m.failures {
		if d = 2 * d; d >= m.settings.MaxRise {
			return m.settings.MaxRise
		}
	}
	return d
}

// risen reports whether a prefix may be announced that is not.
func (m *Machine) risen(now time.Time, want intent) bool {
	if !want.health { // an operator wants it
		return true
	}
	if m.last.Action == Drain && !m.byHealth { // nor was it health that took it away
		return true
	}
	return !m.goodSince.IsZero() && now.Sub(m.goodSince) >= m.rise()
}

// leave drains and withdraws a prefix, as the floor allows.
func (m *Machine) leave(in Inputs, want intent) Decision {
	if m.leaving.IsZero() || m.last.Standing == Stays {
		if m.leaving = in.Now; want.health {
			m.failures = min(m.failures+1, 20)
		}
		m.byHealth = want.health
	}
	d := Decision{Action: Drain, Standing: Wants, Reason: want.reason}
	if !want.works {
		d.Standing = Dead
	}
	if d.Standing != m.last.Standing { // others must hear of it before it goes by what they say
		m.stands = in.Now
	}
	drained := want.abrupt || in.Now.Sub(m.leaving) >= m.settings.Drain
	verdict := floorVerdict{allowed: true}
	if !want.forced {
		verdict = m.floor(in, d.Standing)
	}
	switch {
	case verdict.allowed && drained:
		d.Action, d.Standing = Withdraw, Left
	case !verdict.allowed:
		d.Held = true
		d.Reason += "; " + verdict.reason
	}
	return d
}

// commit makes a decision the last one.
func (m *Machine) commit(d Decision, now time.Time) Decision {
	if d.Since = m.last.Since; d.Action != m.last.Action || d.Since.IsZero() {
		d.Since = now
	}
	if d.Standing != m.last.Standing {
		m.stands = now
	}
	if d.Action == Withdraw {
		m.leaving = time.Time{}
	}
	m.last = d
	return d
}
