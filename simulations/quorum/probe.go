package quorum

import (
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// The modelled network.
const (
	loss          = 0.005                  // of packets, each way
	initialPTO    = 300 * time.Millisecond // quic-go's before the first round trip: 100 ms + 4 × 50 ms
	brownOutTakes = 3 * time.Second
	slowTakes     = 1500 * time.Millisecond
)

// oneWay draws how long a packet takes.
func (w *world) oneWay(a, b topology.Location) time.Duration {
	jitter := time.Duration(w.random.ExpFloat64() * float64(1500*time.Microsecond))
	if w.random.IntN(100) == 0 {
		jitter += time.Duration(w.random.Int64N(int64(40 * time.Millisecond)))
	}
	return w.halfTrip(a, b) + 150*time.Microsecond + jitter
}

// halfTrip returns half of the modelled round trip; the model is asked once.
func (w *world) halfTrip(a, b topology.Location) time.Duration {
	way := [2]topology.Location{a, b}
	half, ok := w.half[way]
	if !ok {
		half = w.model.RTT(a, b) / 2
		w.half[way] = half
	}
	return half
}

// probe has a vantage probe a PoP by a fresh connection, and returns what it sees and when.
func (w *world) probe(v *vantage, pop int, begin, timeout time.Duration) (time.Duration, health.Observation) {
	o := health.Observation{Target: health.Target{Kind: health.PoP, Name: w.pops[pop].name}}
	deadline := begin + timeout
	t, rtt := begin, time.Duration(0)
	for flight := range 2 {
		sent := t
		end, code := w.flight(v, pop, t, deadline, rtt, flight)
		if code != "" {
			o.Code, o.Took = code, end-begin
			o.Reason = map[health.Code]string{health.Timeout: "no answer within " + timeout.String(), health.Refused: "connection refused"}[code]
			return end, o
		}
		t, rtt = end, end-sent
		if flight == 0 {
			o.Steps.Handshake = rtt
		} else {
			o.Steps.Answer = rtt
		}
	}
	o.OK, o.Took, o.Reason = true, t-begin, "accepted a probe"
	if e := w.struck(pop, t); e != nil && e.fault == Errors {
		o.OK, o.Code, o.Reason = false, health.Answered, "answered 503"
	}
	return t, o
}

// flight sends something until it is answered, and returns when it is.
func (w *world) flight(v *vantage, pop int, t, deadline, rtt time.Duration, number int) (time.Duration, health.Code) {
	pto := initialPTO
	if rtt > 0 {
		pto = 3*rtt + 25*time.Millisecond // smoothed, 4 × variation, max_ack_delay (RFC 9002 section 6.2.1)
	}
	for ; t < deadline; t, pto = t+pto, 2*pto {
		arrives := t + w.oneWay(v.at, w.pops[pop].at)
		e := w.struck(pop, arrives)
		switch {
		case w.random.Float64() < loss, w.bad == CutOff && v.index == w.badOne,
			e != nil && e.fault == HostDead, e != nil && e.fault == RegionCut && e.region == v.continent:
			continue
		}
		leaves := arrives + time.Duration(w.random.Int64N(int64(2*time.Millisecond)))
		refused := e != nil && e.fault == ProcessKilled
		if e != nil && e.fault == BrownOut && number == 1 {
			leaves += brownOutTakes
		}
		if w.bad == Slow && v.index == w.badOne {
			leaves += slowTakes
		}
		back := leaves + w.oneWay(w.pops[pop].at, v.at)
		if w.random.Float64() < 2*loss { // an answer is two packets
			continue
		}
		if back > deadline {
			return deadline, health.Timeout
		}
		if refused {
			return back, health.Refused
		}
		return back, ""
	}
	return deadline, health.Timeout
}
