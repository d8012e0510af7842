package packet

import (
	"context"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/simulations/scenario"
)

// client is a blockchain node that posts: package intakeclient, on a host of its own.
type client struct {
	engine   *engine
	number   int
	network  int
	addr     netip.Addr
	resolver netip.AddrPort
	chance   draw
	draws    uint64
	posts    uint64
	sender   *intakeclient.Sender

	served int // the PoP of the last 202; -1 for none yet

	mu       sync.Mutex
	known    []intakeclient.Endpoint // as DNS has said
	until    time.Time
	resolved time.Time // when DNS answered last
}

const (
	patience = 30 * time.Second      // of a client, with one payload
	apart    = 20 * time.Millisecond // between the begins of two clients, in a scenario without duration
	staleFor = 24 * time.Hour        // as package intakeclient has it
)

func (c *client) draw(what draw) draw {
	c.draws++
	return c.chance.with(uint64(what)).with(c.draws)
}

// run posts until the scenario ends.
func (c *client) run(ctx context.Context) error {
	defer c.hangUp()
	duration := time.Duration(c.engine.scenario.Duration)
	if duration == 0 {
		if !wait(ctx, time.Duration(c.number)*apart) {
			return nil
		}
		c.post(ctx)
		c.post(ctx) // on the same connection
		return nil
	}
	end, most := c.engine.began.Add(duration), c.engine.highestRate()
	for due := c.engine.began; most > 0; { // what is late does not make what follows late
		due = due.Add(time.Duration(c.draw(forNext).exponential() / most * float64(time.Second)))
		chosen, fresh := c.draw(forNext).uniform()*most, c.draw(forFresh).uniform()
		if due.After(end) || !wait(ctx, time.Until(due)) {
			return nil
		}
		if chosen < c.engine.rate(c.network, due) {
			if fresh < c.engine.scenario.World.Clients.Fresh {
				c.hangUp()
			}
			c.post(ctx)
		}
	}
	return nil
}

// wait waits, and reports whether ctx has not ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// hangUp closes all connections.
func (c *client) hangUp() {
	if c.sender != nil {
		c.sender.Close()
		c.sender = nil
	}
}

// connected returns what to post with.
func (c *client) connected() *intakeclient.Sender {
	if c.sender == nil {
		c.sender = intakeclient.NewSender(intakeclient.SenderConfig{
			Service: c.engine.world.Service, Resolve: c.resolve,
			Config: intakeclient.Config{
				Roots: c.engine.ca.Pool(), Dial: c.engine.network.Dialer(c.addr), Wrap: Pace,
				Listen: func() (net.PacketConn, error) { return c.engine.network.ListenPacket(netip.AddrPortFrom(c.addr, 0)) },
			},
		})
	}
	return c.sender
}

// resolve is the stub of the client's machine, which keeps what its resolver said while that is good, and as long as DNS is away.
func (c *client) resolve(ctx context.Context, service string) ([]intakeclient.Endpoint, time.Duration, error) {
	e := c.engine
	if e.fixed >= 0 {
		return []intakeclient.Endpoint{{Target: service, Addr: netip.AddrPortFrom(popAddr(e.fixed), 443)}}, time.Hour, nil
	}
	c.mu.Lock()
	known, until := c.known, c.until
	c.mu.Unlock()
	if now := time.Now(); now.Before(until) {
		return known, until.Sub(now), nil
	}
	r := intakeclient.Resolver{Server: c.resolver.String(), Dial: e.network.Dialer(c.addr)}
	found, ttl, err := r.Lookup(ctx, service)
	if err != nil {
		if known != nil && time.Since(until) < staleFor {
			return known, time.Second, nil
		}
		return nil, 0, err
	}
	c.mu.Lock()
	c.known, c.until, c.resolved = found, time.Now().Add(ttl), time.Now()
	c.mu.Unlock()
	e.answered(e.popAt(found[0].Addr))
	return found, ttl, nil
}

// popAt returns the PoP at an address, or -1.
func (e *engine) popAt(at netip.AddrPort) int {
	if pop, ok := e.popOf[at]; ok {
		return pop
	}
	return -1
}

// post sends one payload until somebody has answered for good, or the client's patience is over.
func (c *client) post(ctx context.Context) {
	e := c.engine
	c.posts++
	number, tries := c.posts, c.chance.with(uint64(forBackoff)).with(c.posts)
	start := time.Now()
	p := &post{client: c.number, network: c.network, start: start, first: -1, pop: -1}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	header := http.Header{
		"X-Api-Key": {e.key}, "Content-Type": {"application/json"}, "Idempotency-Key": {fmt.Sprintf("simulated-%d-%d", c.number, number)},
	}
	isNew, body := c.sender == nil, e.body(c, number)
	for try := 0; ; try++ {
		answer, err := c.connected().SendOnce(ctx, header, body)
		if try == 0 {
			p.first = c.firstChoice()
		}
		if err == nil {
			p.status = answer.Status
		}
		if err == nil && (intakeclient.Final(answer.Status) || answer.Status == http.StatusTooManyRequests) {
			p.end, p.fresh, p.pop, p.id = time.Now(), !answer.Reused, e.popAt(answer.Endpoint.Addr), idOf(answer.Body)
			p.took = p.end.Sub(c.begun(start, isNew))
			break
		}
		if ctx.Err() != nil || !wait(ctx, backoff(tries.with(uint64(try)), try, answer)) {
			p.end, p.lost = time.Now(), true
			break
		}
	}
	if !p.lost && p.status == http.StatusAccepted {
		p.moved = c.served >= 0 && c.served != p.pop
		c.served = p.pop
	}
	e.posted(p)
}

// firstChoice is the PoP that DNS has put first, or -1.
func (c *client) firstChoice() int {
	if c.engine.fixed >= 0 {
		return c.engine.fixed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) == 0 {
		return -1
	}
	return c.engine.popAt(c.known[0].Addr)
}

// begun is when a post left the client: when DNS had answered, if that was waited for.
func (c *client) begun(start time.Time, isNew bool) time.Time {
	const late = 250 * time.Millisecond // after which a Sender goes on with what it knows
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.resolved.Before(start):
		return start
	case !isNew && c.resolved.Sub(start) > late:
		return start.Add(late)
	}
	return c.resolved
}

// backoff is that of package intakeclient, by the world's chance.
func backoff(chance draw, failed int, answer *intakeclient.Answer) time.Duration {
	longest := min(10*time.Second, 100*time.Millisecond<<min(failed, 10))
	after := time.Duration(0)
	if answer != nil {
		if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
			after = time.Duration(min(seconds, 60)) * time.Second
		}
	}
	return chance.below(longest) + after
}

// rate returns how many posts a second a client of a network makes at a time.
func (e *engine) rate(network int, now time.Time) float64 {
	k := &e.scenario.World.Clients
	rate := k.Rate
	if k.Diurnal > 0 {
		hours := now.Sub(e.began).Hours() + e.world.Metro(network).LonDeg/15 - 20
		rate *= 1 + k.Diurnal*math.Cos(hours/24*2*math.Pi)
	}
	for i := range e.scenario.Timeline {
		event := &e.scenario.Timeline[i]
		if event.Crowd != nil && e.near(i, network) {
			rate *= crowdFactor(event, now.Sub(e.began))
		}
	}
	return rate
}

// crowdFactor is by what an event multiplies rates at a time from the begin.
func crowdFactor(event *scenario.Event, at time.Duration) float64 {
	begin, end := time.Duration(event.At), time.Duration(event.At+event.For)
	if at < begin || event.For > 0 && at >= end {
		return 1
	}
	if ramp := time.Duration(event.Crowd.Ramp); ramp > 0 && at < begin+ramp {
		return 1 + (event.Crowd.Factor-1)*float64(at-begin)/float64(ramp)
	}
	return event.Crowd.Factor
}

// highestRate returns a rate that none exceeds at any time.
func (e *engine) highestRate() float64 {
	k := &e.scenario.World.Clients
	rate := k.Rate * (1 + k.Diurnal)
	for i := range e.scenario.Timeline {
		if crowd := e.scenario.Timeline[i].Crowd; crowd != nil {
			rate *= crowd.Factor
		}
	}
	return rate
}
