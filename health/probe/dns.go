package probe

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/topology"
)

// DNSTargets lists the DNS nodes that say in their reports where they answer questions. They are asked for the SOA record of the first zone,
// and for the first service's A record.
func DNSTargets(reports map[string]*health.Report, snap *topology.Snapshot) []Target {
	zone, service := first(snap.Topology.Zones), first(snap.Topology.Services)
	if zone == "" {
		return nil
	}
	var targets []Target
	for name, r := range reports {
		node, ok := strings.CutPrefix(name, string(health.DNS)+":")
		at, err := netip.ParseAddrPort(r.Serves)
		if !ok || err != nil || at.Addr().IsUnspecified() || at.Port() == 0 {
			continue
		}
		targets = append(targets, Target{
			Target: health.Target{Kind: health.DNS, Name: node}, Addrs: []netip.AddrPort{at}, Zone: zone, Steered: service,
		})
	}
	slices.SortFunc(targets, func(a, b Target) int { return strings.Compare(a.Target.Name, b.Target.Name) })
	return targets
}

// first returns the first name of all, or nothing.
func first[T any](all map[string]T) string {
	least := ""
	for name := range all {
		if least == "" || name < least {
			least = name
		}
	}
	return least
}

// probeDNS asks a DNS node over UDP and over TCP.
func (p *Prober) probeDNS(ctx context.Context, t Target, at netip.AddrPort) found {
	steps := begin(answering)
	var serial uint32
	for _, network := range []string{"udp", "tcp"} {
		var err error
		if serial, err = p.askSOA(ctx, network, at, t.Zone); err == nil && t.Steered != "" {
			err = p.askA(ctx, network, at, t.Steered)
		}
		if err != nil {
			return found{steps: steps.all(), err: fmt.Errorf("over %s: %w", strings.ToUpper(network), err)}
		}
	}
	return found{steps: steps.all(), reason: fmt.Sprintf("answers with authority, serial %d%s", serial, p.serialLag(t.Zone, serial))}
}

// serialLag remembers the newest serial of a zone (RFC 1982), and says by how much one is older.
func (p *Prober) serialLag(zone string, serial uint32) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	newest, known := p.serials[zone]
	if !known || int32(serial-newest) >= 0 {
		p.serials[zone] = serial
		return ""
	}
	return fmt.Sprintf(", %d behind another node's", newest-serial)
}

// askSOA asks for the SOA record of a zone, and returns its serial.
func (p *Prober) askSOA(ctx context.Context, network string, at netip.AddrPort, zone string) (uint32, error) {
	answer, err := p.ask(ctx, network, at, zone, dns.TypeSOA)
	if err != nil {
		return 0, err
	}
	if answer.Rcode == dns.RcodeSuccess && answer.Authoritative {
		for _, rr := range answer.Answer {
			if soa, ok := rr.(*dns.SOA); ok {
				return soa.Serial, nil
			}
		}
	}
	return 0, unfit(answer, zone, "SOA")
}

// askA asks for the A record of a service. It may have none, and rules may leave this client no PoP; but it is to be answered.
func (p *Prober) askA(ctx context.Context, network string, at netip.AddrPort, name string) error {
	answer, err := p.ask(ctx, network, at, name, dns.TypeA)
	if err != nil || answer.Rcode == dns.RcodeSuccess && answer.Authoritative || answer.Rcode == dns.RcodeServerFailure && prohibited(answer) {
		return err
	}
	return unfit(answer, name, "A")
}

// prohibited reports whether an answer says that rules forbid it (RFC 8914 section 4.19).
func prohibited(answer *dns.Msg) bool {
	if opt := answer.IsEdns0(); opt != nil {
		for _, o := range opt.Option {
			if ede, ok := o.(*dns.EDNS0_EDE); ok && ede.InfoCode == dns.ExtendedErrorCodeProhibited {
				return true
			}
		}
	}
	return false
}

func unfit(answer *dns.Msg, name, kind string) error {
	without := ""
	if !answer.Authoritative {
		without = " without authority"
	}
	return &statusError{fmt.Sprintf("answered %s%s with %d records to %s %s", dns.RcodeToString[answer.Rcode], without, len(answer.Answer), name, kind)}
}

// ask asks once. What was cut off over UDP is an answer all the same.
func (p *Prober) ask(ctx context.Context, network string, at netip.AddrPort, name string, kind uint16) (*dns.Msg, error) {
	question := new(dns.Msg).SetQuestion(dns.Fqdn(name), kind).SetEdns0(1232, false)
	question.RecursionDesired = false
	client := &dns.Client{Net: network, Timeout: patience, UDPSize: 1232}
	if p.config.Dial == nil {
		answer, _, err := client.ExchangeContext(ctx, question, at.String())
		return answer, err
	}
	conn, err := p.config.Dial(ctx, network, at.String())
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	answer, _, err := client.ExchangeWithConnContext(ctx, question, &dns.Conn{Conn: conn})
	return answer, err
}
