package forward_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"time"

	"github.com/isochrone/isochrone/dataplane/forward"
	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/router/rtt"
	"github.com/isochrone/isochrone/topology"
)

func ExampleForwarder() {
	cluster := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusAccepted) }))
	defer cluster.Close()
	snapshot := &topology.Snapshot{Topology: topology.Example(netip.MustParseAddr("127.0.0.1"), map[string]netip.AddrPort{
		"sin1": netip.MustParseAddrPort("127.0.0.1:8443"),
	}, map[string]string{"ap": cluster.URL})}
	dir, _ := os.MkdirTemp("", "")
	defer os.RemoveAll(dir)
	queue, err := spool.Open(dir, spool.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer queue.Close()

	acknowledged := make(chan string)
	f := forward.New(forward.Config{
		Name: "sin1", Snapshot: func() *topology.Snapshot { return snapshot }, Verdicts: func() health.Verdicts { return nil },
		Model: rtt.Default(), Spool: queue, ClusterToken: func(string) string { return "token" },
		Acknowledged: func(e *spool.Envelope, cluster string) { acknowledged <- e.ID + " by " + cluster },
	})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	body := []byte(`{"hash":"h","sender":"s","amount":1}`)
	_ = queue.Append(&spool.Envelope{
		ID: "sin1.aa", SHA256: sha256.Sum256(body), Service: topology.ExampleService, ContentType: "application/json", Received: time.Now(), Body: body,
	}, nil)
	fmt.Println("next:", f.Next(topology.ExampleService))
	fmt.Println(<-acknowledged)
	stop()
	<-ended
	// Output:
	// next: ap
	// sin1.aa by ap
}
