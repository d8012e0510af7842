package dataplane

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/overload"
	"github.com/isochrone/isochrone/internal/problem"
)

const overloadDetail = "this PoP has more requests than it can do"

// shedBody is the body of a refusal for overload.
var shedBody = problem.Append(nil, http.StatusServiceUnavailable, overloadDetail)

// Shed implements exchange.Shedder: what would be refused for overload is refused as cheaply as can be. It is counted, but neither logged
// nor traced.
func (p *PoP) Shed(r *exchange.Request, a *exchange.Answer) bool {
	post := r.Path == Path && r.Method == http.MethodPost && r.Header.Get("X-Isochrone-Probe") == ""
	ask := (r.Method == http.MethodGet || r.Method == http.MethodHead) && strings.HasPrefix(r.Path, ReceiptsPath)
	if !post && !ask {
		return false
	}
	ticket, why, ok := p.front.overload.Ask(true, connectionOf(r.Context).toldOf(), r.Context.Done(), p.stopping)
	if r.Ticket = ticket; ok {
		return false
	}
	p.counts.refused[http.StatusServiceUnavailable].Add(1)
	a.Add("x-isochrone-pop", p.config.Name)
	a.Add("retry-after", strconv.Itoa(int(why.RetryAfter/time.Second)))
	a.Add("content-type", problem.ContentType)
	a.Add("cache-control", "no-store")
	a.Status, a.Body, a.Turn = http.StatusServiceUnavailable, append(a.Body[:0], shedBody...), why.Turn
	return true
}

// enter lets a request in, if that has not been done, or tells how to refuse it.
func (p *PoP) enter(in *intake) (why overload.Refusal, ok bool) {
	if in.Ticket.In() {
		return why, true
	}
	in.Ticket, why, ok = p.front.overload.Ask(false, connectionOf(in.Context).toldOf(), in.Context.Done(), p.stopping)
	return why, ok
}
