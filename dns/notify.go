package dns

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// How a secondary is told of a new serial: it is asked again, after ever longer pauses, until it answers (RFC 1996 section 3.6).
const (
	notifyTimeout = 3 * time.Second
	notifyPause   = 5 * time.Second
	notifyTries   = 5
)

// patience is how long an answer is waited for, and how long to wait before the second try.
type patience struct{ timeout, pause time.Duration }

// notification is a zone's serial that a secondary is told of.
type notification struct {
	target NotifyTarget
	zone   string
	serial uint32
}

// notify tells secondaries of each new serial, until ctx ends.
func (s *Server) notify(ctx context.Context) error {
	told := map[notification]bool{}
	var running sync.WaitGroup
	defer running.Wait()
	for {
		select {
		case <-s.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
		sv := s.serving.Load()
		if sv.index == nil {
			continue
		}
		current := map[notification]bool{}
		for _, target := range sv.settings.Notify {
			for _, z := range sv.index.zones {
				if z.keyless { // nor could they transfer it
					continue
				}
				n := notification{target, z.name, z.soa.Serial}
				if current[n] = true; !told[n] {
					running.Go(func() { s.tell(ctx, n, sv.settings.TSIG, patience{notifyTimeout, notifyPause}) })
				}
			}
		}
		told = current
	}
}

// tell notifies one secondary, until it answers, it has been told often enough, or there is something newer to tell.
func (s *Server) tell(ctx context.Context, n notification, keys []TSIGKey, p patience) {
	for try := 1; ; try++ {
		err := n.send(ctx, keys, s.now(), p.timeout)
		if err == nil {
			s.config.Log.Debug("secondary notified", "zone", n.zone, "serial", n.serial, "secondary", n.target.Addr)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if try == notifyTries {
			s.config.Log.Warn("a secondary cannot be notified", "zone", n.zone, "serial", n.serial, "secondary", n.target.Addr, "error", err)
			return
		}
		select {
		case <-time.After(p.pause):
		case <-ctx.Done():
			return
		}
		p.pause *= 2
		sv := s.serving.Load()
		if z := sv.index.zones[wireName(n.zone)]; z == nil || z.soa.Serial != n.serial {
			return
		}
	}
}

// send sends one NOTIFY message and waits for its answer.
func (n notification) send(ctx context.Context, keys []TSIGKey, now time.Time, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	m := new(dns.Msg).SetNotify(n.zone)
	m.Answer = []dns.RR{&dns.SOA{
		Hdr: dns.RR_Header{Name: n.zone, Rrtype: dns.TypeSOA, Class: dns.ClassINET}, Ns: ".", Mbox: ".", Serial: n.serial,
	}}
	client := dns.Client{Timeout: timeout}
	if name := n.target.Key; name != "" {
		key, ok := findKey(keys, name)
		if !ok {
			return fmt.Errorf("there is no TSIG key %s", name)
		}
		t := transaction{key: key}
		client.TsigSecret = map[string]string{key.Name: t.secret()}
		m.SetTsig(key.Name, key.Algorithm, tsigFudge, now.Unix())
	}
	conn, err := client.DialContext(ctx, n.target.Addr.String())
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })() // the client looks at its deadline only
	answer, _, err := client.ExchangeWithConnContext(ctx, m, conn)
	if err != nil && answer != nil && answer.Rcode != dns.RcodeSuccess { // who does not have the key does not sign
		return fmt.Errorf("it answers %s: %w", dns.RcodeToString[answer.Rcode], err)
	}
	if err != nil {
		return err
	}
	if answer.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("it answers %s", dns.RcodeToString[answer.Rcode])
	}
	return nil
}

// findKey returns the key of a name, which may be written in any case and without a trailing dot.
func findKey(keys []TSIGKey, name string) (TSIGKey, bool) {
	for _, key := range keys {
		if key.Name == dns.Fqdn(strings.ToLower(name)) {
			return key, true
		}
	}
	return TSIGKey{}, false
}
