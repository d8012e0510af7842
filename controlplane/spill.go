package controlplane

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/controlplane/leader"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/spill"
	"github.com/isochrone/isochrone/router/whatif"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// Where shares stand below the root, and what their leader says and remembers of them.
const (
	SharesKey     = "shares/spill"
	SpillStateKey = "leader/spill"
)

const (
	spillInterval = 3 * time.Second
	stateInterval = 6 * time.Second // between two records of the state, unless there is a new plan
	spillTimeout  = 5 * time.Second // of a request
	longestTTL    = time.Minute     // that is waited for
)

// Spiller has a leader plan what share of their clients PoPs take, see package spill. Shares stay as they are when nobody leads.
type Spiller struct {
	Etcd  *clientv3.Client
	Root  string // ends with a slash
	View  func() *router.View
	Nodes func() map[string]store.Node // nil before they are known
	Log   *slog.Logger
}

// Task returns what the leader does.
func (s *Spiller) Task() leader.Task { return leader.Task{Name: "plan shares of PoPs", Run: s.Run} }

// Run plans every few seconds until ctx ends, whose error it returns, or etcd fails.
func (s *Spiller) Run(ctx context.Context) error {
	t := &spilling{Spiller: s}
	if err := t.resume(ctx); err != nil {
		return err
	}
	again := time.NewTicker(spillInterval)
	defer again.Stop()
	for {
		if err := t.plan(ctx, time.Now()); err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// spilling is a leader's term.
type spilling struct {
	*Spiller
	leader  spill.Leader
	last    *SpillPlan
	written time.Time // of the state
	state   string    // as it was written
	of      *router.Atlas
	clients []spill.Client
	fault   string // told last
}

// resume takes over what the leader before has left.
func (t *spilling) resume(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, spillTimeout)
	defer cancel()
	got, err := t.Etcd.Get(ctx, t.Root+SpillStateKey)
	if err != nil {
		return fmt.Errorf("read %s: %w", SpillStateKey, err)
	}
	if len(got.Kvs) == 1 {
		if state, err := DecodeSpillState(got.Kvs[0].Value); err == nil {
			t.leader.Memory, t.last = spill.Memory(state.Memory), state.Last
			if state.Last != nil {
				t.leader.Moved = state.Last.At
			}
		}
	}
	return nil
}

// plan makes one plan and writes what is new.
func (t *spilling) plan(ctx context.Context, now time.Time) error {
	view, nodes := t.View(), t.Nodes()
	if view == nil || nodes == nil {
		return nil
	}
	reading, cancel := context.WithTimeout(ctx, spillTimeout)
	got, err := t.Etcd.Get(reading, t.Root+SharesKey)
	cancel()
	if err != nil {
		return fmt.Errorf("read %s: %w", SharesKey, err)
	}
	told := spill.Told{Now: now, View: view, Loads: LoadsOf(nodes)}
	if len(got.Kvs) == 1 {
		told.Revision = got.Kvs[0].ModRevision
		if told.InForce, err = spill.Decode(got.Kvs[0].Value); err != nil {
			t.tell(fmt.Sprintf("the shares that are stored cannot be read, and new ones are made: %v", err))
		}
	}
	options, ttl, on := spillOptions(view.Table.Snapshot().Topology)
	if !on {
		if len(told.InForce.Takes)+len(told.InForce.Lost) == 0 {
			return nil
		}
		return t.write(ctx, router.Spill{}, told.Revision)
	}
	if err := t.sample(view.Table.Atlas()); err != nil {
		return err
	}
	told.Options, told.TTL, told.Clients = options, ttl, t.clients
	outcome := t.leader.Next(told)
	if outcome.Changed {
		if err := t.write(ctx, outcome.Spill, told.Revision); err != nil {
			return err
		}
		t.last = newSpillPlan(now, &outcome)
		t.Log.Info("other shares of PoPs", "why", t.last.Why, "moved", t.last.Moved, "shifts", strings.Join(t.last.shifts(5), ", "))
	}
	return t.record(ctx, now, &outcome)
}

// tell logs what is wrong, once.
func (t *spilling) tell(fault string) {
	if fault != t.fault {
		t.fault = fault
		t.Log.Warn(fault)
	}
}

// sample takes the world's clients from an atlas.
func (t *spilling) sample(atlas *router.Atlas) error {
	if t.of == atlas {
		return nil
	}
	world, err := whatif.NewWorld(atlas)
	if err != nil {
		return err
	}
	t.of, t.clients = atlas, make([]spill.Client, len(world.Clients))
	for i, c := range world.Clients {
		t.clients[i] = spill.Client{Client: c.Client, Weight: c.Weight}
	}
	return nil
}

// write puts shares in force, if these are still the ones of a revision, and this process still leads.
func (t *spilling) write(ctx context.Context, s router.Spill, revision int64) error {
	text, err := spill.Encode(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, spillTimeout)
	defer cancel()
	key := t.Root + SharesKey
	conditions := append(leader.Guard(ctx), clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	written, err := t.Etcd.Txn(ctx).If(conditions...).Then(clientv3.OpPut(key, string(text))).Commit()
	switch {
	case err != nil:
		return fmt.Errorf("write %s: %w", SharesKey, err)
	case !written.Succeeded:
		return fmt.Errorf("write %s: %w", SharesKey, store.ErrConflict)
	}
	return nil
}

// record writes what people and the next leader want to know.
func (t *spilling) record(ctx context.Context, now time.Time, o *spill.Outcome) error {
	if !o.Changed && now.Sub(t.written) < stateInterval {
		return nil
	}
	state := newSpillState(o, t.last, t.leader.Memory)
	text, err := json.Marshal(state)
	if err != nil {
		return fmt.Errorf("write %s: %w", SpillStateKey, err)
	}
	if string(text) == t.state {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, spillTimeout)
	defer cancel()
	written, err := t.Etcd.Txn(ctx).If(leader.Guard(ctx)...).Then(clientv3.OpPut(t.Root+SpillStateKey, string(text))).Commit()
	switch {
	case err != nil:
		return fmt.Errorf("write %s: %w", SpillStateKey, err)
	case !written.Succeeded:
		return fmt.Errorf("write %s: %w", SpillStateKey, store.ErrConflict)
	}
	t.state, t.written = string(text), now
	return nil
}

// spillOptions returns how shares are made, how long clients follow those of before, and whether any are made.
func spillOptions(top *topology.Topology) (o spill.Options, ttl time.Duration, on bool) {
	says, on := topology.SpillOf(top.Services)
	for _, service := range top.Services {
		ttl = max(ttl, min(time.Duration(service.Steering.TTL), longestTTL))
	}
	return spill.Options{Fill: says.Fill, Return: says.Return, Gain: says.Gain, MaxMove: says.MaxMove}, ttl, on
}

// LoadsOf returns what PoPs tell of themselves, by name; of one that several processes run, together.
func LoadsOf(nodes map[string]store.Node) map[string]spill.Load {
	loads := map[string]spill.Load{}
	for _, name := range sortedKeys(nodes) {
		for pop, l := range nodes[name].Loads {
			sum := loads[pop]
			sum.RequestsRPS += finite(l.Requests)
			sum.ShedRPS += finite(l.Shed)
			sum.CapacityRPS += finite(l.Capacity)
			sum.CPU = max(sum.CPU, min(finite(l.CPU), 1))
			sum.QueueDelay = max(sum.QueueDelay, time.Duration(min(finite(l.QueueDelay), 1e6)*float64(time.Millisecond)))
			loads[pop] = sum
		}
	}
	return loads
}

// finite keeps what no PoP can mean from being reckoned with.
func finite(x float64) float64 {
	if !(x > 0) || x > 1e9 {
		return 0
	}
	return x
}

// rounded3 keeps three digits of what is written again and again.
func rounded3(x float64) float64 {
	if x == 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	if digits := 2 - math.Floor(math.Log10(math.Abs(x))); digits > 0 {
		return math.Round(x*math.Pow(10, digits)) / math.Pow(10, digits)
	} else {
		return math.Round(x*math.Pow(10, digits)) * math.Pow(10, -digits)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
