package controlplane

import (
	"errors"
	"testing"
	"time"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/topology"
)

// TestAdmission invites nodes and turns them out, by the API and at the store.
func TestAdmission(t *testing.T) {
	w := begin(t, nil)
	ctx := WithIdentity(t.Context(), Identity{"some admin", Admin})
	for name, ops := range w.both(Admin) {
		if _, err := ops.Invite(ctx, InviteRequest{Name: "sin1"}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: without a CA: got %v", name, err)
		}
	}
	authority, err := ca.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	w.service.Registrar = &Registrar{Etcd: w.etcd, Root: "/isochrone/", CA: authority, URLs: []string{"https://c1.test:8443"}, Now: time.Now}
	for name, ops := range w.both(Admin) {
		invitation, err := ops.Invite(ctx, InviteRequest{Name: "sin1"})
		if err != nil || invitation.Kind != "pop" || invitation.Token == "" {
			t.Fatalf("%s: got %+v, %v", name, invitation, err)
		}
		token, err := ParseJoinToken(invitation.Token)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.service.Registrar.Join(ctx, JoinRequest{ID: token.ID, Secret: token.Secret, Request: csr(t)}); err != nil {
			t.Fatalf("%s: join: %v", name, err)
		}
		if expelled, err := ops.Expel(ctx, "pop", "sin1"); err != nil || expelled.Name != "sin1" || expelled.Etcd {
			t.Errorf("%s: got %+v, %v", name, expelled, err)
		}
		if _, err := ops.Expel(ctx, "pop", "sin1"); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: twice: got %v, want ErrNotFound", name, err)
		}
		if _, err := ops.Expel(ctx, "king", "sin1"); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
		page, err := ops.Audit(ctx, Page{Limit: 1})
		if err != nil || page.Entries[0].Action != "expel" || page.Entries[0].Author != "some admin" {
			t.Errorf("%s: audit: got %+v, %v", name, page, err)
		}
	}
}

// TestDecisive holds what events of status are for: what people look at, and not each count.
func TestDecisive(t *testing.T) {
	now := time.Now()
	before := &Status{Revision: 1, Good: 1, PoPs: []TargetStatus{{Name: "sin1", Answered: true}}}
	for what, test := range map[string]struct {
		change func(*Status)
		same   bool
	}{
		"counts":     {func(s *Status) { s.Activity.DNS = Counts{"udp": 9} }, true},
		"revision":   {func(s *Status) { s.Revision = 9 }, true},
		"look":       {func(s *Status) { s.PoPs[0].Health.Seen, s.PoPs[0].Health.LastTook = now, time.Second }, true},
		"topology":   {func(s *Status) { s.Good = 9 }, false},
		"since when": {func(s *Status) { s.PoPs[0].Health.Since = now }, false},
		"standing":   {func(s *Status) { s.PoPs[0].Answered = false }, false},
		"fault":      {func(s *Status) { s.Faults = []topology.Fault{{Path: "x"}} }, false},
	} {
		after := *before
		after.PoPs = []TargetStatus{before.PoPs[0]}
		test.change(&after)
		if same := string(asEvent(before.decisive())) == string(asEvent(after.decisive())); same != test.same {
			t.Errorf("%s: got same %v", what, same)
		}
	}
}
