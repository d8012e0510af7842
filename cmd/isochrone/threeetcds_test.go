//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/etcdtest"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// pairWorld is a DNS node and a PoP at an etcd of three members. Each of its edits moves two PoPs at once, which a service of its own
// names in one answer: nobody may ever be told of one move without the other.
type pairWorld struct {
	*testing.T
	etcd   *etcdtest.Cluster
	client *clientv3.Client
	store  *store.Store
	dns    *dnsProcess
	pop    *process
	edits  int

	key, scarce string // API keys: of much quota, and of little
}

const pairService = "pair.isochrone.test"

// startPairs starts the processes. World is one that has ended, whose state folder they use.
func startPairs(t *testing.T, c *etcdtest.Cluster, world *running, client *clientv3.Client) *pairWorld {
	w := &pairWorld{T: t, etcd: c, client: client, store: store.New(client, storeRoot)}
	pair := &topology.Service{Schema: 1, PoPs: []string{"fra1", "nrt1"}}
	pair.Steering.Answers, pair.Steering.TTL, pair.Steering.ECS, pair.Steering.WhenAllDown = 2, topology.Duration(time.Second), topology.UseECS, topology.FailOpen
	pair.Steering.Rank = topology.RankByRTT
	pair.Intake.Ack, pair.Intake.MaxBodyBytes = topology.AckSpool, 1<<16
	pair.Intake.ContentTypes = []string{"application/json"}
	if _, err := w.store.Apply(t.Context(), store.Change{Put: map[topology.Ref]topology.Object{
		{Kind: topology.Services, Name: pairService}: pair,
	}, Author: "test"}); err != nil {
		t.Fatal(err)
	}
	endpoints := strings.Join(c.Endpoints(), ",")
	start(t, "cluster ap takes", "cluster", "ap", "--dir", world.dir, "--etcd", endpoints)
	w.pop = start(t, "PoP sin1", "pop", "sin1", "--dir", world.dir, "--etcd", endpoints)
	w.dns = startDNS(t, world, t.TempDir(), "--etcd", endpoints, "--probe=false", "--rate-limit", "0")
	eventually(t, "a first answer", func() error { // until it has read the topology there is none, however long that takes
		_, err := pairAnswer(w.dns.DNS)
		return err
	})
	return w
}

// addresses are those of the pair after an edit.
func (w *pairWorld) addresses(edit int) (fra, nrt netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 1, byte(edit >> 8), byte(edit)}), netip.AddrFrom4([4]byte{10, 2, byte(edit >> 8), byte(edit)})
}

// edit makes an edit.
func (w *pairWorld) edit(ctx context.Context) error {
	snap, err := w.store.Read(ctx)
	if err != nil {
		return err
	}
	fra, nrt := *snap.Topology.PoPs["fra1"], *snap.Topology.PoPs["nrt1"]
	a, b := w.addresses(w.edits + 1)
	fra.Addresses, nrt.Addresses = []netip.Addr{a}, []netip.Addr{b}
	if _, err = w.store.Apply(ctx, store.Change{Put: map[topology.Ref]topology.Object{
		{Kind: topology.PoPs, Name: "fra1"}: &fra, {Kind: topology.PoPs, Name: "nrt1"}: &nrt,
	}, Author: "test"}); err == nil {
		w.edits++
	}
	return err
}

// pairAnswer asks for the pair and returns of which edit the answer is.
func pairAnswer(at string) (edit int, err error) {
	question := new(mdns.Msg).SetQuestion(pairService+".", mdns.TypeA)
	question.SetEdns0(1232, false) // so that a refusal says why
	client := mdns.Client{Timeout: 5 * time.Second}
	answer, _, err := client.Exchange(question, at)
	if err != nil {
		return 0, err
	}
	var of []int
	for _, rr := range answer.Answer {
		if a, ok := rr.(*mdns.A); ok {
			octets := a.A.To4()
			of = append(of, int(octets[2])<<8|int(octets[3]))
		}
	}
	if len(of) != 2 {
		return 0, fmt.Errorf("at %s the answer is\n%v", time.Now().Format(time.TimeOnly), answer)
	}
	if of[0] != of[1] && of[0] < 1<<8 && of[1] < 1<<8 { // before the first edit they have nothing in common
		return 0, fmt.Errorf("half of an edit is answered:\n%v", answer)
	}
	return of[0], nil
}

// takesEffect makes an edit, as soon as etcd takes it, and waits until it is answered.
func (w *pairWorld) takesEffect(what string) {
	w.Helper()
	eventually(w.T, "an edit "+what, func() error { return w.edit(w.Context()) })
	eventually(w.T, "the effect of an edit "+what, func() error {
		edit, err := pairAnswer(w.dns.DNS)
		if err == nil && edit != w.edits {
			err = fmt.Errorf("the answer is of edit %d, want %d", edit, w.edits)
		}
		return err
	})
}

// fill puts into etcd until its quota is used up.
func (w *pairWorld) fill() {
	w.Helper()
	junk := strings.Repeat("x", 1<<20)
	eventually(w.T, "etcd's quota to be used up", func() error {
		ctx, cancel := context.WithTimeout(w.Context(), 5*time.Second)
		defer cancel()
		for i := 0; ; i++ {
			if _, err := w.client.Put(ctx, fmt.Sprintf("/junk/%d", i), junk); errors.Is(err, rpctypes.ErrNoSpace) {
				return nil
			} else if err != nil {
				return err
			}
		}
	})
}

// makeRoom deletes what fill has put, and has etcd write again.
func (w *pairWorld) makeRoom() {
	w.Helper()
	ctx := w.Context()
	deleted, err := w.client.Delete(ctx, "/junk/", clientv3.WithPrefix())
	if err != nil {
		w.Fatal(err)
	}
	if _, err := w.client.Compact(ctx, deleted.Header.Revision); err != nil {
		w.Fatal(err)
	}
	for _, m := range w.etcd.Members {
		if _, err := w.client.Defragment(ctx, m.Client); err != nil {
			w.Fatal(err)
		}
	}
	alarms, err := w.client.AlarmList(ctx)
	if err != nil {
		w.Fatal(err)
	}
	for _, a := range alarms.Alarms {
		if _, err := w.client.AlarmDisarm(ctx, (*clientv3.AlarmMember)(a)); err != nil {
			w.Fatal(err)
		}
	}
}

// TestThreeEtcds does to an etcd of three members what can happen to it, while clients ask and post all the time.
func TestThreeEtcds(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, "--quota-backend-bytes", fmt.Sprint(32<<20))
	client, err := etcdclient.Connect(clientv3.Config{Endpoints: c.Endpoints()})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	world := startUp(t, "")
	key := strings.TrimSpace(world.run(t, "key", "create", "--quota", "10000000"))
	scarce := strings.TrimSpace(world.run(t, "key", "create", "--quota", fmt.Sprint(scarceQuota)))
	moveStore(t, world, client)
	world.interrupt(t)
	w := startPairs(t, c, world, client)

	roots, err := readRoots(filepath.Join(world.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	posts := &poster{key: key, roots: roots, hashes: map[string]string{}, pause: 10 * time.Millisecond}
	posts.server.Store(&w.dns.DNS)
	ctx, cancel := context.WithCancel(t.Context())
	var posting sync.WaitGroup
	defer posting.Wait()
	defer cancel()
	posting.Go(func() { posts.run(ctx, 0) })
	w.key, w.scarce = key, scarce
	var newest atomic.Int64
	asking := startLoad(t, 20*time.Millisecond, func() error {
		edit, err := pairAnswer(w.dns.DNS)
		if err == nil {
			newest.Store(int64(edit))
		}
		return err
	})
	goesOn := func(what string) {
		t.Helper()
		asking.more(t)
		before := posts.accepted()
		eventually(t, "posts are accepted "+what, func() error {
			if posts.accepted() < before+20 {
				return fmt.Errorf("%d more, the last error is: %v", posts.accepted()-before, posts.lastError.Load())
			}
			return nil
		})
	}

	w.takesEffect("at first")
	goesOn("at first")

	killed := c.Leader(t)
	killed.Kill()
	w.takesEffect("after the leader was killed")
	goesOn("after the leader was killed")
	killed.Restart(t)

	for _, m := range c.Members {
		m.CutOff()
		w.takesEffect("while " + m.Name + " is cut off")
		revision, err := client.Get(t.Context(), storeRoot)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Compact(t.Context(), revision.Header.Revision); err != nil {
			t.Fatal(err)
		}
		goesOn("while " + m.Name + " is cut off")
		m.Rejoin()
		w.takesEffect("after " + m.Name + " was cut off and all was compacted")
	}

	w.fill()
	if err := w.edit(t.Context()); err != nil && !strings.Contains(err.Error(), "space") { // etcd 3.4 takes nested transactions still
		t.Errorf("an edit without space: got %v", err)
	}
	goesOn("without space")
	w.makeRoom()
	w.takesEffect("after there was no space")
	goesOn("after there was no space")
	w.restores(world.dir, goesOn)

	asking.end(t)
	cancel()
	posting.Wait()
	t.Logf("%d edits, %d questions answered, %d posts accepted, %d attempts failed, the last with: %v", w.edits, asking.answered.Load(), posts.accepted(),
		posts.failed.Load(), posts.lastError.Load())
}

// moveStore copies what a world has in its etcd to another one.
func moveStore(t *testing.T, world *running, to *clientv3.Client) {
	t.Helper()
	from, err := etcdclient.Connect(clientv3.Config{Endpoints: []string{world.Etcd}})
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	all, err := from.Get(t.Context(), storeRoot, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	for _, kv := range all.Kvs {
		if _, err := to.Put(t.Context(), string(kv.Key), string(kv.Value)); err != nil {
			t.Fatal(err)
		}
	}
}
