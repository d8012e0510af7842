package packet

import (
	"syscall"
	"time"
)

// segment is what one end sends to the other.
type segment struct {
	begin uint64 // of data, in octets from the beginning of the stream
	data  []byte
	last  bool // the stream ends behind data
	again bool // it was sent before
	sent  time.Time
	state int

	// What the receiver of data says. All segments have it.
	upTo uint64 // all octets before that have come; one more than there are, when the end has come too
	have []span // that have come beyond it
	room int    // octets that may be on the way
}

// end is where the next segment begins. The end of the stream counts for one octet.
func (s *segment) end() uint64 {
	end := s.begin + uint64(len(s.data))
	if s.last {
		end++
	}
	return end
}

// The states of a segment that has been sent and is not acknowledged with all before it.
const (
	onTheWay = iota
	arrived
	lost // and is to be sent again
)

// span is a run of octets.
type span struct{ begin, end uint64 }

// sender is the part of a connection that sends.
type sender struct {
	mss       int
	out       []byte // written and not acknowledged
	acked     uint64 // octets, before those of out
	next      uint64 // octets that were sent once at least
	finished  bool   // the stream ends behind out
	asking    bool   // the receiver is asked whether it has room
	flushing  bool   // push will be called
	flight    []*segment
	window    int // congestion window, octets
	threshold int // of slow start
	recover   uint64
	mending   bool // since a loss, until recover is acknowledged
	room      int  // that the receiver has
	smoothed  time.Duration
	varies    time.Duration
	backoff   int
	waiting   bool      // for an acknowledgement,
	due       time.Time // until then
	pending   time.Time // when the wire looks whether that is over; zero: it does not
	news      time.Time // when the other end was heard last, or something was sent after nothing was on the way
}

// measured takes a sample of the round-trip time (RFC 6298 section 2).
func (s *sender) measured(rtt time.Duration) {
	if s.smoothed == 0 {
		s.smoothed, s.varies = max(rtt, 1), rtt/2
		return
	}
	s.varies += ((s.smoothed - rtt).Abs() - s.varies) / 4
	s.smoothed += (rtt - s.smoothed) / 8
}

// timeout is how long an acknowledgement is waited for.
func (s *sender) timeout() time.Duration {
	rto := time.Second
	if s.smoothed > 0 {
		rto = s.smoothed + max(4*s.varies, leastRTO) // as Linux bounds the variation
	}
	return min(rto<<min(s.backoff, 8), longestRTO)
}

// pipe is how many octets are on the way.
func (s *sender) pipe() int {
	n := 0
	for _, f := range s.flight {
		if f.state == onTheWay {
			n += len(f.data)
		}
	}
	return n
}

// unsent returns the next segment that was not sent before; nil when there is none.
func (s *sender) unsent() *segment {
	from := int(s.next - s.acked)
	if from > len(s.out) { // the end was sent
		return nil
	}
	data := s.out[from:min(len(s.out), from+s.mss)]
	if s.asking {
		data = data[:min(len(data), 1)]
	}
	last := s.finished && from+len(data) == len(s.out)
	if len(data) == 0 && !last {
		return nil
	}
	return &segment{begin: s.next, data: data, last: last}
}

// push sends what the windows allow, and what is lost first; at least what the receiver is to know, if it is to know something.
func (c *tcpConn) push(update bool) {
	c.mu.Lock()
	var all []*segment
	if c.err == nil && c.connected {
		all = c.allowed()
		if len(all) > 0 {
			c.arm()
		} else if c.next == c.acked && len(c.out) > 0 { // the receiver has no room, and may have said since that it has: it is asked
			c.arm()
		}
	}
	c.mu.Unlock()
	for _, s := range all {
		c.send(s)
	}
	if update && len(all) == 0 {
		c.send(&segment{})
	}
}

// allowed takes the segments that may be sent now. The caller holds the mutex.
func (c *tcpConn) allowed() (all []*segment) {
	now, pipe := time.Now(), c.pipe()
	for _, f := range c.flight {
		if f.state == lost && pipe < c.window {
			f.state, f.again, f.sent = onTheWay, true, now
			pipe += len(f.data)
			all = append(all, f)
		}
	}
	for pipe < c.window {
		s := c.unsent()
		if s == nil || len(s.data) > 0 && int(s.end()-c.acked) > c.room && !c.asking {
			break
		}
		c.asking = false
		if len(c.flight) == 0 {
			c.news = now
		}
		s.sent = now
		c.next = s.end()
		c.flight = append(c.flight, s)
		pipe += len(s.data)
		all = append(all, s)
	}
	return all
}

// send has a segment carried, with what is to be said of the other direction.
func (c *tcpConn) send(s *segment) {
	c.mu.Lock()
	sent := *s // the data of a segment never changes
	sent.upTo, sent.have, sent.room = c.come, c.spans(), receiveBuffer-len(c.unread)
	if c.ended {
		sent.upTo++
	}
	c.told = sent.room
	peer := c.peer
	c.mu.Unlock()
	_ = c.network.carry(c.local.Addr(), c.remote.Addr(), tcpHeaders+len(s.data), false, func() { peer.take(&sent) })
}

// arm sets the retransmission timer. The caller holds the mutex.
func (c *tcpConn) arm() {
	c.waiting, c.due = true, time.Now().Add(c.timeout())
	if c.pending.IsZero() || c.due.Before(c.pending) {
		c.look(c.due)
	}
}

// look has the wire look at a time whether the timer is over. The caller holds the mutex.
func (c *tcpConn) look(at time.Time) {
	c.pending = at
	c.network.wire.at(at, c.local.Addr(), c.remote.Addr(), func() { c.expire(at) })
}

// expire takes that nothing was acknowledged in time: all that is on the way counts as lost, and slow start begins anew (RFC 5681 section 3.1). A
// receiver without room is asked by one octet.
func (c *tcpConn) expire(looked time.Time) {
	c.mu.Lock()
	if !looked.Equal(c.pending) {
		c.mu.Unlock()
		return
	}
	if c.pending = (time.Time{}); c.waiting && c.err == nil && time.Now().Before(c.due) {
		c.look(c.due)
		c.mu.Unlock()
		return
	}
	if !c.waiting || c.err != nil {
		c.mu.Unlock()
		return
	}
	c.waiting = false
	if len(c.flight) > 0 && time.Since(c.news) > giveUp {
		c.end(syscall.ETIMEDOUT)
		c.mu.Unlock()
		return
	}
	c.backoff++
	if len(c.flight) == 0 {
		c.asking = c.room < c.mss
	} else {
		c.threshold = max(c.pipe()/2, 2*c.mss)
		c.window, c.mending = c.mss, false
	}
	for _, f := range c.flight {
		if f.state == onTheWay {
			f.state = lost
		}
	}
	c.mu.Unlock()
	c.push(false)
}

// acknowledge takes what the receiver says. The caller holds the mutex.
func (c *tcpConn) acknowledge(s *segment) {
	c.room, c.news = s.room, time.Now()
	sampled, gained := time.Duration(0), 0
	for len(c.flight) > 0 && c.flight[0].end() <= s.upTo {
		f := c.flight[0]
		c.flight = c.flight[1:]
		if !f.again {
			sampled = time.Since(f.sent)
		}
		gained += len(f.data)
	}
	if gained = min(gained, len(c.out)); s.upTo > c.acked {
		c.out = c.out[gained:]
		c.acked += uint64(gained)
		c.backoff = 0
		c.tell()
		if len(c.flight) == 0 {
			c.waiting = false
		} else {
			defer c.arm()
		}
	}
	if sampled > 0 {
		c.measured(sampled)
	}
	if c.mending && s.upTo >= c.recover {
		c.mending = false
	}
	if !c.mending && gained > 0 {
		if c.window < c.threshold {
			c.window += gained
		} else {
			c.window += max(1, c.mss*gained/c.window)
		}
	}
	c.detect(s.have)
}

// detect finds what is lost: that behind which so many segments have arrived.
func (c *tcpConn) detect(have []span) {
	for _, f := range c.flight {
		for _, h := range have {
			if f.begin >= h.begin && f.end() <= h.end {
				f.state = arrived
			}
		}
	}
	behind := 0
	for i := len(c.flight) - 1; i >= 0; i-- {
		f := c.flight[i]
		if f.state == arrived {
			behind++
		}
		if f.state != onTheWay || f.again || behind < reorderings {
			continue
		}
		if f.state = lost; !c.mending {
			c.mending, c.recover = true, c.next
			c.threshold = max((c.pipe()+len(f.data))/2, 2*c.mss)
			c.window = c.threshold
		}
	}
}
