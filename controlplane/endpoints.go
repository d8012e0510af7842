package controlplane

import (
	"context"
	"reflect"

	"github.com/go-kit/kit/endpoint"
)

// route is one operation over HTTP. The mux, who may call it, and the OpenAPI document come from the table of routes.
type route struct {
	method, path string // as http.ServeMux takes them
	role         Role   // that is needed; empty for what anybody may read
	summary      string
	request      reflect.Type // a struct: see decodeRequest
	response     reflect.Type // none{} is answered by 204 without a body
	endpoint     endpoint.Endpoint
}

// none is the request of an endpoint that takes nothing, and the response of one that gives nothing.
type none struct{}

// on makes a route of a typed method, through an endpoint of it.
func on[Request, Response any](method, path string, role Role, summary string, do func(context.Context, Request) (Response, error)) route {
	return route{
		method: method, path: path, role: role, summary: summary,
		request: reflect.TypeFor[Request](), response: reflect.TypeFor[Response](), endpoint: typed(do),
	}
}

// typed makes an endpoint of a typed method.
func typed[Request, Response any](do func(context.Context, Request) (Response, error)) endpoint.Endpoint {
	return func(ctx context.Context, request any) (any, error) { return do(ctx, request.(Request)) }
}

// asking makes a method that asks for nothing one of a request.
func asking[Response any](do func(context.Context) (Response, error)) func(context.Context, none) (Response, error) {
	return func(ctx context.Context, _ none) (Response, error) { return do(ctx) }
}

// writes reports whether the route changes something.
func (r *route) writes() bool { return r.method != "GET" }
