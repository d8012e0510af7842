package probe

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/isochrone/isochrone/health"
)

// node is a cluster's node of a chain.
type node struct {
	*httptest.Server
	view  atomic.Pointer[view]
	asked atomic.Int64
}

func startNode(t *testing.T, v view) *node {
	t.Helper()
	n := new(node)
	n.view.Store(&v)
	n.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/healthz" && r.Method == "GET":
		case r.URL.Path == "/rpc" && r.Method == "POST" && r.Header.Get("Content-Type") == "application/json":
			n.asked.Add(1)
			v, syncing := n.view.Load(), "false"
			if v.syncing {
				syncing = `{"startingBlock":"0x0","currentBlock":"0x1","highestBlock":"0x2"}`
			}
			fmt.Fprintf(w, `[{"jsonrpc":"2.0","id":3,"result":"0x%x"},{"jsonrpc":"2.0","id":1,"result":"0x%x"},{"jsonrpc":"2.0","id":2,"result":%s}]`, v.head, v.peers, syncing)
		default:
			w.WriteHeader(404)
		}
	}))
	t.Cleanup(n.Close)
	return n
}

func TestChain(t *testing.T) {
	own, other, third := startNode(t, view{peers: 3, head: 1000}), startNode(t, view{peers: 3, head: 1002}), startNode(t, view{peers: 3, head: 1004})
	to := Target{Target: health.Target{Kind: health.Cluster, Name: "ap"}, Endpoints: []string{own.URL}, Chain: &Chain{
		URLs: []string{"http://127.0.0.1:1/", own.URL + "/rpc"}, MinPeers: 2, MaxLag: 5,
		Others: map[string][]string{"eu": {other.URL + "/rpc"}, "us": {third.URL + "/rpc"}, "gone": {"http://127.0.0.1:1/"}},
	}}
	p := New(Config{})
	defer p.Close()
	for range 2 {
		if o := p.Probe(t.Context(), to); !o.OK || !strings.Contains(o.Reason, "head 1000, 3 peers") || names(o) != "connect answer" {
			t.Errorf("got %+v", o)
		}
	}
	if other.asked.Load() != 1 || third.asked.Load() != 1 {
		t.Errorf("the others were asked %d and %d times for two probes", other.asked.Load(), third.asked.Load())
	}
	for _, test := range []struct {
		name string
		own  view
		want string
		code health.Code
	}{
		{"far behind", view{peers: 3, head: 996}, "its head 996 is 6 blocks behind", health.Lagging},
		{"as far behind as it may be", view{peers: 3, head: 997}, "", ""},
		{"ahead", view{peers: 3, head: 1 << 40}, "", ""},
		{"few peers", view{peers: 1, head: 1000}, "1 peers: want 2", health.Lonely},
		{"syncing", view{peers: 3, head: 1000, syncing: true}, "syncing", health.Syncing},
	} {
		own.view.Store(&test.own)
		o := p.Probe(t.Context(), to)
		if o.OK != (test.want == "") || !o.OK && (o.Code != test.code || !strings.Contains(o.Reason, test.want)) {
			t.Errorf("%s: got %+v", test.name, o)
		}
	}
	to.Chain.Syncing = true
	if o := p.Probe(t.Context(), to); !o.OK {
		t.Errorf("got %+v for one that may be syncing", o)
	}
	to.Chain.URLs = []string{own.URL + "/nothing"}
	if o := p.Probe(t.Context(), to); o.OK || o.Code != health.Answered || !strings.Contains(o.Reason, "404") {
		t.Errorf("got %+v", o)
	}
}

func TestBehind(t *testing.T) {
	now := time.Now()
	own := head{100, now}
	ago := func(number uint64, age time.Duration) head { return head{number, now.Add(-age)} }
	for _, test := range []struct {
		name   string
		others []head
		lag    uint64
		of     int
	}{
		{"nobody", nil, 0, 0},
		{"one ahead", []head{ago(110, time.Second)}, 10, 1},
		{"one that was behind when it was seen", []head{ago(90, 20*time.Second)}, 0, 1},
		{"one that was ahead already", []head{ago(110, 20*time.Second)}, 10, 1},
		{"seen too long ago", []head{ago(110, staleHead+time.Second)}, 0, 0},
		{"a liar of two", []head{ago(1<<60, 0), ago(100, 0)}, 0, 2},
		{"a liar of three", []head{ago(1<<60, 0), ago(104, 0), ago(103, 0)}, 4, 3},
		{"one that stands still", []head{ago(1, 0), ago(104, 0), ago(103, 0)}, 3, 3},
	} {
		if lag, of := behind(own, test.others); lag != test.lag || of != test.of {
			t.Errorf("%s: got %d behind %d, want %d behind %d", test.name, lag, of, test.lag, test.of)
		}
	}
}

func FuzzParseView(f *testing.F) {
	f.Add([]byte(`[{"id":1,"result":"0x3"},{"id":2,"result":false},{"id":3,"result":"0xff"}]`))
	f.Add([]byte(`[{"id":1,"error":{"code":-32601,"message":"no such method"}}]`))
	f.Add([]byte(`{"id":1,"result":"0x"}`))
	f.Add([]byte(`[{"id":2,"result":{"currentBlock":"0x1"}},{"id":2,"result":null}]`))
	f.Fuzz(func(t *testing.T, text []byte) {
		v, err := parseView(text)
		if err != nil {
			if len(err.Error()) > 600 {
				t.Errorf("an error of %d octets", len(err.Error()))
			}
			return
		}
		again := fmt.Sprintf(`[{"id":1,"result":"0x%x"},{"id":2,"result":%v},{"id":3,"result":"0x%x"}]`, v.peers, v.syncing, v.head)
		if got, err := parseView([]byte(again)); err != nil || got != v {
			t.Errorf("got %+v, %v, want %+v", got, err, v)
		}
	})
}
