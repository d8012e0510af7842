//go:build !linux

package dns

import (
	"context"
	"net"
)

func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	return s.servePortably(ctx, conn)
}
