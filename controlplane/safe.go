package controlplane

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/router/whatif"
	"github.com/isochrone/isochrone/topology"
)

// The bounds of what is safe.
const (
	maxSlower95MS  = 100   // by which the 95th percentile of a service's clients may get worse
	maxUnservedNew = 0.001 // share of a service's clients that may lose their answer
	toldCountries  = 3
)

// reasons are why a drain is safe or is not.
type reasons struct{ no, yes []string }

func (r *reasons) against(format string, args ...any) {
	r.no = append(r.no, fmt.Sprintf(format, args...))
}
func (r *reasons) tell(format string, args ...any) {
	r.yes = append(r.yes, fmt.Sprintf(format, args...))
}

func (r *reasons) safety(effects []Effect) *Safety {
	because := append(slices.Clone(r.no), r.yes...)
	return &Safety{Safe: len(r.no) == 0, Because: some(because), Effect: some(effects)}
}

// Safe tells whether a PoP or a cluster can be drained: whether what it does can be done by others that are well. It looks at the
// topology, the verdicts and the overrides in force. The errors are ErrInvalid, ErrNotFound and ErrNotReady.
func (s *Service) Safe(_ context.Context, request SafeRequest) (*Safety, error) {
	view := s.View()
	if view == nil {
		return nil, errNoView
	}
	top := view.Table.Snapshot().Topology
	switch {
	case (request.PoP == "") == (request.Cluster == ""):
		return nil, fmt.Errorf("%w: want one of pop and cluster", ErrInvalid)
	case request.Cluster != "":
		return s.safeCluster(view, top, request.Cluster)
	case top.PoPs[request.PoP] == nil:
		return nil, fmt.Errorf("PoP %s: %w; there are %s", request.PoP, ErrNotFound, strings.Join(slices.Sorted(maps.Keys(top.PoPs)), ", "))
	}
	return s.safePoP(view, top, request.PoP)
}

func (s *Service) safePoP(view *router.View, top *topology.Topology, name string) (*Safety, error) {
	r := new(reasons)
	if ok, why := standingOf(view, name); !ok {
		r.tell("%s gets no clients now: %s", name, cmp.Or(why, string(top.PoPs[name].State)))
	}
	drained := s.drained(view, &topology.Override{PoP: name})
	for id := range view.Table.Services() {
		service, _ := view.Table.ServiceByID(router.ServiceID(id))
		others := 0
		offers := false
		for _, c := range view.Table.Candidates(router.ServiceID(id)) {
			other, _ := view.Table.PoP(c)
			if offers = offers || other == name; other == name {
				continue
			}
			if ok, _ := view.State.Standing(c); ok {
				others++
			}
		}
		if offers && others == 0 {
			r.against("%s would have no PoP left that is well", service)
		}
	}
	world, now, err := s.foreseen.now(view)
	if err != nil {
		return nil, err
	}
	then := now.On(now.Table, drained)
	result, err := s.compare(world, now, then)
	if err != nil {
		return nil, err
	}
	for _, e := range result.effects {
		r.clients(&e, name, lostAnswers(world, now, then, &e))
	}
	for _, pop := range result.overloaded {
		r.against("%s would have %.0f %% of its capacity, %s", pop, 100*result.loads[pop].After, result.traffic)
	}
	for _, line := range farther(world, now, then, toldCountries) {
		r.tell("%s", line)
	}
	if len(r.no) == 0 && len(world.Clients) > 0 {
		if result.traffic != "" {
			r.tell("no PoP would have more than its capacity that has not now, %s", result.traffic)
		}
		r.tell("every client gets an answer, and the slowest twentieth waits at most %d ms longer", maxSlower95MS)
	}
	return r.safety(result.effects), nil
}

// drained are the overrides in force with one drain more.
func (s *Service) drained(view *router.View, o *topology.Override) map[string]*topology.Override {
	overrides := maps.Clone(view.Table.Snapshot().Overrides)
	if overrides == nil {
		overrides = map[string]*topology.Override{}
	}
	now := s.Now()
	o.Schema, o.Kind, o.Reason, o.Author = topology.FirstSchema, topology.Drain, "supposed", "check"
	o.Created, o.Expires = now, now.Add(time.Hour)
	overrides["supposed drain"] = o // no override can have this name
	return overrides
}

func standingOf(view *router.View, name string) (bool, string) {
	for c := range view.Table.PoPs() {
		if n, _ := view.Table.PoP(router.Choice(c)); n == name {
			return view.State.Standing(router.Choice(c))
		}
	}
	return false, ""
}

// clients tells what would become of a service's clients.
func (r *reasons) clients(e *Effect, name string, lost float64) {
	if lost > maxUnservedNew {
		r.against("%.1f %% of the clients of %s would get no answer (%s)", 100*lost, e.Service, e.Family)
	}
	if slower := e.P95MS[1] - e.P95MS[0]; slower > maxSlower95MS {
		r.against("the slowest twentieth of the clients of %s (%s) would wait %.0f ms instead of %.0f", e.Service, e.Family, e.P95MS[1], e.P95MS[0])
	}
	if e.Family == router.IPv4.String() && e.Moved > 0 {
		var to []string
		for _, m := range e.Moves {
			if m.To != "" && m.From == name && len(to) < toldCountries {
				to = append(to, fmt.Sprintf("%s %.1f %%", m.To, 100*m.Share))
			}
		}
		r.tell("%.1f %% of the clients of %s would move: to %s", 100*e.Moved, e.Service, strings.Join(to, ", "))
	}
}

// lostAnswers returns the share of clients that have an answer now, and would have none.
func lostAnswers(world *whatif.World, now, then *router.View, e *Effect) float64 {
	family, err := parseFamily(e.Family)
	id, ok := now.Table.Service(e.Service)
	if err != nil || !ok {
		return 0
	}
	lost := 0.0
	for _, d := range world.Clients {
		if router.Decide(then, id, family, d.Client, nil).N == 0 && router.Decide(now, id, family, d.Client, nil).N > 0 {
			lost += d.Weight
		}
	}
	return lost
}

// farther says of the countries that a change makes slower, the one with the most clients first, where they go.
func farther(world *whatif.World, now, then *router.View, most int) []string {
	if now.Table.Services() == 0 {
		return nil
	}
	moves := map[[2]string]*move{} // by country and PoP
	from, to := now.Table.Meter(), then.Table.Meter()
	for _, d := range world.Clients {
		before, after := router.Decide(now, 0, router.IPv4, d.Client, nil), router.Decide(then, 0, router.IPv4, d.Client, nil)
		if before.N == 0 || after.N == 0 || before.Choices[0] == after.Choices[0] {
			continue
		}
		_, place := now.Table.Location(d.Client.Addr())
		pop, _ := then.Table.PoP(after.Choices[0])
		if place == nil {
			continue
		}
		key := [2]string{place.Country, pop}
		if moves[key] == nil {
			moves[key] = new(move)
		}
		moves[key].add(d.Weight, from.Milliseconds(d.Client.Addr(), before.Choices[0]), to.Milliseconds(d.Client.Addr(), after.Choices[0]))
	}
	keys := slices.SortedFunc(maps.Keys(moves), func(a, b [2]string) int {
		return cmp.Or(-cmp.Compare(moves[a].weight, moves[b].weight), slices.Compare(a[:], b[:]))
	})
	var lines []string
	for _, key := range keys[:min(len(keys), most)] {
		lines = append(lines, fmt.Sprintf("clients in %s go to %s: median %.0f → %.0f ms", key[0], key[1], median(moves[key].before), median(moves[key].after)))
	}
	return lines
}

// move is what becomes of some clients.
type move struct {
	weight        float64
	before, after []float64
}

func (m *move) add(weight, before, after float64) {
	m.weight += weight
	m.before, m.after = append(m.before, before), append(m.after, after)
}

func median(values []float64) float64 {
	slices.Sort(values)
	return values[len(values)/2]
}

func (s *Service) safeCluster(view *router.View, top *topology.Topology, name string) (*Safety, error) {
	if top.Clusters[name] == nil {
		return nil, fmt.Errorf("cluster %s: %w; there are %s", name, ErrNotFound, strings.Join(slices.Sorted(maps.Keys(top.Clusters)), ", "))
	}
	r := new(reasons)
	for _, service := range slices.Sorted(maps.Keys(top.Services)) {
		used := top.Services[service].Clusters
		if len(used) == 0 {
			used = slices.Sorted(maps.Keys(top.Clusters))
		}
		others := slices.DeleteFunc(slices.Clone(used), func(c string) bool {
			takes, _ := clusterStanding(view, c)
			return c == name || !takes
		})
		if !slices.Contains(used, name) {
			continue
		}
		if len(others) == 0 {
			r.against("%s would have no cluster left that is well", service)
			continue
		}
		for _, line := range rerouted(view, top, name, others, toldCountries) {
			r.tell("%s: %s", service, line)
		}
	}
	if len(r.no) == 0 {
		r.tell("every service has another cluster that is well")
	}
	return r.safety(nil), nil
}

// rerouted tells of PoPs whose nearest cluster is drained where their envelopes go.
func rerouted(view *router.View, top *topology.Topology, name string, others []string, most int) []string {
	model := rtt.Default()
	var lines []string
	for _, pop := range slices.Sorted(maps.Keys(top.PoPs)) {
		ms := func(cluster string) float64 {
			return model.Milliseconds(top.PoPs[pop].Location, top.Clusters[cluster].Location)
		}
		next := slices.MinFunc(others, func(a, b string) int { return cmp.Compare(ms(a), ms(b)) })
		if ok, _ := standingOf(view, pop); ok && ms(name) < ms(next) && len(lines) < most {
			lines = append(lines, fmt.Sprintf("%s forwards to %s: %.0f → %.0f ms", pop, next, ms(name), ms(next)))
		}
	}
	return lines
}
