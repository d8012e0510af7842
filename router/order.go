package router

import "net/netip"

// Order returns the PoPs that a client of a service may be sent to, best first, whatever is known of their state, and the names of the first four.
// Those of one group are in the order of their round-trip times. A canary's policy and VIPs are left out.
func (t *Table) Order(id ServiceID, f Family, client netip.Addr) (order []Choice, leading Leading) {
	q := question{table: t, service: &t.services[id], ranking: t.services[id].rankings[f]}
	if q.ranking == nil {
		return nil, leading
	}
	q.addr, q.v4 = addressOf(client.Unmap()), client.Unmap().Is4()
	q.class = &q.ranking.classes[q.ranking.briefs[t.find(client)].class()]
	for i, c := range q.order() {
		if t.IsVIP(c) {
			continue
		}
		if n := len(order); n < len(leading) && i < int(q.class.n) {
			leading[n] = t.pops[c].name
		}
		order = append(order, c)
	}
	return order, leading
}

// Draw returns the number in [0, 1) by which all clients of an address's bucket are taken by a PoP, or not: those are whose number is
// below the PoP's share.
func Draw(client netip.Addr, pop string) float64 {
	b := bucketOf(addressOf(client.Unmap()), client.Unmap().Is4())
	return float64(b.draw(saltFor(saltOf(pop), forShare))>>11) / (1 << 53)
}
