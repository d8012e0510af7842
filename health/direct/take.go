package direct

import (
	"bytes"
	"crypto/ed25519"
	"net"
	"time"
)

// take takes a datagram from anybody.
func (e *Exchange) take(packet []byte, from net.Addr) {
	d, signed, signature, err := parse(packet)
	if err != nil {
		e.Counts.Malformed.Add(1)
		return
	}
	peer := e.config.Peer(d.name)
	if len(peer.Key) != ed25519.PublicKeySize || d.name == e.config.Name {
		e.Counts.Unknown.Add(1)
		return
	}
	if e.stale(&d, peer.Key) { // before the signature: it is the cheaper check
		e.Counts.Replayed.Add(1)
		return
	}
	if !ed25519.Verify(peer.Key, signed, signature) {
		e.Counts.Forged.Add(1)
		return
	}
	switch d.what {
	case wants:
		e.answer(&d, peer)
	default:
		e.note(&d, from, peer)
	}
}

// stale reports whether a datagram is older than what is known of its sender, or has been heard before. Parts of a report are sent at one time. What
// is known by another key says nothing: with a new key a sender begins anew, whatever its clock says.
func (e *Exchange) stale(d *datagram, key ed25519.PublicKey) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.senders[d.name]
	switch {
	case s == nil || !s.key.Equal(key) || d.incarnation > s.incarnation:
		return false
	case d.incarnation < s.incarnation:
		return true
	case d.what == part:
		return d.sent < s.sent || d.sequence < s.sequence
	case d.what == beat:
		return d.sent <= s.sent || d.sequence < s.sequence
	}
	return d.sent <= s.wanted
}

// note takes a part of a report, or a sign of life.
func (e *Exchange) note(d *datagram, from net.Addr, peer Peer) {
	e.mu.Lock()
	s, now, addr := e.sender(d, peer.Key), e.config.Now(), peer.Addr
	s.sent, s.alive = d.sent, now
	has := s.sequence == d.sequence
	var report []byte
	if d.what == part && !has {
		if report = s.parts.add(d); report != nil {
			s.sequence, s.parts = d.sequence, assembly{}
		}
	}
	asks := d.what == beat && !has && now.Sub(s.asked) >= askPause
	if asks {
		s.asked = now
	}
	e.mu.Unlock()
	if report != nil {
		e.config.Heard(d.name, report)
	}
	if e.config.Sign != nil {
		e.config.Sign(d.name, time.Unix(0, int64(d.began+d.sent)))
	}
	if !asks {
		return
	}
	if !addr.IsValid() { // it takes no reports, but answers from where it sends them
		if udp, ok := from.(*net.UDPAddr); ok {
			addr = udp.AddrPort()
		}
	}
	if addr.IsValid() {
		ask := e.datagram(wants, 0)
		ask.payload = []byte(d.name)
		e.send(ask.append(nil, e.config.Key), addr)
	}
}

// answer sends the newest report to a node that has missed it, to the address that it is known by.
func (e *Exchange) answer(d *datagram, peer Peer) {
	if string(d.payload) != e.config.Name || !peer.Addr.IsValid() {
		return
	}
	e.mu.Lock()
	s, now := e.sender(d, peer.Key), e.config.Now()
	again := now.Sub(s.answered) < askPause
	if s.wanted = d.sent; !again {
		s.answered = now
	}
	report, number := e.report, e.number
	e.mu.Unlock()
	if again || len(report) == 0 {
		return
	}
	for _, one := range e.parts(report, number) {
		e.send(one, peer.Addr)
	}
}

// sender returns what is known of the incarnation that has sent a datagram.
func (e *Exchange) sender(d *datagram, key ed25519.PublicKey) *sender {
	s := e.senders[d.name]
	if s == nil || s.incarnation != d.incarnation || !s.key.Equal(key) {
		s = &sender{key: key, incarnation: d.incarnation}
		e.senders[d.name] = s
	}
	return s
}

// add takes a part, and returns the report when it is whole. A newer report takes the place of one that is not.
func (a *assembly) add(d *datagram) []byte {
	if d.sequence < a.sequence {
		return nil
	}
	if d.sequence != a.sequence || int(d.count) != len(a.parts) {
		*a = assembly{sequence: d.sequence, parts: make([][]byte, d.count), missing: int(d.count)}
	}
	if a.parts[d.index] == nil {
		a.parts[d.index] = bytes.Clone(d.payload)
		a.missing--
	}
	if a.missing > 0 {
		return nil
	}
	if report := bytes.Join(a.parts, nil); len(report) <= MaxReport {
		return report
	}
	return nil
}
