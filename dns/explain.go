package dns

import (
	"strconv"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/router"
)

// textStrings cuts a text into the strings of a TXT record, of at most 255 octets each.
func textStrings(text string) []string {
	var cut []string
	for len(text) > 255 {
		cut = append(cut, text[:255])
		text = text[255:]
	}
	return append(cut, text)
}

// explain answers why the client gets what it gets, to those who may know.
func (a *reply) explain(n *node) {
	allowed := false
	for _, p := range a.serving.settings.ExplainTo {
		allowed = allowed || p.Contains(a.from)
	}
	if !allowed {
		a.aa = false
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "explanations are for operators")
		return
	}
	client, bySubnet := a.client(n.explain)
	if bySubnet {
		a.scope = uint8(client.Bits())
	}
	for f, rrtype := range familyTypes {
		if !n.explain.has[f] || rrtype == dns.TypeHTTPS {
			continue
		}
		var trace router.Trace
		router.Decide(a.serving.view, n.explain.id, router.Family(f), client, &trace)
		for _, line := range explanation(&trace) {
			a.answer = append(a.answer, &dns.TXT{Hdr: n.zone.header(n.name, dns.TypeTXT, 0), Txt: textStrings(line)})
		}
	}
	set := a.answer
	a.answer = nil
	a.put(&a.answer, n.zone, set, true)
}

// explainedCandidates is how many candidates an explanation names.
const explainedCandidates = 5

// explanation tells a decision in lines.
func explanation(t *router.Trace) []string {
	place := "of unknown place"
	if t.Place != nil {
		place = strings.TrimPrefix(t.Place.City+", "+t.Place.Country, ", ")
	}
	head := t.Family + " " + t.Client.String() + " in " + t.Network.String() + ", " + place + ": " + strings.Join(t.Answer, " ") + " (" + t.Outcome
	if t.Fallback != "" {
		head += ", " + t.Fallback
	}
	lines := []string{head + "), scope " + t.Scope.String()}
	for i, c := range t.Candidates {
		if i == explainedCandidates {
			break
		}
		lines = append(lines, t.Family+" "+string(rune('1'+i))+". "+c.PoP+": "+strconv.FormatFloat(c.RTTMS, 'f', 1, 64)+" ms"+", "+string(c.Health)+since(&c)+": "+c.Reason)
	}
	return lines
}

// since tells since when a candidate is not well.
func since(c *router.Candidate) string {
	if c.Health == "up" || c.Health == "unknown" || c.Verdict.Since.IsZero() {
		return ""
	}
	return " since " + c.Verdict.Since.UTC().Format(time.RFC3339)
}

// chaos answers the questions about the server itself, as far as it has been told what to say.
func (sv *serving) chaos(a *reply) {
	text := ""
	switch name := presentation(a.wire); name {
	case "version.bind.", "version.server.":
		text = sv.settings.Version
	case "hostname.bind.", "id.server.": // RFC 4892
		text = sv.settings.NSID
	}
	if text == "" || a.qtype != dns.TypeTXT && a.qtype != dns.TypeANY {
		a.fail(dns.RcodeRefused, dns.ExtendedErrorCodeProhibited, "")
		return
	}
	a.aa = true
	a.answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: presentation(a.wire), Rrtype: dns.TypeTXT, Class: dns.ClassCHAOS}, Txt: textStrings(text)}}
}
