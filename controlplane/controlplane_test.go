package controlplane

import (
	"encoding/json"
	"iter"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

var now = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// networks is a geo database that knows one network, in Singapore.
type networks struct{}

func (networks) Networks() iter.Seq2[netip.Prefix, *router.Place] {
	return func(yield func(netip.Prefix, *router.Place) bool) {
		place := router.Place{Location: topology.Location{LatDeg: 1.29, LonDeg: 103.85, Country: "SG"}}
		yield(netip.MustParsePrefix("192.0.2.0/24"), &place)
	}
}

// serve returns the handler of a control plane that knows the example world; sin1 is drained, fra1 is down.
func serve(t *testing.T) http.Handler {
	t.Helper()
	pops, clusters := map[string]netip.AddrPort{}, map[string]string{}
	for i, name := range topology.ExamplePoPs {
		pops[name] = netip.AddrPortFrom(netip.AddrFrom4([4]byte{203, 0, 113, byte(i + 1)}), 8443)
	}
	for _, name := range topology.ExampleClusters {
		clusters[name] = "http://" + name + ".example"
	}
	snap := &topology.Snapshot{
		Revision: 9, Good: 7, Topology: topology.Example(netip.MustParseAddr("203.0.113.53"), pops, clusters),
		Overrides: map[string]*topology.Override{
			"drain-sin1": {Kind: topology.Drain, PoP: "sin1", Reason: "trying", Author: "a", Expires: now.Add(time.Hour)},
			"old":        {Kind: topology.Drain, PoP: "iad1", Reason: "over", Author: "a", Expires: now.Add(-time.Hour)},
		},
		Faults: []topology.Fault{{Path: "pops.sin1.location.lat", Message: "135 is not in -90..90"}},
	}
	atlas, err := router.NewAtlas(networks{})
	if err != nil {
		t.Fatal(err)
	}
	live := router.NewLive(atlas)
	if err := live.Topology(snap, now); err != nil {
		t.Fatal(err)
	}
	live.Verdicts(health.Verdicts{{Kind: health.PoP, Name: "fra1"}: {Status: health.Down, Reason: "timeout", Since: now}}, now)
	return NewHandler(NewEndpoints(&Service{
		View: live.View, Snapshot: func() *topology.Snapshot { return snap },
		Geo:      func() GeoStatus { return GeoStatus{Type: "test"} },
		Activity: func() Activity { return Activity{DNS: Counts{"udp": 3}} }, Now: func() time.Time { return now },
	}))
}

func get(t *testing.T, handler http.Handler, path string, code int, result any) {
	t.Helper()
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
	if w.Code != code {
		t.Fatalf("%s: got %d, want %d: %s", path, w.Code, code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), result); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

func TestStatus(t *testing.T) {
	var status Status
	get(t, serve(t), "/v1/status", 200, &status)
	if status.Revision != 9 || status.Good != 7 || len(status.Faults) != 1 || status.Activity.DNS["udp"] != 3 {
		t.Errorf("got %+v", status)
	}
	answered := map[string]bool{}
	for _, p := range status.PoPs {
		answered[p.Name] = p.Answered
		if p.Name == "sin1" && !strings.Contains(p.Why, "trying") {
			t.Errorf("sin1: got why %q, want the override's reason", p.Why)
		}
	}
	if answered["sin1"] || answered["fra1"] || !answered["iad1"] || len(answered) != 6 {
		t.Errorf("answered: got %v", answered)
	}
	if len(status.Clusters) != 3 || status.Clusters[0].Health.Status != health.Unknown {
		t.Errorf("clusters: got %+v", status.Clusters)
	}
	if len(status.Overrides) != 2 || status.Overrides[0].Expired || !status.Overrides[1].Expired {
		t.Errorf("overrides: got %+v", status.Overrides)
	}
}

func TestExplain(t *testing.T) {
	var trace router.Trace
	get(t, serve(t), "/v1/explain?service=intake.isochrone.test&client=192.0.2.7", 200, &trace)
	if len(trace.Answer) != 1 || trace.Answer[0] != "nrt1" || len(trace.Candidates) != 6 {
		t.Fatalf("got %+v, want nrt1 since sin1 is drained", trace)
	}
	if first := trace.Candidates[0]; first.PoP != "sin1" || !strings.Contains(first.Reason, "trying") {
		t.Errorf("got first candidate %+v, want sin1 with the reason of its drain", first)
	}
}

func TestProblems(t *testing.T) {
	handler := serve(t)
	for _, test := range []struct {
		path, detail string
		code         int
	}{
		{"/v1/explain?service=nobody.test&client=192.0.2.7", "intake.isochrone.test", 404},
		{"/v1/explain?service=intake.isochrone.test&client=x", "203.0.113.0/24", 400},
		{"/v1/explain?service=intake.isochrone.test&client=192.0.2.7&family=MX", "HTTPS", 400},
	} {
		var told problem.Document
		get(t, handler, test.path, test.code, &told)
		if told.Status != test.code || !strings.Contains(told.Detail, test.detail) {
			t.Errorf("%s: got %+v, want a detail that has %q", test.path, told, test.detail)
		}
	}
}

func TestNotReady(t *testing.T) {
	handler := NewHandler(NewEndpoints(&Service{
		View: func() *router.View { return nil }, Snapshot: func() *topology.Snapshot { return nil },
	}))
	for _, path := range []string{"/v1/status", "/v1/explain?service=s&client=::1", "/v1/topology"} {
		var told problem.Document
		get(t, handler, path, 503, &told)
	}
}
