package dataplane

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/isochrone/isochrone/dataplane/exchange"
	"github.com/isochrone/isochrone/dataplane/quota"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

// fixedHeader is a header that costs nothing to read.
type fixedHeader [][2]string

// Get implements exchange.Header.
func (h fixedHeader) Get(name string) string {
	for _, f := range h {
		if f[0] == name {
			return f[1]
		}
	}
	return ""
}

// Repeated implements exchange.Header.
func (h fixedHeader) Repeated(string) bool { return false }

// textBody is a body that is here already.
type textBody struct{ strings.Reader }

// SetReadDeadline implements exchange.Body.
func (*textBody) SetReadDeadline(time.Time) error { return nil }

var _ io.Reader = (*textBody)(nil)

// BenchmarkAnswer is what a request costs behind the transports.
func BenchmarkAnswer(b *testing.B) {
	queue, err := spool.Open(b.TempDir(), spool.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer queue.Close()
	id, text, key, err := topology.NewKey(strings.NewReader(strings.Repeat("k", 25)), time.Now())
	if err != nil {
		b.Fatal(err)
	}
	key.QuotaPerMinute = 1 << 50
	snap := &topology.Snapshot{Topology: topology.Example(netip.MustParseAddr("127.0.0.1"), nil, nil), Keys: topology.NewKeySet(map[string]*topology.Key{id: key})}
	p := New(Config{
		Name: "sin1", Snapshot: func() *topology.Snapshot { return snap }, Verdicts: func() health.Verdicts { return nil },
		Model: rtt.Default(), Spool: queue, Quota: runQuota(b, quota.NewMemory(1)), Log: slog.New(slog.DiscardHandler),
	})
	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		answer, body := new(exchange.Answer), new(textBody)
		request := &exchange.Request{
			Method: "POST", Path: Path, Host: host, Proto: "h3", ContentLength: int64(len(aPayload)), Remote: netip.MustParseAddrPort("192.0.2.1:1"),
			Header: fixedHeader{{"X-Api-Key", text}, {"Content-Type", "application/json"}}, Body: body, Context: context.Background(),
		}
		for pb.Next() {
			body.Reset(aPayload)
			answer.Reset()
			if p.Answer(request, answer); answer.Status != 202 {
				b.Errorf("got %d: %s", answer.Status, answer.Body)
				return
			}
		}
	})
}
