package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/spill"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// spillWorld is a running world whose PoPs tell what the test says.
type spillWorld struct {
	*running
	etcd *clientv3.Client
}

func (w *spillWorld) connect(t *testing.T) {
	t.Helper()
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{w.Etcd}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	w.etcd = client
}

// tell has a node say how many requests a second PoPs get.
func (w *spillWorld) tell(t *testing.T, loads map[string]float64) {
	t.Helper()
	text := "schema: 1\nkind: pop\nversion: test\nloads:\n"
	for pop, rps := range loads {
		text += fmt.Sprintf("  %s: {requests: %v, cpu: 0.1}\n", pop, rps)
	}
	if _, err := w.etcd.Put(t.Context(), storeRoot+"nodes/pop:test", text); err != nil {
		t.Fatal(err)
	}
}

// shares reads what is in force.
func (w *spillWorld) shares(t *testing.T) (router.Spill, error) {
	got, err := w.etcd.Get(t.Context(), storeRoot+controlplane.SharesKey)
	if err != nil || len(got.Kvs) == 0 {
		return router.Spill{}, err
	}
	return spill.Decode(got.Kvs[0].Value)
}

// germans are networks of one place that are in sixteen buckets.
func germans() (subnets []string) {
	for i := range 16 {
		subnets = append(subnets, fmt.Sprintf("18.184.%d.0/24", 16*i))
	}
	return subnets
}

// elsewhere counts the German clients who are not sent to Frankfurt.
func elsewhere(r *running) (n int, err error) {
	for _, subnet := range germans() {
		pop, err := r.pop(subnet)
		if err != nil {
			return 0, err
		}
		if pop != "fra1" {
			n++
		}
	}
	return n, nil
}

// TestFullPoP has Frankfurt get more than it can do: the leader plans shares, by which all who answer send a part of its clients elsewhere. They stay
// when leader and etcd are gone, also in a DNS node that starts without them, and end when there is room again.
func TestFullPoP(t *testing.T) {
	t.Parallel()
	w := &spillWorld{running: startUp(t, "")}
	w.connect(t)
	text := strings.Replace(w.run(t, "topology", "get", "services/intake.isochrone.test"), "steering:\n", "steering:\n  spill: {max_move: 1}\n", 1)
	text = strings.Replace(text, "ttl: 20s", "ttl: 1s", 1)
	if _, err := w.etcd.Put(t.Context(), storeRoot+"topology/services/intake.isochrone.test", text); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	far := startDNSIn(t, w.running, dir, "--etcd", w.Etcd, "--probe=false")
	far.leads(t, "frankfurt", "fra1")

	// Others get less than a tenth of what they can do: how busy this machine is tells nothing of them.
	w.tell(t, map[string]float64{"fra1": 3300, "iad1": 150, "nrt1": 100, "sin1": 80, "gru1": 50, "jnb1": 20})
	moves := func(r *running, least int) func() error {
		return func() error {
			if n, err := elsewhere(r); err != nil || n < least {
				return fmt.Errorf("%d are sent elsewhere, though fra1 is full: %v", n, err)
			}
			return nil
		}
	}
	eventually(t, "clients of a full PoP elsewhere", moves(w.running, 4))
	eventually(t, "the same by another node", moves(&far.running, 4))
	w.tell(t, map[string]float64{"fra1": 1890, "iad1": 1560, "nrt1": 100, "sin1": 80, "gru1": 50, "jnb1": 20}) // as if clients had followed
	planned, err := w.shares(t)
	if err != nil || len(planned.Takes) == 0 {
		t.Fatalf("got %v and %v, want shares", planned, err)
	}
	status := decode[controlplane.Status](t, w.run(t, "status", "-o", "json"))
	if status.Spill == nil || status.Spill.Last == nil || status.Spill.Last.Moved <= 0 {
		t.Errorf("status tells %+v of shares", status.Spill)
	}
	if out := w.run(t, "status"); !strings.Contains(out, "shares were changed") || !strings.Contains(out, "REALISED") {
		t.Errorf("status says\n%s", out)
	}
	// What all of them do is what explain says, which has the shares.
	eventually(t, "everybody to agree", func() error {
		shared := 0
		for _, subnet := range germans() {
			trace := decode[router.Trace](t, w.run(t, "explain", "intake.isochrone.test", "--subnet", subnet, "-o", "json"))
			a, errA := w.pop(subnet)
			b, errB := far.pop(subnet)
			if errA != nil || errB != nil || a != b || len(trace.Answer) != 1 || trace.Answer[0] != a {
				return fmt.Errorf("%s: %q %v, %q %v; explain says %q", subnet, a, errA, b, errB, trace.Answer)
			}
			if c := trace.Candidates[0]; c.PoP == "fra1" && c.Share < 1 {
				shared++
			}
		}
		if shared == 0 {
			return fmt.Errorf("explain tells no share of fra1")
		}
		return nil
	})

	w.kill() // and with it the leader, etcd and the PoPs
	far.says(t, "etcd cannot be used")
	before, err := elsewhere(&far.running)
	if err != nil || before == 0 {
		t.Errorf("without a leader %d are sent elsewhere, %v", before, err)
	}
	far.interrupt(t)
	far = startDNSIn(t, w.running, dir, "--etcd", w.Etcd, "--probe=false")
	far.leads(t, "singapore", "sin1")
	if n, err := elsewhere(&far.running); err != nil || n != before {
		t.Errorf("after a start without etcd %d are sent elsewhere, %v, before it were %d", n, err, before)
	}
	far.interrupt(t)

	w.running = startUp(t, w.dir)
	w.connect(t)
	eventually(t, "shares as they were", moves(w.running, 1))
	w.tell(t, map[string]float64{"fra1": 150, "iad1": 100, "nrt1": 50, "sin1": 30, "gru1": 10, "jnb1": 5})
	eventually(t, "all to return", func() error {
		n, err := elsewhere(w.running)
		if s, readErr := w.shares(t); err == nil && (n > 0 || len(s.Takes) > 0) {
			err = fmt.Errorf("%d are sent elsewhere; %d shares, %v", n, len(s.Takes), readErr)
		}
		return err
	})
}
