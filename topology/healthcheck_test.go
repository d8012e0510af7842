package topology

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

func TestHealthChecks(t *testing.T) {
	const world = `schema: 1
zones: {isochrone.test: {nameservers: {ns1.isochrone.test: [192.0.2.53]}, hostmaster: hostmaster.isochrone.test}}
pops: {sin1: {location: {lat: 1, lon: 103, country: SG}, addresses: [192.0.2.1]}}
clusters: {us: {location: {lat: 39, lon: -77, country: US}, endpoints: ["https://us.example.net/", "https://eu.example.net"]CLUSTER}}
services: {intake.isochrone.test: {SERVICE}}
`
	for _, test := range []struct{ service, cluster, want string }{
		{"", "", ""},
		{"{}", "{}", ""},
		{"{probe: http2, certificate_days: 14}", "{path: /alive, json_rpc: {}}", ""},
		{"{probe: https, path: \"/x?y=1\", status: 204}", "{json_rpc: {url: \"https://node.example.net/key\", min_peers: 0, max_lag_blocks: 100, syncing: true}}", ""},
		{"{probe: icmp}", "", `health.probe: "icmp" is not one of`},
		{"{probe: https}", "", "health.path: is missing"},
		{"{probe: https, path: x}", "", `health.path: "x" is not a path`},
		{"{probe: https, path: /x, status: 101}", "", "health.status: 101 is not in 200..599"},
		{"{probe: tcp, path: /x}", "", "path and status are for probe https"},
		{"{certificate_days: -1}", "", "health.certificate_days: -1 is not in 1..365"},
		{"", "{path: //x}", `health.path: "//x" is not a path`},
		{"", "{json_rpc: {path: rpc}}", `health.json_rpc.path: "rpc" is not a path`},
		{"", "{json_rpc: {url: \"ws://x\"}}", `health.json_rpc.url: "ws://x" is not a URL`},
		{"", "{json_rpc: {url: \"http://x\", path: /y}}", "health.json_rpc.path: is in the url already"},
		{"", "{json_rpc: {min_peers: -1}}", "health.json_rpc.min_peers: -1 is not in 0..10000"},
		{"", "{json_rpc: {max_lag_blocks: -1}}", "health.json_rpc.max_lag_blocks: -1 is not in 1..1000000"},
	} {
		service, cluster := test.service, test.cluster
		if service != "" {
			service = "health: " + service
		}
		if cluster != "" {
			cluster = ", health: " + cluster
		}
		top, err := Parse([]byte(strings.NewReplacer("SERVICE", service, "CLUSTER", cluster).Replace(world)))
		var faults []Fault
		if err == nil {
			faults = top.Validate()
		}
		got := fmt.Sprint(err, faults)
		if test.want == "" && got != "<nil> []" || !strings.Contains(got, test.want) {
			t.Errorf("%s %s: got %s, want %q", service, cluster, got, test.want)
		}
	}
}

// TestHealthCheckDefaults has what is probed where nothing is said, which is what was probed before anything could be said.
func TestHealthCheckDefaults(t *testing.T) {
	if got := new(Service).Probed(); got != (ServiceHealth{Probe: ProbeIntake, CertificateDays: 2}) {
		t.Errorf("got %+v", got)
	}
	if got := new(Cluster).Probed(); got != (ClusterHealth{Path: "/healthz"}) {
		t.Errorf("got %+v", got)
	}
	rpc := &ClusterHealth{JSONRPC: &ChainHealth{}}
	rpc.fillDefaults()
	if urls := rpc.JSONRPC.URLs([]string{"http://a/", "http://b/c"}); !reflect.DeepEqual(urls, []string{"http://a/", "http://b/c/"}) || rpc.JSONRPC.Peers() != 1 {
		t.Errorf("got %v and %+v", urls, rpc.JSONRPC)
	}
	rpc.JSONRPC.URL = "http://d/e"
	if urls := rpc.JSONRPC.URLs([]string{"http://a"}); !reflect.DeepEqual(urls, []string{"http://d/e"}) {
		t.Errorf("got %v", urls)
	}
}
