// Package placement answers where the next PoPs save most: of some sites it chooses those that lower the clients' total round-trip time
// most (the k-median problem), given the PoPs that are there.
//
// Choose adds one site after the other, each time the one that saves most, and then swaps chosen for other sites while that helps. Best finds
// the optimum, for problems small enough, by branch and bound; it is what Choose is held against. The package is pure and deterministic.
package placement

import (
	"cmp"
	"context"
	"math"
	"slices"
)

// Problem is whom to serve, and from where that could be.
type Problem struct {
	Weights []float64   // of the clients' places, such as nodes, or posts a day
	RTT     [][]float64 // ms, by site and clients' place
	There   []float64   // ms, from each clients' place to the nearest PoP that is there already; nil is for none
}

// unserved is the round-trip time of clients that have no PoP at all: longer than any on earth.
const unserved = 1000.0

// Solution is a choice of sites.
type Solution struct {
	Sites []int     // in the order in which each saves most, with those before it
	Total []float64 // weight × ms with the first n sites, n from 0
}

// Cost returns the total weight × ms with all sites.
func (s *Solution) Cost() float64 { return s.Total[len(s.Total)-1] }

// Choose chooses n sites, greedily and with swaps.
func (p *Problem) Choose(n int) *Solution {
	n = min(n, len(p.RTT))
	var sites []int
	near := p.nearest(nil)
	for range n {
		best, saved := -1, -1.0
		for site := range p.RTT {
			if !slices.Contains(sites, site) {
				if s := p.saves(near, site); s > saved {
					best, saved = site, s
				}
			}
		}
		sites = append(sites, best)
		p.add(near, best)
	}
	p.swap(sites)
	return p.ordered(sites)
}

// nearest returns the round-trip time from each clients' place with some sites.
func (p *Problem) nearest(sites []int) []float64 {
	near := make([]float64, len(p.Weights))
	for i := range near {
		if near[i] = unserved; p.There != nil {
			near[i] = p.There[i]
		}
	}
	for _, site := range sites {
		p.add(near, site)
	}
	return near
}

func (p *Problem) add(near []float64, site int) {
	for i, ms := range p.RTT[site] {
		near[i] = min(near[i], ms)
	}
}

// saves returns by how much a site lowers the total.
func (p *Problem) saves(near []float64, site int) float64 {
	sum := 0.0
	for i, ms := range p.RTT[site] {
		if ms < near[i] {
			sum += float64(p.Weights[i] * (near[i] - ms)) // rounded by itself: the same on machines that fuse
		}
	}
	return sum
}

func (p *Problem) total(near []float64) float64 {
	sum := 0.0
	for i, ms := range near {
		sum += float64(p.Weights[i] * ms)
	}
	return sum
}

// swap replaces chosen sites by others as long as the total falls.
func (p *Problem) swap(sites []int) {
	for better := true; better; {
		better = false
		for at := range sites {
			without := p.nearest(slices.Concat(sites[:at], sites[at+1:]))
			best, most := sites[at], p.saves(without, sites[at])
			for site := range p.RTT {
				if s := p.saves(without, site); s > most*(1+1e-12) && !slices.Contains(sites, site) {
					best, most, better = site, s, true
				}
			}
			sites[at] = best
		}
	}
}

// ordered puts chosen sites in the order in which each saves most.
func (p *Problem) ordered(sites []int) *Solution {
	left, near := slices.Sorted(slices.Values(sites)), p.nearest(nil)
	s := &Solution{Total: []float64{p.total(near)}}
	for len(left) > 0 {
		next := slices.MaxFunc(left, func(a, b int) int { return cmp.Compare(p.saves(near, a), p.saves(near, b)) })
		left = slices.DeleteFunc(left, func(site int) bool { return site == next })
		p.add(near, next)
		s.Sites, s.Total = append(s.Sites, next), append(s.Total, p.total(near))
	}
	return s
}

// Best returns a choice of n sites than which none is better. Its time grows exponentially; 12 of 30
// take about 10 ms. When the context ends
// before, it returns the context's error.
func (p *Problem) Best(ctx context.Context, n int) (*Solution, error) {
	start := p.Choose(n)
	search := &search{Problem: p, ctx: ctx, best: start.Cost(), sites: start.Sites}
	all := make([]int, len(p.RTT))
	for i := range all {
		all[i] = i
	}
	search.branch(p.nearest(nil), nil, all, n)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return p.ordered(search.sites), nil
}

// search is the state of a branch and bound.
type search struct {
	*Problem
	ctx   context.Context
	best  float64
	sites []int
	steps int
}

// branch looks for better choices with some sites chosen and n more of those that are left.
//
// What n more can save is at most the sum of the n largest savings by themselves, since savings of one site shrink as others are
// chosen (the function is submodular: Cornuéjols, Fisher and Nemhauser, 1977); and at most what all that are left save together.
func (s *search) branch(near []float64, chosen, left []int, n int) {
	if s.steps++; s.steps%1024 == 0 && s.ctx.Err() != nil {
		return
	}
	cost := s.total(near)
	if cost < s.best {
		s.best, s.sites = cost, slices.Clone(chosen)
	}
	if n == 0 || len(left) == 0 {
		return
	}
	type saving struct {
		site  int
		saves float64
	}
	savings := make([]saving, len(left))
	together := slices.Clone(near)
	for i, site := range left {
		savings[i] = saving{site, s.saves(near, site)}
		s.add(together, site)
	}
	slices.SortFunc(savings, func(a, b saving) int { return cmp.Or(cmp.Compare(b.saves, a.saves), a.site-b.site) })
	bound := 0.0
	for _, one := range savings[:min(n, len(savings))] {
		bound += one.saves
	}
	const slack = 1e-9 // rounding hides no better choice than this part
	if math.Max(cost-bound, s.total(together)) >= s.best*(1-slack) {
		return
	}
	first := savings[0].site
	rest := slices.DeleteFunc(slices.Clone(left), func(site int) bool { return site == first })
	with := slices.Clone(near)
	s.add(with, first)
	s.branch(with, append(slices.Clip(chosen), first), rest, n-1)
	s.branch(near, chosen, rest, n)
}
