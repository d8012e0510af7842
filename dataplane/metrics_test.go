package dataplane

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/intakeclient"
)

// metrics collects what a PoP tells, by name and labels, such as isochrone_intake_refused_total{code=401,pop=sin1}.
func (w *world) metrics(t *testing.T) map[string]float64 {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(w.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			all[f.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.Gauge.GetValue() + m.Counter.GetValue()
		}
	}
	return all
}

func (w *world) told(t *testing.T, what string, want map[string]float64) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		got, wrong := w.metrics(t), []string(nil)
		for name, value := range want {
			if v, ok := got["isochrone_"+name]; !ok || v != value {
				wrong = append(wrong, fmt.Sprintf("%s: got %v, want %v", name, v, value))
			}
		}
		if len(wrong) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%s: %s", what, strings.Join(wrong, "; "))
			return
		}
		<-time.After(time.Millisecond) // between two looks at a condition
	}
}

func TestMetrics(t *testing.T) {
	w := newWorld(t, nil)
	for _, c := range w.clusters { // so that all is kept
		c.status.Store(503)
	}
	w.told(t, "at the start", map[string]float64{
		"intake_accepted_total{pop=sin1}": 0, "intake_refused_total{code=503,pop=sin1}": 0, "spool_envelopes{pop=sin1}": 0,
		"spool_oldest_seconds{pop=sin1}": 0, "spool_failing{pop=sin1}": 0, "spool_max_envelopes{pop=sin1}": 1e6, "spool_max_bytes{pop=sin1}": 1 << 30,
		"forward_cluster_standing{cluster=ap,pop=sin1,standing=well}": 1, "forward_cluster_standing{cluster=ap,pop=sin1,standing=down}": 0,
	})
	w.post(request(w.key, aPayload))
	w.post(request(w.key, aPayload))
	w.post(request("", aPayload))
	probe := request(w.probe, aPayload)
	probe.Header.Set("X-Isochrone-Probe", "1")
	w.post(probe)
	w.told(t, "after requests", map[string]float64{
		"intake_accepted_total{pop=sin1}": 2, "intake_refused_total{code=401,pop=sin1}": 1, "intake_probes_total{pop=sin1}": 1,
		"spool_envelopes{pop=sin1}": 2,
	})
	if got := w.metrics(t); got["isochrone_spool_oldest_seconds{pop=sin1}"] <= 0 || got["isochrone_spool_bytes{pop=sin1}"] < 2*float64(len(aPayload)) {
		t.Errorf("of what is kept: %v", got)
	}

	w.verdicts.Store(&health.Verdicts{{Kind: health.Cluster, Name: "eu"}: {Status: health.Down}})
	end, config := w.run(t)
	w.told(t, "while no cluster takes anything", map[string]float64{ // each gets five attempts
		"forward_cluster_standing{cluster=ap,pop=sin1,standing=failing}": 1, "forward_cluster_standing{cluster=ap,pop=sin1,standing=well}": 0,
		"forward_cluster_standing{cluster=eu,pop=sin1,standing=down}": 1, "spool_envelopes{pop=sin1}": 2,
	})
	if got := w.metrics(t)["isochrone_forward_retried_total{pop=sin1}"]; got < 2 {
		t.Errorf("%v retries were told", got)
	}
	connection, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", end.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	w.told(t, "while a client is connected", map[string]float64{"intake_connections{pop=sin1,transport=tcp}": 1, "intake_connections{pop=sin1,transport=quic}": 0})
	connection.Close()
	client := intakeclient.New(config)
	if _, err := client.Post(t.Context(), []intakeclient.Endpoint{end}, &intakeclient.Request{Service: host, Path: Path}); err != nil {
		t.Fatal(err)
	}
	w.told(t, "while one is connected over QUIC", map[string]float64{"intake_connections{pop=sin1,transport=tcp}": 0, "intake_connections{pop=sin1,transport=quic}": 1})
	client.Close()
	w.told(t, "after it has gone", map[string]float64{"intake_connections{pop=sin1,transport=quic}": 0})

	w.clusters["ap"].status.Store(422)
	w.told(t, "after a refusal for good", map[string]float64{"spool_dead_letters{pop=sin1}": 2, "spool_envelopes{pop=sin1}": 0, "spool_oldest_seconds{pop=sin1}": 0})
	w.clusters["ap"].status.Store(202)
	w.post(request(w.key, aPayload))
	w.told(t, "after an acknowledgement", map[string]float64{
		"forward_acknowledged_total{pop=sin1}": 1, "forward_cluster_standing{cluster=ap,pop=sin1,standing=well}": 1,
	})
}
