package controlplane

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
)

// ExplainRequest asks why clients are answered as they are.
type ExplainRequest struct {
	Service string
	Client  string   // an address or a prefix
	Family  string   // A (default), AAAA or HTTPS
	If      []string // what is supposed, as router.Suppose takes it
}

// Explain decides as the DNS server would, and says why. The errors are ErrInvalid, ErrNotFound and ErrNotReady.
func (s *Service) Explain(_ context.Context, request ExplainRequest) (*router.Trace, error) {
	view := s.View()
	if view == nil {
		return nil, errNoView
	}
	client, err := parseClient(request.Client)
	if err != nil {
		return nil, err
	}
	family, err := parseFamily(request.Family)
	if err != nil {
		return nil, err
	}
	if len(request.If) > 0 {
		if view, err = router.Suppose(view, request.If...); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
	}
	id, ok := view.Table.Service(strings.TrimSuffix(request.Service, "."))
	if !ok {
		return nil, noService(view, request.Service)
	}
	trace := new(router.Trace)
	router.Decide(view, id, family, client, trace)
	if len(request.If) == 0 {
		s.whoSays(trace)
	}
	return trace, nil
}

// whoSays adds to the candidates what is seen of them now, and by whom.
func (s *Service) whoSays(trace *router.Trace) {
	var newest health.Verdicts
	if s.Verdicts != nil {
		newest = s.Verdicts()
	}
	var vantages []VantageStatus
	if s.Vantages != nil {
		vantages = s.Vantages()
	}
	for i := range trace.Candidates {
		c := &trace.Candidates[i]
		target := health.Target{Kind: health.PoP, Name: c.PoP}
		if n, known := newest[target]; known && n.Status == c.Health { // what is in effect, as it was seen last
			c.Verdict = n
		}
		for _, v := range vantages {
			for _, said := range v.Statements {
				if said.Target == target.String() {
					c.Says = append(c.Says, router.Said{
						Vantage: v.Name, Region: v.Region, Status: said.Status, Reason: said.Reason, Since: said.Since, Doubted: v.Doubted != "",
					})
				}
			}
		}
	}
}

// parseFamily reads a record type; empty stands for A.
func parseFamily(text string) (router.Family, error) {
	family, ok := map[string]router.Family{"": router.IPv4, "A": router.IPv4, "AAAA": router.IPv6, "HTTPS": router.Either}[text]
	if !ok {
		return 0, fmt.Errorf("%w: family %q is not one of A, AAAA, HTTPS", ErrInvalid, text)
	}
	return family, nil
}

// noService says that there is no service of a name, and which there are.
func noService(view *router.View, name string) error {
	names := slices.Sorted(maps.Keys(view.Table.Snapshot().Topology.Services))
	if name == "" {
		return fmt.Errorf("%w: say which service; there are %q", ErrInvalid, names)
	}
	return fmt.Errorf("service %q %w; the services are %q", name, ErrNotFound, names)
}
