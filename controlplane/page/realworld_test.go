package page_test

import (
	"context"
	"iter"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/controlplane/page"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
	"github.com/isochrone/isochrone/topology/store/embedded"
)

// noNetworks is a geo database that knows none.
type noNetworks struct{}

func (noNetworks) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(func(netip.Prefix, *router.Place) bool) {}
}

// realWorld starts a control plane of the example world at an etcd of its own, and returns its address and a token of an operator.
func realWorld(t *testing.T) (url, token string) {
	t.Helper()
	etcd, err := embedded.Start(t.Context(), embedded.Config{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{etcd.Endpoint()}, DialTimeout: 5 * time.Second, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	atlas, err := router.NewAtlas(noNetworks{})
	if err != nil {
		t.Fatal(err)
	}
	live, st, auth := router.NewLive(atlas), store.New(client, "/isochrone/"), controlplane.NewTokens(client, "/isochrone/")
	example, put := newWorld(t).top, map[topology.Ref]topology.Object{}
	for _, r := range example.Refs() {
		put[r] = example.Object(r)
	}
	if _, err := st.Apply(t.Context(), store.Change{Put: put, Author: "test", Message: "begin"}); err != nil {
		t.Fatal(err)
	}
	made, err := auth.Create(t.Context(), controlplane.TokenRequest{Name: "ops", Role: controlplane.Operator}, "test")
	if err != nil {
		t.Fatal(err)
	}
	verdicts := health.Verdicts{}
	for _, r := range example.Refs() {
		for kind, of := range map[health.Kind]topology.Kind{health.PoP: topology.PoPs, health.Cluster: topology.Clusters} {
			if r.Kind == of {
				verdicts[health.Target{Kind: kind, Name: r.Name}] = health.Verdict{Status: health.Up, Reason: "answered", Since: time.Now(), Seen: time.Now()}
			}
		}
	}
	live.Verdicts(verdicts, time.Now())
	var newest atomic.Pointer[topology.Snapshot]
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	ready := make(chan struct{})
	running.Go(func() {
		_ = st.Follow(ctx, nil, func(snap *topology.Snapshot) {
			if err := live.Topology(snap, time.Now()); err != nil {
				t.Error(err)
			}
			if newest.Swap(snap) == nil {
				close(ready)
			}
		})
	})
	running.Go(func() { _ = auth.Follow(ctx, nil) })
	server := httptest.NewServer(controlplane.NewHandler(&controlplane.Service{View: live.View, Snapshot: newest.Load, Now: time.Now, Store: st, Auth: auth,
		Activity: func() controlplane.Activity { return controlplane.Activity{} }, Geo: func() controlplane.GeoStatus { return controlplane.GeoStatus{} },
	}, controlplane.HandlerConfig{Page: page.Handler()}))
	t.Cleanup(func() {
		cancel()
		server.CloseClientConnections()
		server.Close()
		running.Wait()
		client.Close()
		etcd.Close()
	})
	select {
	case <-ready:
	case <-time.After(10 * time.Second):
		t.Fatal("there is no snapshot after ten seconds")
	}
	return server.URL, made.Secret
}

// tryRealWorld does at a real control plane, store and router what other tests do at a made-up one.
func tryRealWorld(t *testing.T, _ *world, open opener) {
	url, token := realWorld(t)
	p := open(url+"/#token="+token, 1280, 900)
	p.see("#sentence", "All 6 PoPs and 3 clusters are well.")
	p.await(`document.querySelector(".live.on") && document.querySelectorAll(".cells path").length > 3`)
	p.visit("#/explain?client=192.0.2.7")
	p.await("document.querySelectorAll('.answer tbody tr').length === 6")
	p.visit("#/overrides?pop=sin1")
	p.await("document.querySelector('.safety .answer')")
	p.write("input[name=reason]", "power works")
	p.press("main", "Drain sin1")
	p.await("document.querySelector('dialog') || document.querySelector('#sentence').innerText.includes('drained')")
	if js[bool](p, "Boolean(document.querySelector('dialog'))") {
		p.press("dialog", "Drain sin1")
	}
	p.see("#sentence", "sin1 is drained by ops for 60 min more")
	p.press("main", "Undrain")
	p.press("dialog", "Undrain")
	p.see("#sentence", "All 6")

	p.visit("#/topology?object=pops/sin1")
	p.await(`document.querySelector("textarea")?.value.includes("capacity_rps: 2000")`)
	p.edit("lat: 1.2897", "lat: 135")
	p.press("main", "Validate")
	p.see(".told.bad", "135 is not in -90..90")
	if got, want := js[int](p, `Number(document.querySelector(".gutter .bad")?.textContent)`), p.line("lat: 135"); got != want {
		t.Errorf("line %d is marked, want %d", got, want)
	}
	p.edit("lat: 135", "lat: 1.2897")
	p.edit("capacity_rps: 2000", "capacity_rps: 3000")
	p.write("main input[maxlength='500']", "more room")
	p.press("main", "Apply…")
	p.press("dialog", "Apply")
	p.see("main .told.good", "Applied as revision")

	p.visit("#/history")
	p.see("main table", "more room")
	p.click("main tbody tr:nth-child(1) .buttons button")
	p.see(".unified", "capacity_rps: 3000")
	js[any](p, `[...document.querySelectorAll("main button")].find((b) => b.textContent.startsWith("Back to this")).click()`)
	p.see("dialog", "pops/sin1")
	p.press("dialog", "Go back to it")
	p.see("main .told.good", "The topology is what it was")

	p.visit("#/keys")
	p.press("main", "New key…")
	p.write("dialog input[placeholder='whose it is']", "the shop")
	p.press("dialog", "Make the key")
	p.await(`document.querySelector("dialog .secret")?.value.length > 20`)
	p.press("dialog", "I have kept it")
	p.see("main table", "the shop")
	p.press("main", "Revoke")
	p.press("dialog", "Revoke it")
	p.see("main", "There is no key.")
}
