package dns

import (
	"context"
	"errors"
	"net"
	"time"
)

// servePortably answers the questions of a socket until ctx ends, by the means that all systems have.
func (s *Server) servePortably(ctx context.Context, conn *net.UDPConn) error {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	buffer := make([]byte, 4096)
	for {
		n, from, err := conn.ReadFromUDPAddrPort(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			continue // a receive error of one datagram, such as an ICMP message that came back
		}
		if answer := s.Answer(buffer[:n], from.Addr(), UDP); answer != nil {
			conn.WriteToUDPAddrPort(answer, from) // what cannot be sent is lost, as any datagram may be
		}
	}
}
