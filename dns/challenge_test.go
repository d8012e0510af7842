package dns

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

const challengeValue = "LoqXcYV8q5ONbJQxbmR7SCTNo3tiAXDfowyjxAjEuX0"

// challenged has a view's snapshot with challenges taken.
func challenged(t *testing.T, live *router.Live, now time.Time, challenges map[string]*topology.Challenge) {
	t.Helper()
	snap := *live.View().Table.Snapshot()
	snap.Revision++
	snap.Challenges = challenges
	if err := live.Topology(&snap, now); err != nil {
		t.Fatal(err)
	}
}

func TestChallenges(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	world := furnished()
	world.Zones[zoneName].Records = append(world.Zones[zoneName].Records, "_acme-challenge.elsewhere CNAME answers.example.", "elsewhere A 192.0.2.9")
	live := following(t, world)
	plain := New(Config{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }})
	live.Follow(plain.Publish)
	of := func(value string, life time.Duration) *topology.Challenge {
		return topology.NewChallenge(value, life, now)
	}
	name := challengeLabel + serviceName + "."
	said := func(name string, qtype uint16) string {
		return lines(ask(t, plain, new(dns.Msg).SetQuestion(name, qtype), "127.0.0.1"))
	}
	if got := said(name, dns.TypeTXT); !strings.HasPrefix(got, "NXDOMAIN aa") {
		t.Errorf("before there is one: got %s", got)
	}
	index := plain.serving.Load().index
	challenged(t, live, now, map[string]*topology.Challenge{
		serviceName: of(challengeValue, time.Hour), zoneName: of(strings.Repeat("z", 43), time.Hour), "elsewhere." + zoneName: of(challengeValue, time.Hour),
		"missing." + zoneName: of(challengeValue, time.Hour), "other.example": of(challengeValue, time.Hour),
	})
	if plain.serving.Load().index != index {
		t.Error("the index, with all answers, was made anew for a challenge")
	}
	for _, test := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{name, dns.TypeTXT, `NOERROR aa _acme-challenge.intake,TXT,"` + challengeValue + `"`},
		{"_AcMe-ChAlLeNgE." + serviceName + ".", dns.TypeTXT, `NOERROR aa _acme-challenge.intake,TXT,"` + challengeValue + `"`},
		{name, dns.TypeA, "NOERROR aa /,SOA"},
		{"below." + name, dns.TypeTXT, "NXDOMAIN aa /,SOA"},
		{challengeLabel + zoneName + ".", dns.TypeTXT, `NOERROR aa _acme-challenge,TXT,"` + strings.Repeat("z", 43) + `"`},
		{challengeLabel + "elsewhere." + zoneName + ".", dns.TypeTXT, "NOERROR aa _acme-challenge.elsewhere,CNAME,answers.example."},
		{challengeLabel + "missing." + zoneName + ".", dns.TypeTXT, "NXDOMAIN aa /,SOA"},
	} {
		if got := said(test.name, test.qtype); got != test.want {
			t.Errorf("%s %s: got %s, want %s", test.name, dns.TypeToString[test.qtype], got, test.want)
		}
	}
	answer := ask(t, plain, new(dns.Msg).SetQuestion(name, dns.TypeTXT), "127.0.0.1")
	if ttl := answer.Answer[0].Header().Ttl; ttl != challengeTTL {
		t.Errorf("its time to live is %d, want %d", ttl, challengeTTL)
	}
	now = now.Add(time.Hour)
	if got := said(name, dns.TypeTXT); !strings.HasPrefix(got, "NXDOMAIN aa") {
		t.Errorf("when it has expired: got %s", got)
	}
	challenged(t, live, now, map[string]*topology.Challenge{serviceName: of(challengeValue, time.Hour)})
	if got := said(name, dns.TypeTXT); !strings.HasPrefix(got, "NOERROR") {
		t.Errorf("a new one: got %s", got)
	}
	challenged(t, live, now, nil)
	if got := said(name, dns.TypeTXT); !strings.HasPrefix(got, "NXDOMAIN aa") {
		t.Errorf("when it is gone: got %s", got)
	}
}

// TestSignedChallenges checks signatures over a challenge, and over what else its name does not have.
func TestSignedChallenges(t *testing.T) {
	s := signed(t, furnished(), nil, zoneName)
	view := *s.serving.Load().view
	snap := *view.Table.Snapshot()
	snap.Challenges = map[string]*topology.Challenge{serviceName: topology.NewChallenge(challengeValue, time.Hour, s.now())}
	sv := *s.serving.Load()
	sv.challenges = sv.challenges.renewed(snap.Challenges, sv.index)
	s.serving.Store(&sv)
	for qtype, want := range map[uint16]string{dns.TypeTXT: "TXT", dns.TypeA: "NSEC"} {
		q := new(dns.Msg).SetQuestion(challengeLabel+serviceName+".", qtype)
		q.SetEdns0(1232, true)
		answer := ask(t, s, q, "127.0.0.1")
		verify(t, s, answer)
		signed := false
		for _, rr := range append(answer.Answer, answer.Ns...) {
			signature, ok := rr.(*dns.RRSIG)
			signed = signed || ok && dns.TypeToString[signature.TypeCovered] == want
		}
		if !signed || answer.Rcode != dns.RcodeSuccess {
			t.Errorf("%s: got %s, want a signed %s", dns.TypeToString[qtype], lines(answer), want)
		}
		if qtype == dns.TypeA && !strings.Contains(lines(answer), "TXT,RRSIG,NSEC") && !strings.Contains(lines(answer), "TXT") {
			t.Errorf("the proof does not name the type that there is: %s", lines(answer))
		}
	}
}
