package intakeclient

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
)

// Connect makes a connection to the first endpoint of a service that can be reached, unless there is one, and returns the endpoint.
func (c *Client) Connect(ctx context.Context, endpoints []Endpoint, service string) (Endpoint, error) {
	failures := []error{}
	for _, e := range endpoints {
		_, _, err := c.connection(ctx, target{e.Addr, service}, false)
		if err == nil {
			return e, nil
		}
		failures = append(failures, fmt.Errorf("%s (%v): %w", e.Target, e.Addr, err))
		if ctx.Err() != nil {
			break
		}
	}
	if len(endpoints) == 0 {
		return Endpoint{}, ErrNoAddress
	}
	return Endpoint{}, errors.Join(failures...)
}

// Connected reports whether there is a connection to an endpoint of a service.
func (c *Client) Connected(e Endpoint, service string) bool {
	c.mu.Lock()
	conn := c.conns[target{e.Addr, service}]
	c.mu.Unlock()
	return conn != nil && conn.alive()
}

// Keep closes the connections to addresses that are not wanted, and forgets those that have ended. Requests on what is not wanted fail.
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
