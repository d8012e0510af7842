package router

import (
	"net/netip"
	"slices"
)

// Order is how some of the clients of a service at one address rank what they may be sent to, whatever is known of its state.
type Order struct {
	Part    float64  // of the clients, in 0..1; those of all orders sum up to 1
	Choices []Choice // best first; a VIP is the first of them, if it is among them
	Leading Leading  // the first four PoPs of their class
}

// permuted is up to how many PoPs of the first group are taken in all orders; of more only the first two are, and of the second group the first.
const permuted = 3

// Orders returns the orders of a client: one, or more when the service has a canary, or when PoPs share the client because they are equally near.
// There is none where no PoP has an address of the family.
func (t *Table) Orders(id ServiceID, f Family, client netip.Addr) []Order {
	service, main, others := &t.services[id], 1.0, 0.0
	if canary := service.Steering.Canary; canary != nil && service.canary[f] != nil {
		others = min(max(canary.Share, 0), 1)
		main = 1 - others
	}
	return t.orders(service.canary[f], others, client, t.orders(service.rankings[f], main, client, nil))
}

// orders appends those of a ranking that a part of the clients get.
func (t *Table) orders(r *ranking, part float64, client netip.Addr, into []Order) []Order {
	if r == nil || !(part > 0) {
		return into
	}
	q := question{table: t, ranking: r}
	q.addr, q.v4 = addressOf(client.Unmap()), client.Unmap().Is4()
	q.class = &r.classes[r.briefs[t.find(client)].class()]
	all := q.order()
	var leading Leading
	for i, n := 0, 0; i < int(q.class.n) && n < len(leading); i++ {
		if c := all[i]; !t.IsVIP(c) {
			leading[n], n = t.pops[c].name, n+1
		}
	}
	end := 0
	if q.class.n > 0 {
		end = q.class.groupEnd(0)
	}
	next := end // the end of the second group
	if end > 0 && end < int(q.class.n) {
		next = q.class.groupEnd(end)
	}
	most := end
	if end > permuted {
		most = 2
	}
	r.permute(all, 0, most, end, part, func(order []Choice, part float64) {
		r.permute(order, end, end+1, next, part, func(order []Choice, part float64) { into = append(into, Order{part, order, leading}) })
	})
	return into
}

// permute gives the orders of the members of a group, from a rank to its end, with their chances: each is next by its weight among those that are left.
// From a place on they stay as they are.
func (r *ranking) permute(order []Choice, at, most, end int, part float64, give func([]Choice, float64)) {
	if end-at < 2 || at >= most {
		give(order, part)
		return
	}
	weight := func(c Choice) float64 {
		if r.weight == nil {
			return 1
		}
		return float64(r.weight[c])
	}
	sum := 0.0
	for _, c := range order[at:end] {
		sum += weight(c)
	}
	for i := at; i < end; i++ {
		next := slices.Clone(order)
		copy(next[at+1:i+1], order[at:i])
		next[at] = order[i]
		r.permute(next, at+1, most, end, part*weight(order[i])/sum, give)
	}
}

// Alike returns something that is equal for services and families whose clients are ranked and answered alike, whatever else differs.
func (t *Table) Alike(id ServiceID, f Family) any {
	s := &t.services[id]
	share := 0.0
	if s.Steering.Canary != nil {
		share = s.Steering.Canary.Share
	}
	return [...]any{s.rankings[f], s.canary[f], share, s.Steering.Answers, s.Steering.Spill != nil && s.Steering.Spill.Off}
}

// Draw returns the number in [0, 1) by which all clients of an address's bucket are taken by a PoP, or not: those are whose number is
// below the PoP's share.
func Draw(client netip.Addr, pop string) float64 {
	b := bucketOf(addressOf(client.Unmap()), client.Unmap().Is4())
	return float64(b.draw(saltFor(saltOf(pop), forShare))>>11) / (1 << 53)
}
