package main

import (
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/isochrone/isochrone/dataplane/spool"
)

// TestSpoolCommands looks at envelopes that no cluster takes, has a cluster refuse them for good, and sends the dead letters again: one
// while the PoP runs, the others while it does not.
func TestSpoolCommands(t *testing.T) {
	t.Parallel()
	r := startUp(t, "", "--without", "ap,eu,us")
	for _, text := range []string{"one", "two", "three"} {
		r.run(t, "send", "--from", "singapore", "--data", fmt.Sprintf(`{"hash":%q,  "sender":"s","amount":"1"}`, text))
	}
	list := func(flags ...string) []spool.Entry {
		t.Helper()
		return decode[[]spool.Entry](t, r.run(t, append([]string{"spool", "ls", "sin1", "-o", "json"}, flags...)...))
	}
	waiting := list()
	if len(waiting) != 3 || waiting[0].State != spool.EntryPending || waiting[0].Service != "intake.isochrone.test" {
		t.Fatalf("got %+v", waiting)
	}
	first := waiting[0].ID
	if got := r.run(t, "spool", "show", "sin1", first, "--body"); got != `{"hash":"one",  "sender":"s","amount":"1"}` {
		t.Errorf("got body %q", got)
	}
	for _, want := range []string{waiting[0].SHA256, "application/json", "pending"} {
		if said := r.run(t, "spool", "show", "sin1", first); !strings.Contains(said, want) {
			t.Errorf("%q is not in %s", want, said)
		}
	}
	if got := list("--id", first); len(got) != 1 {
		t.Errorf("got %d with the id", len(got))
	}
	if got := len(list("--older", "1h")) + len(list("--service", "other.test")) + len(list("--dead")); got != 0 {
		t.Errorf("filters let %d through", got)
	}
	if said := mustFail(t, "spool", "ls", "sin9", "--dir", r.dir); !strings.Contains(said, "nrt1, sin1") {
		t.Errorf("got %s", said)
	}

	refusing := refuseAll(t, r.Clusters["ap"])
	eventually(t, "dead letters", func() error {
		if n := len(list("--dead")); n < 3 {
			return fmt.Errorf("%d so far", n)
		}
		return nil
	})
	refusing.Close()
	if got := list("--dead")[0]; got.State != spool.EntryDead || !strings.Contains(got.Reason, "422") || got.Buried.IsZero() {
		t.Errorf("got %+v", got)
	}
	if said := mustFail(t, "spool", "replay", "sin1", "sin1.unknown", "--dir", r.dir); !strings.Contains(said, "no dead letter") {
		t.Errorf("got %s", said)
	}
	r.run(t, "spool", "replay", "sin1", first)
	eventually(t, "it to be in the queue again", func() error {
		if got := list("--id", first); len(got) != 1 || got[0].State != spool.EntryPending {
			return fmt.Errorf("got %+v", got)
		}
		return nil
	})
	r.interrupt(t)
	if said := r.run(t, "spool", "replay", "sin1", "--all"); !strings.Contains(said, "2 dead letters") {
		t.Errorf("got %s", said)
	}
	r = startUp(t, r.dir) // with clusters
	eventually(t, "all to be delivered", func() error {
		if got := list(); len(got) != 0 {
			return fmt.Errorf("left are %+v", got)
		}
		return nil
	})
	received := envelopes(t, r.dir)
	for _, e := range waiting {
		if got := received[e.ID]; len(got) != 1 || got[0] != e.SHA256 {
			t.Errorf("%s: clusters have %v", e.ID, got)
		}
	}
}

// refuseAll is a cluster that refuses all envelopes for good.
func refuseAll(t *testing.T, at string) *http.Server {
	t.Helper()
	where, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	eventually(t, "the cluster's port", func() (err error) { // which a connection may have by chance
		listener, err = net.Listen("tcp", where.Host)
		return err
	})
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusUnprocessableEntity)
		}
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // until it is closed
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return server
}
