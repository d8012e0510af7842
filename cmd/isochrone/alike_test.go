package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	mdns "github.com/miekg/dns"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/dataplane/bgp"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/geo"
	"github.com/isochrone/isochrone/topology"
)

var (
	alikeEvents = flag.Int("alike", 4, "how much befalls the PoPs of TestAlike")
	alikeSeed   = flag.Uint64("alike-seed", 1, "of what befalls them")
	alikeLag    = flag.Duration("alike-lag", 5*time.Second, "for how long TestAlike lets a PoP be answered that the same node calls down; 1s on a machine that has the time")
)

// TestAlike has random things befall PoPs, and wants everything that shows a verdict to show the same one: DNS, BGP, the status, metrics, explanations
// and what the page is told. Meanwhile no node may answer a PoP that it says gets no clients.
func TestAlike(t *testing.T) {
	t.Parallel()
	w := startAlike(t)
	eventually(t, "all to begin alike", w.alike)
	random := rand.New(rand.NewPCG(*alikeSeed, 0))
	stop, wrong, lags := w.watch()
	for range *alikeEvents {
		began, what := time.Now(), w.happens(random)
		eventually(t, "all to show alike that "+what, w.alike)
		t.Logf("%s: all show it alike after %v", what, time.Since(began).Round(time.Millisecond))
	}
	stop()
	for _, err := range *wrong {
		t.Error(err)
	}
	t.Logf("a PoP without clients was answered for %v by the world, for %v by the DNS node, at most", lags[0], lags[1])
	shown := w.run(t, "status")
	status, err := w.api.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range status.PoPs {
		if line := lineOf(shown, p.Name+" "); !strings.Contains(line, "  "+string(p.Health.Status)) || strings.Contains(line, "  yes") != p.Answered {
			t.Errorf("%s is %s, answered: %v; the command shows %q", p.Name, p.Health.Status, p.Answered, line)
		}
	}
}

// lineOf returns the line of a text that begins with something.
func lineOf(text, begin string) string {
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, begin) {
			return line
		}
	}
	return ""
}

func unmarshal[T any](text []byte) (*T, error) {
	value := new(T)
	return value, json.Unmarshal(text, value)
}

// alike tells what differs between the places where verdicts show, and from what was done.
func (w *alikeWorld) alike() error {
	status, err := w.api.Status(w.t.Context())
	if err != nil {
		return err
	}
	told := w.page.last()
	if told == nil {
		return errors.New("the page has been told nothing")
	}
	world, err := metricsAt(w.t.Context(), w.API, w.token)
	if err != nil {
		return err
	}
	node, err := metricsAt(w.t.Context(), w.dns.http, "")
	if err != nil {
		return err
	}
	routes := w.routes()
	for i, p := range status.PoPs {
		if done := w.pops[p.Name]; done != nil {
			if err := errors.Join(asDone(&p, done), w.announced(&p, done, routes)); err != nil {
				return err
			}
		}
		if told := told.PoPs[i]; told.Name != p.Name || told.Health.Status != p.Health.Status || told.Answered != p.Answered || told.Why != p.Why {
			return fmt.Errorf("the page has %s, %v %s, of %s, the status %s, %v %s", told.Health.Status, told.Answered, told.Why, p.Name, p.Health.Status, p.Answered, p.Why)
		}
		for where, metrics := range map[string]map[string]string{"the world": world, "the DNS node": node} {
			name := fmt.Sprintf(`isochrone_verdict{kind="pop",status=%q,target=%q}`, p.Health.Status, p.Name)
			if metrics[name] != "1" {
				return fmt.Errorf("%s: %s is %q", where, name, metrics[name])
			}
		}
	}
	for place := range sendPlaces {
		if err := w.explained(place, status); err != nil {
			return fmt.Errorf("clients of %s: %w", place, err)
		}
	}
	return nil
}

// asDone compares the status of a PoP with what was done to it.
func asDone(s *controlplane.TargetStatus, p *alikePoP) error {
	v := s.Health
	switch {
	case v.Suspected:
		return fmt.Errorf("%s is suspected", s.Name)
	case p.well() && v.Status != health.Up && v.Code != health.Flapping:
		return fmt.Errorf("%s is well, and the verdict is %s: %s", s.Name, v.Status, v.Reason)
	case !p.well() && v.Status != health.Down:
		return fmt.Errorf("%s is not well, and the verdict is %s: %s", s.Name, v.Status, v.Reason)
	case p.cut && v.In("AS") != health.Down:
		return fmt.Errorf("%s is dead for Asia, and the verdict there is %s", s.Name, v.In("AS"))
	case !p.cut && p.well() && v.Code != health.Flapping && v.In("AS") != health.Up:
		return fmt.Errorf("%s is well for Asia, and the verdict there is %s", s.Name, v.In("AS"))
	}
	want := v.Status != health.Down
	if p.drained {
		want = false
	} else if p.forced != "" {
		want = p.forced == topology.ForceUp
	}
	if s.Answered != want {
		return fmt.Errorf("%s is %s, drained: %v, forced %q; answered: %v, %s", s.Name, v.Status, p.drained, p.forced, s.Answered, s.Why)
	}
	return nil
}

// announced compares a PoP's route with its status, and with what the PoP itself tells.
func (w *alikeWorld) announced(s *controlplane.TargetStatus, p *alikePoP, routes string) error {
	want := p.well() && s.Answered
	if has := strings.Contains(routes, alikePrefix(s.Name)); has != want {
		return fmt.Errorf("%s is %s, answered: %v; BIRD has its route: %v", s.Name, s.Health.Status, s.Answered, has)
	}
	if !p.well() {
		return nil
	}
	own := monitorOf(p.process)
	_, text, err := own.get(bgpPath)
	if err != nil {
		return err
	}
	says, err := unmarshal[bgp.Status]([]byte(text))
	if err != nil || len(says.Prefixes) != 1 || (says.Prefixes[0].Action == bgp.Announce) != want {
		return fmt.Errorf("%s, answered: %v, says of BGP %s, %v", s.Name, s.Answered, text, err)
	}
	metrics, err := metricsAt(w.t.Context(), own.http, "")
	if err != nil {
		return err
	}
	if name := fmt.Sprintf(`isochrone_verdict{kind="pop",status=%q,target=%q}`, s.Health.Status, s.Name); metrics[name] != "1" {
		return fmt.Errorf("at %s %s is %q", s.Name, name, metrics[name])
	}
	return nil
}

// explained compares the answers for a place with explanations of them, and those with the status.
func (w *alikeWorld) explained(place string, status *controlplane.Status) error {
	trace, err := w.api.Explain(w.t.Context(), controlplane.ExplainRequest{Service: "intake.isochrone.test", Client: sendPlaces[place]})
	if err != nil {
		return err
	}
	if trace.Place == nil || len(trace.Answer) != 1 {
		return fmt.Errorf("explain has the place %v, the answer %v", trace.Place, trace.Answer)
	}
	region := geo.ContinentOf(trace.Place.Country)
	for _, c := range trace.Candidates {
		i := slices.IndexFunc(status.PoPs, func(p controlplane.TargetStatus) bool { return p.Name == c.PoP })
		if i < 0 {
			return fmt.Errorf("explain has %s, which the status lacks", c.PoP)
		}
		p := &status.PoPs[i]
		if own := p.Health.In(region); c.Health != own {
			return fmt.Errorf("explain says that %s is %s, the status that it is %s in %s", c.PoP, c.Health, own, region)
		}
		if up := c.Health != health.Down; c.Chosen && (!p.Answered || !up && !strings.Contains(c.Override, "force")) {
			return fmt.Errorf("%s is chosen, which is %s and answered: %v", c.PoP, c.Health, p.Answered)
		}
	}
	for where, server := range map[string]*running{"the world": w.running, "the DNS node": &w.dns.running} {
		pop, err := server.pop(sendPlaces[place])
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		if pop != trace.Answer[0] {
			return fmt.Errorf("%s answers %s, explain says %s", where, pop, trace.Answer[0])
		}
		if text, err := explainedBy(server.DNS, sendPlaces[place]); err != nil || !strings.Contains(text, ": "+pop+" (") {
			return fmt.Errorf("%s answers %s, and explains %q, %v", where, pop, text, err)
		}
	}
	return nil
}

// explainedBy asks a DNS server why clients of a subnet get what they get.
func explainedBy(server, subnet string) (string, error) {
	question := new(mdns.Msg).SetQuestion("explain.intake.isochrone.test.", mdns.TypeTXT)
	prefix := netip.MustParsePrefix(subnet)
	option := &mdns.OPT{Hdr: mdns.RR_Header{Name: ".", Rrtype: mdns.TypeOPT}, Option: []mdns.EDNS0{
		&mdns.EDNS0_SUBNET{Code: mdns.EDNS0SUBNET, Family: 1, SourceNetmask: uint8(prefix.Bits()), Address: prefix.Addr().AsSlice()},
	}}
	option.SetUDPSize(1232)
	question.Extra = append(question.Extra, option)
	client := mdns.Client{Net: "tcp", Timeout: 5 * time.Second}
	answer, _, err := client.Exchange(question, server)
	if err != nil {
		return "", err
	}
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*mdns.TXT); ok && strings.HasPrefix(strings.Join(txt.Txt, ""), "A "+subnet) {
			return strings.Join(txt.Txt, ""), nil
		}
	}
	return "", fmt.Errorf("the answer is %v", answer)
}

// watch asks both DNS nodes all the time, until stop, and notes when one answers a PoP that the same node has long said to get no clients. Lags are
// how long each was after itself, at most.
func (w *alikeWorld) watch() (stop func(), wrong *[]error, lags *[2]time.Duration) {
	var mu sync.Mutex
	wrong, lags = new([]error), new([2]time.Duration)
	end, watching := make(chan struct{}), sync.WaitGroup{}
	nodes := []func() (map[string]bool, error){w.unanswered, w.downAtNode}
	servers := []*running{w.running, &w.dns.running}
	for i, without := range nodes {
		watching.Go(func() {
			since := map[string]time.Time{}
			for {
				select {
				case <-end:
					return
				case <-time.After(20 * time.Millisecond):
				}
				err := watchOnce(servers[i], without, since, &lags[i])
				mu.Lock()
				if err != nil && len(*wrong) < 10 {
					*wrong = append(*wrong, err)
				}
				mu.Unlock()
			}
		})
	}
	stop = sync.OnceFunc(func() { close(end); watching.Wait() })
	w.t.Cleanup(stop)
	return stop, wrong, lags
}

// watchOnce asks a DNS node for all places. Since has since when it has said of PoPs that they get no clients.
func watchOnce(server *running, without func() (map[string]bool, error), since map[string]time.Time, lag *time.Duration) error {
	now, err := without()
	if err != nil {
		return err
	}
	for pop := range since {
		if !now[pop] {
			delete(since, pop)
		}
	}
	for pop, out := range now {
		if _, known := since[pop]; out && !known {
			since[pop] = time.Now()
		}
	}
	for place, subnet := range sendPlaces {
		asked := time.Now()
		pop, err := server.pop(subnet)
		if err != nil {
			return err
		}
		from, out := since[pop]
		if !out {
			continue
		}
		if still, err := without(); err != nil || !still[pop] { // it has come back meanwhile
			return err
		}
		if *lag = max(*lag, asked.Sub(from)); asked.Sub(from) > *alikeLag {
			return fmt.Errorf("%s is answered to clients of %s %v after the same node has said that it gets none", pop, place, asked.Sub(from))
		}
	}
	return nil
}

// unanswered are the PoPs that get no clients by the status of the world.
func (w *alikeWorld) unanswered() (map[string]bool, error) {
	status, err := w.api.Status(w.t.Context())
	if err != nil {
		return nil, err
	}
	without := map[string]bool{}
	for _, p := range status.PoPs {
		without[p.Name] = !p.Answered
	}
	return without, nil
}

// downAtNode are the PoPs that are down by the metrics of the DNS node, and not forced up.
func (w *alikeWorld) downAtNode() (map[string]bool, error) {
	metrics, err := metricsAt(w.t.Context(), w.dns.http, "")
	if err != nil {
		return nil, err
	}
	without := map[string]bool{}
	for _, name := range topology.ExamplePoPs {
		without[name] = metrics[fmt.Sprintf(`isochrone_verdict{kind="pop",status="down",target=%q}`, name)] == "1"
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.forcedUp {
		delete(without, name)
	}
	return without, nil
}
