package packet

import "slices"

// receiver is the part of a connection that receives.
type receiver struct {
	unread []byte
	come   uint64 // octets, all from the beginning
	ended  bool   // and then the stream
	told   int    // the room that the other end was last told of
	pieces []*segment
}

// spans returns what has come beyond what lacks. The caller holds the mutex.
func (r *receiver) spans() (all []span) {
	for _, p := range r.pieces {
		if n := len(all); n > 0 && all[n-1].end == p.begin {
			all[n-1].end = p.end()
		} else {
			all = append(all, span{p.begin, p.end()})
		}
	}
	return all
}

// take takes a segment that has come.
func (c *tcpConn) take(s *segment) {
	c.mu.Lock()
	if c.err != nil {
		if len(s.data) > 0 || s.last {
			c.refuse()
		}
		c.mu.Unlock()
		return
	}
	if c.closed && len(s.data) > 0 && s.end() > c.come { // nobody will read it
		c.reset()
		c.mu.Unlock()
		return
	}
	accept := c.accept
	c.accept = nil
	c.acknowledge(s)
	says := len(s.data) > 0 || s.last
	if says {
		c.assemble(s)
	}
	c.mu.Unlock()
	if accept != nil {
		accept(c)
	}
	if says {
		c.send(&segment{})
	}
	c.push(false)
}

// assemble puts a segment in its place. The caller holds the mutex.
func (c *tcpConn) assemble(s *segment) {
	at, known := slices.BinarySearchFunc(c.pieces, s.begin, func(p *segment, begin uint64) int {
		switch {
		case p.begin < begin:
			return -1
		case p.begin > begin:
			return 1
		}
		return 0
	})
	if s.end() > c.come && !known && !c.ended {
		c.pieces = slices.Insert(c.pieces, at, s)
	}
	for len(c.pieces) > 0 && c.pieces[0].begin <= c.come {
		p := c.pieces[0]
		c.pieces = c.pieces[1:]
		c.unread = append(c.unread, p.data...)
		c.come += uint64(len(p.data))
		c.ended = p.last
		c.tell()
	}
}
