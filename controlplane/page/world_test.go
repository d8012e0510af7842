package page_test

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/controlplane/page"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/internal/worldmap"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// world is the example world behind a control API that keeps everything in memory. It answers what the page asks, in the shapes of
// package controlplane; who would be answered what is made up.
type world struct {
	url string

	mu        sync.Mutex
	role      controlplane.Role
	top       *topology.Topology
	revision  int64
	changed   map[string]int64 // of objects
	down      map[string]string
	worn      map[string]string // degraded: why
	dns       []controlplane.DNSStatus
	vantages  []controlplane.VantageStatus
	overrides map[string]map[string]any
	faults    []topology.Fault
	history   []controlplane.HistoryEntry
	keys      []map[string]any
	began     time.Time
	followers map[chan string]bool
}

const goodToken = "isot_good"

// newWorld serves the page and its API.
func newWorld(t *testing.T) *world {
	t.Helper()
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 443)
	}
	for _, name := range topology.ExampleClusters {
		clusters[name] = "https://" + name + ".example"
	}
	w := &world{
		role: controlplane.Operator, top: topology.Example(netip.MustParseAddr("203.0.113.53"), pops, clusters), revision: 41, changed: map[string]int64{},
		down: map[string]string{}, overrides: map[string]map[string]any{}, followers: map[chan string]bool{}, began: time.Now(),
	}
	w.history = []controlplane.HistoryEntry{
		{Revision: 41, Time: w.began.Add(-time.Hour), Author: "ops", Message: "more room in Singapore", Valid: true, Changes: []controlplane.ObjectChange{
			{Object: "pops/sin1", Kind: "changed", Fields: []controlplane.FieldChange{{Path: "capacity_rps", From: json.RawMessage("1000"), To: json.RawMessage("2000")}}}}},
		{Revision: 30, Time: w.began.Add(-26 * time.Hour), Author: "outside", Valid: true, Changes: []controlplane.ObjectChange{{Object: "pops/jnb1", Kind: "added"}}},
		{Revision: 12, Time: w.began.Add(-72 * time.Hour), Author: "ops", Message: "begin", Valid: true, Changes: []controlplane.ObjectChange{{Object: "pops/sin1", Kind: "added"}}},
	}
	server := httptest.NewServer(w.handler())
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	w.url = server.URL
	return w
}

// change changes the world, and tells those who follow it.
func (w *world) change(kind string, f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.tell(kind)
}

func (w *world) tell(kind string) {
	for c := range w.followers {
		data := any(w.revision)
		if kind == "status" {
			data = w.status()
		}
		text, _ := json.Marshal(data)
		select {
		case c <- fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", w.revision, kind, text):
		default:
		}
	}
}

func (w *world) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler())
	for pattern, f := range map[string]func(*http.Request) (any, *problem.Document){
		"GET /v1/status": func(*http.Request) (any, *problem.Document) { return w.status(), nil },
		"GET /v1/whoami": func(*http.Request) (any, *problem.Document) {
			return controlplane.Identity{Name: "ops", Role: w.role}, nil
		},
		"GET /v1/topology": func(*http.Request) (any, *problem.Document) {
			return controlplane.Stored{Revision: w.revision, Topology: w.top, Faults: w.faults}, nil
		},
		"GET /v1/topology/{kind}/{name}": w.object, "POST /v1/changes": w.apply, "GET /v1/map": w.coloured, "GET /v1/explain": w.explain,
		"GET /v1/nodes": func(*http.Request) (any, *problem.Document) {
			return []controlplane.NodeStatus{{Name: "ctl-1", Kind: "control", Version: "0.4.0", Started: w.began, Good: w.revision, Leader: true}, {Name: "dns-fra", Kind: "dns", Version: "0.4.0", Started: w.began, Good: w.revision}}, nil
		},
		"GET /v1/safe":    w.safe,
		"GET /v1/history": func(*http.Request) (any, *problem.Document) { return controlplane.HistoryPage{Entries: w.history}, nil },
		"GET /v1/audit": func(*http.Request) (any, *problem.Document) {
			return controlplane.AuditPage{Entries: []controlplane.AuditEntry{{Revision: 41, Time: w.began, Author: "ops", Action: "apply", Objects: []string{"pops/sin1"}}}}, nil
		},
		"GET /v1/diff": func(r *http.Request) (any, *problem.Document) {
			return controlplane.Difference{From: 30, To: 41, Changes: w.history[len(w.history)-3].Changes, Text: "--- 30\n+++ 41\n@@ pops/sin1 @@\n-capacity_rps: 1000\n+capacity_rps: 2000\n", Effect: w.effect()}, nil
		},
		"POST /v1/rollback": w.rollback, "GET /v1/doctor": func(*http.Request) (any, *problem.Document) {
			return controlplane.Diagnosis{Revision: w.revision, Culprits: []controlplane.HistoryEntry{{Revision: 44, Author: "outside"}}}, nil
		},
		"PUT /v1/overrides/{name}": w.putOverride, "DELETE /v1/overrides/{name}": w.deleteOverride, "GET /v1/keys": func(*http.Request) (any, *problem.Document) {
			return map[string]any{"keys": w.keys}, nil
		},
		"POST /v1/keys": w.createKey,
	} {
		mux.HandleFunc(pattern, func(out http.ResponseWriter, r *http.Request) {
			w.mu.Lock()
			defer w.mu.Unlock()
			if r.Header.Get("Authorization") != "Bearer "+goodToken {
				problem.Write(out, http.StatusUnauthorized, "no such token")
				return
			}
			result, refused := f(r)
			if refused != nil {
				problem.Write(out, refused.Status, refused.Detail)
				return
			}
			if invalid, ok := result.(invalid); ok {
				out.Header().Set("Content-Type", problem.ContentType)
				out.WriteHeader(http.StatusBadRequest)
				result = map[string]any{"detail": "invalid topology", "faults": []topology.Fault(invalid)}
			}
			_ = json.NewEncoder(out).Encode(result)
		})
	}
	mux.HandleFunc("GET /v1/events", w.events)
	return mux
}

// invalid is answered as a problem document with faults.
type invalid []topology.Fault

func (w *world) events(out http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+goodToken {
		problem.Write(out, http.StatusUnauthorized, "no such token")
		return
	}
	mine := make(chan string, 100)
	w.mu.Lock()
	w.followers[mine] = true
	w.mu.Unlock()
	defer func() {
		w.mu.Lock()
		delete(w.followers, mine)
		w.mu.Unlock()
	}()
	out.Header().Set("Content-Type", "text/event-stream")
	fmt.Fprint(out, ": here\n\n")
	for {
		_ = http.NewResponseController(out).Flush()
		select {
		case text, ok := <-mine:
			if !ok {
				return
			}
			fmt.Fprint(out, text)
		case <-r.Context().Done():
			return
		}
	}
}

func (w *world) drained(name string) string {
	for _, o := range w.overrides {
		if o["pop"] == name && o["kind"] == "drain" {
			return fmt.Sprintf("drained by %v: %v", o["author"], o["reason"])
		}
	}
	return ""
}

func (w *world) status() map[string]any {
	verdict := func(name string) health.Verdict {
		v := health.Verdict{Status: health.Up, Since: w.began.Add(-3 * time.Hour), Seen: time.Now(), LastTook: 41 * time.Millisecond}
		if reason := w.down[name]; reason != "" {
			v.Status, v.Reason, v.Since = health.Down, reason, time.Now().Add(-3*time.Minute)
		}
		if reason := w.worn[name]; reason != "" {
			v.Status, v.Reason, v.Since, v.Votes = health.Degraded, reason, time.Now().Add(-2*time.Minute), health.Votes{Up: 6, Down: 1, Of: 7}
			v.Regions = map[string]health.RegionVerdict{"AS": {Status: health.Down}}
		}
		return v
	}
	var pops, clusters []controlplane.TargetStatus
	accepted := uint64(time.Since(w.began).Seconds() * 900)
	activity := controlplane.Activity{DNS: controlplane.Counts{"udp": accepted * 3, "tcp": 12}, PoPs: map[string]controlplane.Counts{}, Clusters: map[string]controlplane.Counts{}}
	for i, r := range w.top.Refs() {
		switch o := w.top.Object(r).(type) {
		case *topology.PoP:
			v, why := verdict(r.Name), w.drained(r.Name)
			wanted, realised := 0.25, 0.26
			pops = append(pops, controlplane.TargetStatus{Name: r.Name, City: o.Location.City, Country: o.Location.Country, State: o.State, Health: v,
				Address: []string{o.Addresses[0].String() + ":443"}, Answered: v.Status == health.Up && why == "", Why: why,
				Load: &controlplane.LoadStatus{RequestsRPS: 900, Wanted: &wanted, Realised: &realised}})
			activity.PoPs[r.Name] = controlplane.Counts{"accepted": accepted * uint64(i+2) / 4, "forwarded": accepted * uint64(i+2) / 4, "pending": uint64(i % 3), "pending_bytes": uint64(i%3) * 900}
		case *topology.Cluster:
			v := verdict(r.Name)
			clusters = append(clusters, controlplane.TargetStatus{Name: r.Name, City: o.Location.City, Country: o.Location.Country, State: o.State, Health: v, Address: o.Endpoints, Answered: v.Status == health.Up})
			activity.Clusters[r.Name] = controlplane.Counts{"stored": accepted * 2}
		}
	}
	overrides := []map[string]any{}
	for name, o := range w.overrides {
		o["name"], o["expired"] = name, false
		overrides = append(overrides, o)
	}
	return map[string]any{"revision": w.revision, "topology_revision": w.revision, "faults": w.faults, "ignored": nil, "pops": pops, "clusters": clusters, "overrides": overrides,
		"vantages": w.vantages, "dns": w.dns, "geo": controlplane.GeoStatus{Type: "GeoLite2-City", Built: w.began.Add(-48 * time.Hour)}, "activity": activity,
		"spill": controlplane.SpillStatus{
			Last:  &controlplane.SpillPlan{At: w.began, Why: "overload", Moved: 0.031, Shifts: []controlplane.SpillShift{{PoP: "fra1", By: -0.031}, {PoP: "iad1", By: 0.031}}},
			Risks: []controlplane.SpillRisk{{Lost: "fra1", PoP: "iad1", LoadRPS: 2200, CapacityRPS: 2000}},
		}}
}

// milliseconds guesses a round-trip time by the distance of two places.
func milliseconds(a, b topology.Location) float64 {
	rad := math.Pi / 180
	c := math.Sin(a.LatDeg*rad)*math.Sin(b.LatDeg*rad) + math.Cos(a.LatDeg*rad)*math.Cos(b.LatDeg*rad)*math.Cos((a.LonDeg-b.LonDeg)*rad)
	return math.Round(3 + math.Acos(max(-1, min(1, c)))*6371/65)
}

func (w *world) answered() []string {
	var names []string
	for _, r := range w.top.Refs() {
		if r.Kind == topology.PoPs && w.down[r.Name] == "" && w.drained(r.Name) == "" {
			names = append(names, r.Name)
		}
	}
	return names
}

func (w *world) coloured(*http.Request) (any, *problem.Document) {
	drawn := controlplane.Coloured{Revision: w.revision, PoPs: w.answered(), StepDeg: 2, Rows: []controlplane.Row{}}
	for _, cell := range worldmap.Land(2) {
		best, ms := -1, math.Inf(1)
		for i, name := range drawn.PoPs {
			if d := milliseconds(w.top.PoPs[name].Location, topology.Location{LatDeg: cell.LatDeg, LonDeg: cell.LonDeg}); d < ms {
				best, ms = i, d
			}
		}
		if n := len(drawn.Rows); n == 0 || drawn.Rows[n-1].LatDeg != cell.LatDeg {
			drawn.Rows = append(drawn.Rows, controlplane.Row{LatDeg: cell.LatDeg})
		}
		row := &drawn.Rows[len(drawn.Rows)-1]
		row.Runs = append(row.Runs, [4]float64{cell.LonDeg, 1, float64(best), ms})
	}
	return drawn, nil
}

func (w *world) explain(r *http.Request) (any, *problem.Document) {
	client, err := netip.ParseAddr(r.FormValue("client"))
	if err != nil {
		return nil, &problem.Document{Status: 400, Detail: fmt.Sprintf("client %q is neither an address nor a prefix", r.FormValue("client"))}
	}
	at := topology.Location{LatDeg: 13.75, LonDeg: 100.5, Country: "TH", City: "Bangkok"}
	trace := router.Trace{Service: r.FormValue("service"), Family: "A", Client: netip.PrefixFrom(client, 32), Network: netip.MustParsePrefix("192.0.2.0/24"), Place: &router.Place{Location: at, Continent: "AS", ASN: 64500}, Outcome: "answered", Scope: netip.MustParsePrefix("192.0.2.0/24")}
	fit := slices.DeleteFunc(w.answered(), func(name string) bool { return slices.Contains(r.Form["if"], "pop "+name+" down") })
	names := slices.SortedFunc(slices.Values(topology.ExamplePoPs), func(a, b string) int {
		return int(milliseconds(at, w.top.PoPs[a].Location) - milliseconds(at, w.top.PoPs[b].Location))
	})
	for _, name := range names {
		ms := milliseconds(at, w.top.PoPs[name].Location)
		c := router.Candidate{PoP: name, City: w.top.PoPs[name].Location.City, Families: []string{"A"}, PredictedMS: ms, RTTMS: ms, Share: 1, State: topology.Active, Health: health.Up, Reason: "farther than the PoP that is answered"}
		switch {
		case w.drained(name) != "":
			c.Reason = w.drained(name)
		case !slices.Contains(fit, name):
			c.Health, c.Reason = health.Down, "down: timeout"
		case len(trace.Answer) == 0:
			trace.Answer, c.Chosen, c.Reason = []string{name}, true, "nearest that is well"
		}
		trace.Candidates = append(trace.Candidates, c)
	}
	return trace, nil
}

func (w *world) effect() []controlplane.Effect {
	return []controlplane.Effect{{Service: topology.ExampleService, Family: "A", Moved: 0.21, Moves: []controlplane.Move{{From: "sin1", To: "nrt1", Share: 0.17}, {From: "sin1", To: "fra1", Share: 0.04}}, P50MS: [2]float64{31, 38}, P95MS: [2]float64{96, 121}}}
}

func (w *world) safe(r *http.Request) (any, *problem.Document) {
	if r.FormValue("pop") == "fra1" {
		return controlplane.Safety{Because: []string{"iad1 would get 2600 requests a second, over its capacity of 2000."}, Effect: w.effect()}, nil
	}
	return controlplane.Safety{Safe: true, Because: []string{"All clients still get an answer.", "No other PoP comes over 80 % of its capacity."}, Effect: w.effect()}, nil
}

func (w *world) putOverride(r *http.Request) (any, *problem.Document) {
	var o topology.Override
	body := map[string]any{}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		return nil, &problem.Document{Status: 400, Detail: err.Error()}
	}
	text, _ := json.Marshal(body)
	if err := json.Unmarshal(text, &o); err != nil || o.Reason == "" || !o.Expires.After(time.Now()) {
		return nil, &problem.Document{Status: 400, Detail: fmt.Sprintf("not an override: %s", text)}
	}
	body["author"] = "ops"
	w.overrides[r.PathValue("name")] = body
	w.tell("overrides")
	w.tell("status")
	return map[string]any{"revision": w.revision}, nil
}

func (w *world) deleteOverride(r *http.Request) (any, *problem.Document) {
	delete(w.overrides, r.PathValue("name"))
	w.tell("status")
	return map[string]any{"revision": w.revision}, nil
}

func (w *world) createKey(r *http.Request) (any, *problem.Document) {
	key := map[string]any{}
	_ = json.NewDecoder(r.Body).Decode(&key)
	key["id"], key["created"], key["expired"] = "k7f3", time.Now(), false
	w.keys = append(w.keys, key)
	return map[string]any{"id": "k7f3", "key": "isok_k7f3_secret"}, nil
}

func (w *world) object(r *http.Request) (any, *problem.Document) {
	ref, err := topology.ParseRef(r.PathValue("kind") + "/" + r.PathValue("name"))
	if o := w.top.Object(ref); err == nil && o != nil {
		return controlplane.StoredObject{Revision: max(w.changed[ref.String()], 41), Text: string(topology.MarshalValue(o)), Value: o}, nil
	}
	return nil, &problem.Document{Status: 404, Detail: "there is no " + ref.String()}
}

// apply does what the store does with an edit: it is read as a whole, and is refused with all faults or when it was made on another base.
func (w *world) apply(r *http.Request) (any, *problem.Document) {
	var request controlplane.ApplyRequest
	_ = json.NewDecoder(r.Body).Decode(&request)
	edit, err := topology.Parse([]byte(request.Document))
	if strings.Contains(fmt.Sprint(err), "invalid topology") {
		return invalid(err.(*topology.InvalidError).Faults), nil
	}
	if request.Base != 0 && request.Base != w.revision {
		return nil, &problem.Document{Status: 409, Detail: "changed meanwhile"}
	}
	applied := controlplane.Applied{Effect: w.effect(), Changes: []controlplane.ObjectChange{}}
	for _, ref := range edit.Refs() {
		kind := "added"
		if w.top.Object(ref) != nil {
			kind = "changed"
		}
		applied.Changes = append(applied.Changes, controlplane.ObjectChange{Object: ref.String(), Kind: kind, Fields: []controlplane.FieldChange{{Path: "capacity_rps", From: json.RawMessage("2000"), To: json.RawMessage("3000")}}})
		if !request.DryRun {
			w.put(ref, edit.Object(ref), request.Message)
			applied.Revision = w.revision
		}
	}
	return applied, nil
}

func (w *world) put(ref topology.Ref, o topology.Object, message string) {
	w.revision++
	w.top = w.top.With(map[topology.Ref]topology.Object{ref: o}, nil)
	w.changed[ref.String()] = w.revision
	w.history = append([]controlplane.HistoryEntry{{Revision: w.revision, Time: time.Now(), Author: "ops", Message: message, Valid: true, Changes: []controlplane.ObjectChange{{Object: ref.String(), Kind: "changed"}}}}, w.history...)
	w.tell("topology")
	w.tell("history")
	w.tell("status")
}

func (w *world) rollback(r *http.Request) (any, *problem.Document) {
	var request controlplane.RollbackRequest
	_ = json.NewDecoder(r.Body).Decode(&request)
	applied := controlplane.Applied{Effect: w.effect(), Changes: []controlplane.ObjectChange{{Object: "pops/sin1", Kind: "changed", Fields: []controlplane.FieldChange{{Path: "capacity_rps", From: json.RawMessage("2000"), To: json.RawMessage("1000")}}}}}
	if !request.DryRun {
		sin1 := *w.top.PoPs["sin1"]
		sin1.CapacityRPS = 1000
		w.put(topology.Ref{Kind: topology.PoPs, Name: "sin1"}, &sin1, request.Message)
		applied.Revision = w.revision
	}
	return applied, nil
}
