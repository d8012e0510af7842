package simulations

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/simulations/packet"
	"github.com/isochrone/isochrone/simulations/virtual"
)

// earlyService takes early data: each request has an Idempotency-Key.
const earlyService = "early.isochrone.test"

// MeasureResumed posts along a path on a connection that resumes the session of one before, and returns the time to the 202: of a client that
// sends early data, and of one that waits for the handshake.
func MeasureResumed(rtts RTTs, path Path) (early, waits time.Duration, err error) {
	dir, err := os.MkdirTemp("", "isochrone-simulation-")
	if err != nil {
		return 0, 0, err
	}
	defer os.RemoveAll(dir)
	err = virtual.Run(func() error {
		w, err := newIntakeWorld(packet.Config{Way: rtts.Way}, path, dir)
		if err != nil {
			return err
		}
		if early, err = w.resumed(true); err == nil {
			waits, err = w.resumed(false)
		}
		return errors.Join(err, w.close())
	})
	return early, waits, err
}

// resumed posts twice, each time on a new connection, and measures the second.
func (w *intakeWorld) resumed(early bool) (time.Duration, error) {
	host := w.network.Host(w.path.Client)
	c := intakeclient.New(intakeclient.Config{Roots: w.ca.Pool(), Early: early, Listen: func() (net.PacketConn, error) {
		return w.network.ListenPacket(netip.AddrPortFrom(host, 40000))
	}})
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var took time.Duration
	for again := range 2 {
		c.Keep(func(netip.AddrPort) bool { return false })
		number := w.posted.Add(1)
		start := time.Now()
		answer, err := c.Post(ctx, []intakeclient.Endpoint{{Target: "pop." + earlyService, Addr: w.pop}}, &intakeclient.Request{
			Service: earlyService, Path: dataplane.Path,
			Header: http.Header{"X-Api-Key": {w.key}, "Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprint(early, again)}},
			Body:   fmt.Appendf(nil, `{"hash":"0x%064x","sender":"0x%040x","amount":"1"}`, number, number),
		})
		took = time.Since(start)
		if err != nil {
			return 0, fmt.Errorf("post to %s: %w", earlyService, err)
		}
		if answer.Status != http.StatusAccepted || answer.Early != (early && again > 0) {
			return 0, fmt.Errorf("post %d: answered %d, early %v: %s", again, answer.Status, answer.Early, answer.Body)
		}
		select {
		case <-w.acks:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return took, nil
}
