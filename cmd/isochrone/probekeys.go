package main

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health/probekey"
)

// probeKeyFile is where the key of probes is, if none is sealed for this node. "isochrone up" makes it.
const probeKeyFile = "probe.key"

// probeKeys returns what returns the keys that this node probes with: the one that is sealed, the one that was sealed before, if this process has
// known it, and that of the folder; none when there is none. A PoP that does not know the newest one yet is asked with the next.
func (n *node) probeKeys() func() []string {
	var (
		mu             sync.Mutex
		sealed, before string
	)
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		if secret, ok := n.secrets.value(probekey.Secret); ok {
			if now := strings.TrimSpace(string(secret)); now != sealed {
				sealed, before = now, sealed
			}
		}
		ofFolder, _ := n.dir.read(probeKeyFile)
		keys := []string{}
		for _, key := range []string{sealed, before, ofFolder} {
			if key != "" && !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
		return keys
	}
}

// checkHealthOfPoP makes a PoP a vantage until ctx ends: for clusters alone as long as there is no key of probes, and then for all.
func (n *node) checkHealthOfPoP(ctx context.Context) error {
	keys := n.probeKeys()
	if len(keys()) == 0 {
		without, cancel := context.WithCancel(ctx)
		var waiting sync.WaitGroup
		waiting.Go(func() {
			defer cancel()
			look := time.NewTicker(sourcesInterval)
			defer look.Stop()
			for len(keys()) == 0 {
				select {
				case <-look.C:
				case <-without.Done():
					return
				}
			}
			n.log.Info("there is a key of probes now: PoPs are probed from here too")
		})
		err := n.checkHealth(without, clusterTargets, nil)
		cancel()
		waiting.Wait()
		if ctx.Err() != nil || len(keys()) == 0 {
			return err
		}
	}
	return n.checkHealth(ctx, everything, nil)
}
