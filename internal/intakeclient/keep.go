package intakeclient

import "net/netip"

// Keep closes the connections to addresses that are not wanted, and forgets those that have ended. No request may be on its way on what is
// not wanted.
func (c *Client) Keep(wanted func(netip.AddrPort) bool) {
	var unwanted []*connection
	c.mu.Lock()
	for to, conn := range c.conns {
		if !conn.alive() || !wanted(to.addr) {
			delete(c.conns, to)
			unwanted = append(unwanted, conn)
		}
	}
	c.mu.Unlock()
	for _, conn := range unwanted {
		conn.close()
	}
}
