package router

import "net/netip"

// ScopeOf returns the widest prefix around an IPv4 client whose blocks agree on the first k choices of a service.
func ScopeOf(t *Table, id ServiceID, client netip.Addr, k int) netip.Prefix {
	r := t.services[id].rankings[IPv4]
	block := t.v4.find(addressOf(client))
	p, _ := client.Prefix(int(r.reach4.scope(block, k-1)))
	return p
}
