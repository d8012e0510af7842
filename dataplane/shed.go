package dataplane

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
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
	var ok bool
	if r.Ticket, ok = p.front.overload.Enter(); ok {
		return false
	}
	p.counts.refused[http.StatusServiceUnavailable].Add(1)
	why := p.front.overload.Refuse(true)
	a.Add("x-isochrone-pop", p.config.Name)
	a.Add("retry-after", strconv.Itoa(int(why.RetryAfter/time.Second)))
	a.Add("content-type", problem.ContentType)
	a.Add("cache-control", "no-store")
	a.Status, a.Body, a.Turn = http.StatusServiceUnavailable, append(a.Body[:0], shedBody...), why.Turn
	return true
}

// enter lets a request in, if that has not been done.
func (p *PoP) enter(in *intake) (ok bool) {
	if !in.Ticket.In() {
		in.Ticket, ok = p.front.overload.Enter()
		return ok
	}
	return true
}
