package main

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestPlanIsReadStrictly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "plan")
	for text, want := range map[string]string{
		`{"server":"a","addr":"127.0.0.1:53","session":7,"check":true}` + "\n" + `{"server":"b","addr":"127.0.0.1:54","session":8}`: "",
		"":                            "has no server",
		`{"server":"a","adr":"x"}`:    "adr",
		`{"server":"a","hog":"/dev"}`: "/dev",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		plan, err := readPlan(path)
		if want == "" && (err != nil || len(plan) != 2 || plan[0].Session != 7 || !plan[0].Check) {
			t.Errorf("%s: got %v, %v", text, plan, err)
		}
		if want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got error %v, want one with %q", text, err, want)
		}
	}
}

// A mixed run is refused as a whole: against another machine, for longer than five minutes, or when a server is not there.
func TestMixedRunIsGuarded(t *testing.T) {
	target, _ := echo(t, 0)
	q, err := newQuestions([]question{{"a.test.", dns.TypeA}}, options{ecs: "none"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		addr   string
		rounds int
		want   string
	}{{"192.0.2.1:53", 1, "loopback"}, {target.String(), 1000, "5m0s"}, {target.String(), 1, "has no process"}} {
		m := mix{
			config: config{questions: q, timeout: time.Second, outstanding: 1, sockets: 1}, slice: 300 * time.Millisecond,
			plan:      []*participant{{Server: "a", Addr: c.addr, Session: -1}},
			datagrams: newDatagrams(), order: rand.New(rand.NewPCG(1, 1)),
		}
		if err := m.run(c.rounds, json.NewEncoder(io.Discard)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s, %d rounds: got error %v, want one with %q", c.addr, c.rounds, err, c.want)
		}
	}
}

func TestBackgroundReportsAtItsEnd(t *testing.T) {
	b, err := startDuring(`bash -c 'trap "echo {\\\"edits\\\":3}; exit" TERM; echo begun; while :; do sleep 0.01; done'`)
	if err != nil {
		t.Fatal(err)
	}
	printed, err := b.end()
	if err != nil || string(printed) != `{"edits":3}` {
		t.Errorf("got %s, %v", printed, err)
	}
	if _, err := startDuring("false"); err == nil {
		t.Error("a command that ends at once is taken")
	}
}
