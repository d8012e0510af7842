package controlplane

import (
	"context"

	"github.com/go-kit/kit/endpoint"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// Endpoints are the service's methods in the form that transports serve and middleware wraps.
type Endpoints struct {
	Status   endpoint.Endpoint // none → *Status
	Explain  endpoint.Endpoint // ExplainRequest → *router.Trace
	Topology endpoint.Endpoint // none → *topology.Topology
}

// none is the request of an endpoint that takes nothing.
type none struct{}

// NewEndpoints wraps the methods of a service.
func NewEndpoints(s *Service) Endpoints {
	return Endpoints{
		Status:   typed(func(ctx context.Context, _ none) (*Status, error) { return s.Status(ctx) }),
		Explain:  typed(func(ctx context.Context, r ExplainRequest) (*router.Trace, error) { return s.Explain(ctx, r) }),
		Topology: typed(func(ctx context.Context, _ none) (*topology.Topology, error) { return s.Topology(ctx) }),
	}
}

// typed makes an endpoint of a typed method.
func typed[Request, Response any](method func(context.Context, Request) (Response, error)) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) {
		return method(ctx, request.(Request))
	}
}
