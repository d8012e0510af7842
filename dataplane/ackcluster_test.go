package dataplane

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// TestClustersAreNoDisk has a cluster take its time over an acknowledgement that a 202 waits for: that is no wait for the PoP's disk,
// by which load is shed.
func TestClustersAreNoDisk(t *testing.T) {
	const slow = 50 * time.Millisecond
	w := newWorld(t, func(x *topology.Topology) { x.Services[host].Intake.Ack = topology.AckCluster })
	log, err := OpenAccessLog(AccessLogOptions{Path: "-", Stdout: io.Discard, Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	w.config.Access = log
	w.run(t)
	for _, c := range w.clusters {
		c.status.Store(0) // hangs
		defer c.status.Store(http.StatusServiceUnavailable)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answered := make(chan int, 1)
	go func() { answered <- w.post(request(w.key, aPayload).WithContext(ctx)).Code }()
	arrived := func() bool {
		for _, c := range w.clusters {
			c.mu.Lock()
			n := len(c.received)
			c.mu.Unlock()
			if n > 0 {
				return true
			}
		}
		return false
	}
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !arrived() {
		<-look.C
	}
	<-time.After(slow) // of the cluster
	cancel()
	if got := <-answered; got != 503 {
		t.Errorf("got %d", got)
	}
	if got := <-log.lines; got.Total-got.Queue-got.Body-got.Spool < slow {
		t.Errorf("the disk took %v of %v, though a cluster took %v", got.Spool, got.Total, slow)
	}
}
