package controlplane

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/sealed"
)

// at returns a context of the service in which somebody asks.
func (w *world) both(role Role) map[string]Operations {
	return map[string]Operations{"client": w.client(role), "service": w.service}
}

func TestObjects(t *testing.T) {
	w := begin(t, nil)
	const path = "/v1/topology/pops/sin1"
	first := w.ask(Viewer, "GET", path, "")
	tag := first.header.Get("ETag")
	if first.code != 200 || tag == "" || !strings.Contains(string(first.body), `"city":"Singapore"`) {
		t.Fatalf("got %d, %s, %s", first.code, tag, first.body)
	}
	if again := w.ask(Viewer, "GET", path, "", "If-None-Match", tag); again.code != 304 || len(again.body) > 0 {
		t.Errorf("If-None-Match: got %d", again.code)
	}
	stored, err := w.client(Viewer).Object(t.Context(), topology.Ref{Kind: topology.PoPs, Name: "sin1"})
	if err != nil {
		t.Fatal(err)
	}
	draining := strings.Replace(stored.Text, "state: active", "state: draining", 1)
	put := w.ask(Operator, "PUT", path, draining, "If-Match", tag)
	if put.code != 200 || !strings.Contains(string(put.body), `"path":"state"`) {
		t.Fatalf("put: got %d %s", put.code, put.body)
	}
	if got := w.ask(Operator, "PUT", path, draining, "If-Match", tag).problem(t, 412); len(got.Changed) != 1 || got.Changed[0] != "pops/sin1" {
		t.Errorf("a tag of the past: got %+v", got)
	}
	if got := w.ask(Operator, "DELETE", path, "", "If-Match", tag).problem(t, 412); !strings.Contains(got.Detail, "entity tag") {
		t.Errorf("a deletion with a tag of the past: got %+v", got)
	}
	w.ask(Operator, "PUT", path, draining, "If-None-Match", "*").problem(t, 412)
	if got := w.ask(Operator, "PUT", path, strings.Replace(stored.Text, "lat: 1.", "lat: 100.", 1)).problem(t, 400); len(got.Faults) != 1 || got.Faults[0].Path != "pops.sin1.location.lat" {
		t.Errorf("an invalid object: got %+v", got)
	}
	json := `{"schema":1,"location":{"lat":52.5,"lon":13.4,"country":"DE"},"addresses":["203.0.113.99"],"port":8443}`
	if made := w.ask(Operator, "PUT", "/v1/topology/pops/ber1", json, "If-None-Match", "*"); made.code != 200 {
		t.Errorf("a new object as JSON: got %d %s", made.code, made.body)
	}
	if gone := w.ask(Operator, "DELETE", "/v1/topology/pops/ber1", ""); gone.code != 200 {
		t.Errorf("deletion: got %d %s", gone.code, gone.body)
	}
	w.ask(Viewer, "GET", "/v1/topology/pops/ber1", "").problem(t, 404)

	whole := w.ask(Viewer, "GET", "/v1/topology", "")
	if again := w.ask(Viewer, "GET", "/v1/topology", "", "If-None-Match", whole.header.Get("ETag")); again.code != 304 {
		t.Errorf("the whole topology: got %d with its own tag", again.code)
	}
	for name, ops := range w.both(Viewer) {
		stored, err := ops.Topology(t.Context())
		if err != nil || stored.Topology.PoPs["sin1"].State != topology.Draining || len(stored.Faults) != 0 {
			t.Errorf("%s: got %+v, %v", name, stored, err)
		}
	}
}

func TestHistory(t *testing.T) {
	w := begin(t, nil)
	c := w.client(Operator)
	before, err := c.Topology(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	top := example()
	top.PoPs["sin1"].State = topology.Draining
	applied, err := c.Apply(t.Context(), ApplyRequest{Document: string(top.Marshal()), Base: before.Revision, Message: "for the test"})
	if err != nil || applied.Revision <= before.Revision || len(applied.Changes) != 1 || applied.Changes[0].Fields[0].Path != "state" {
		t.Fatalf("apply: got %+v, %v", applied, err)
	}
	if _, err := c.Apply(t.Context(), ApplyRequest{Document: string(example().Marshal()), Base: before.Revision}); !errors.Is(err, ErrConflict) || !strings.Contains(err.Error(), "pops/sin1") {
		t.Errorf("on a base of the past: got %v", err)
	}
	if got := w.ask(Operator, "POST", "/v1/changes", fmt.Sprintf(`{"delete":["pops/sin1"],"base":%d}`, before.Revision)).problem(t, 409); cmp.Diff(got.Changed, []string{"pops/sin1"}) != "" {
		t.Errorf("got %+v", got)
	}
	for name, ops := range w.both(Viewer) {
		page, err := ops.History(t.Context(), Page{Limit: 1})
		if err != nil || len(page.Entries) != 1 || page.Next != fmt.Sprint(applied.Revision) {
			t.Fatalf("%s: got %+v, %v", name, page, err)
		}
		if e := page.Entries[0]; e.Revision != applied.Revision || e.Author != "some operator" || e.Message != "for the test" || !e.Valid {
			t.Errorf("%s: got %+v", name, e)
		}
		page, err = ops.History(t.Context(), Page{After: page.Next})
		if err != nil || len(page.Entries) != 1 || page.Entries[0].Author != "test" || page.Next != "" {
			t.Errorf("%s: the next page: got %+v, %v", name, page, err)
		}
		past, err := ops.At(t.Context(), before.Revision)
		if err != nil || past.Topology.PoPs["sin1"].State != topology.Active {
			t.Errorf("%s: the past: got %+v, %v", name, past, err)
		}
		diff, err := ops.Diff(t.Context(), DiffRequest{From: before.Revision, Effect: true})
		if err != nil || len(diff.Changes) != 1 || !strings.Contains(diff.Text, "+    state: draining") || len(diff.Effect) == 0 || diff.Effect[0].Moves[0].From != "sin1" {
			t.Errorf("%s: the difference: got %+v, %v", name, diff, err)
		}
		if _, err := ops.At(t.Context(), 1<<40); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: the future: got %v", name, err)
		}
		doctor, err := ops.Doctor(t.Context())
		if err != nil || !doctor.Valid {
			t.Errorf("%s: doctor: got %+v, %v", name, doctor, err)
		}
	}
	dry, err := c.Rollback(t.Context(), RollbackRequest{Revision: before.Revision, DryRun: true})
	if err != nil || len(dry.Changes) != 1 || dry.Revision != 0 || len(dry.Effect) == 0 {
		t.Errorf("a dry run: got %+v, %v", dry, err)
	}
	if _, err := c.Rollback(t.Context(), RollbackRequest{Revision: before.Revision}); err != nil {
		t.Fatal(err)
	}
	after, err := c.Topology(t.Context())
	if err != nil || string(after.Topology.Marshal()) != string(before.Topology.Marshal()) {
		t.Errorf("after the rollback: got %+v, %v", after, err)
	}
}

func TestInvalidBase(t *testing.T) {
	w := begin(t, nil)
	c := w.client(Operator)
	good := w.service.Snapshot().Good
	if _, err := w.etcd.Put(t.Context(), "/isochrone/topology/pops/fra1", "schema: 1\nlocation: {lat: 150, lon: 8.7, country: DE}\naddresses: [203.0.113.2]\n"); err != nil {
		t.Fatal(err)
	}
	w.eventually("the faults", func() bool { return len(w.service.Snapshot().Faults) > 0 })
	doctor, err := c.Doctor(t.Context())
	if err != nil || doctor.Valid || doctor.LastGood < good || len(doctor.Culprits) != 1 || len(doctor.Faults) != 1 {
		t.Fatalf("doctor: got %+v, %v", doctor, err)
	}
	document := `{"pops":{"ber1":{"schema":1,"location":{"lat":52.5,"lon":13.4,"country":"DE"},"addresses":["203.0.113.99"],"port":8443}},"schema":1}`
	if _, err := c.Apply(t.Context(), ApplyRequest{Document: document}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "150") {
		t.Errorf("an edit on an invalid base: got %v", err)
	}
	// An override takes effect all the same.
	w.drain("jnb1")
	if _, err := c.Apply(t.Context(), ApplyRequest{Document: document, RevertInvalid: true}); err != nil {
		t.Fatal(err)
	}
	stored, err := c.Topology(t.Context())
	if err != nil || len(stored.Faults) > 0 || stored.Topology.PoPs["ber1"] == nil || stored.Topology.PoPs["fra1"].Location.LatDeg > 90 {
		t.Errorf("got %+v, %v", stored, err)
	}
}

func TestKeys(t *testing.T) {
	w := begin(t, nil)
	for name, ops := range w.both(Operator) {
		ctx := WithIdentity(t.Context(), Identity{"some operator", Operator})
		made, err := ops.CreateKey(ctx, KeyRequest{Services: []string{"intake.isochrone.test"}, From: []string{"192.0.2.0/24"}, Note: name, QuotaPerMinute: 7})
		if err != nil || !strings.HasPrefix(made.Secret, "iso_"+made.ID+"_") || made.QuotaPerMinute != 7 || len(made.Warnings) > 0 {
			t.Fatalf("%s: got %+v, %v", name, made, err)
		}
		rotated, err := ops.RotateKey(ctx, made.ID, time.Hour)
		if err != nil || rotated.ID != made.ID || rotated.Secret == made.Secret {
			t.Fatalf("%s: rotate: got %+v, %v", name, rotated, err)
		}
		if key := w.service.Snapshot().Keys.Lookup(made.ID); !key.Matches(made.Secret, time.Now()) || !key.Matches(rotated.Secret, time.Now()) || key.Matches(made.Secret, time.Now().Add(2*time.Hour)) {
			t.Errorf("%s: both keys are to be good for an hour", name)
		}
		if listed := string(w.ask(Viewer, "GET", "/v1/keys", "").body); strings.Contains(listed, "sha256") || !strings.Contains(listed, `"previous_until"`) {
			t.Errorf("%s: got %s, want no hashes", name, listed)
		}
		if odd, err := ops.CreateKey(ctx, KeyRequest{Services: []string{"nobody.test"}}); err != nil || len(odd.Warnings) != 1 || !strings.Contains(odd.Warnings[0], "nobody.test") {
			t.Errorf("%s: got %+v, %v, want a warning of the service", name, odd, err)
		}
		seen := map[string]bool{}
		for i := range 3 {
			if _, err := ops.CreateKey(ctx, KeyRequest{Note: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
		}
		for page := (Page{Limit: 2}); ; {
			list, err := ops.Keys(ctx, page)
			if err != nil || len(list.Keys) == 0 || len(list.Keys) > 2 {
				t.Fatalf("%s: got %+v, %v", name, list, err)
			}
			for _, k := range list.Keys {
				if seen[k.ID] {
					t.Errorf("%s: got %s twice", name, k.ID)
				}
				seen[k.ID] = true
			}
			if page.After = list.Next; list.Next == "" {
				break
			}
		}
		if want := w.service.Snapshot().Keys.Len(); len(seen) != want {
			t.Errorf("%s: pages have %d keys, want %d", name, len(seen), want)
		}
		if err := ops.RevokeKey(ctx, made.ID); err != nil || w.service.Snapshot().Keys.Lookup(made.ID) != nil {
			t.Errorf("%s: revoke: %v", name, err)
		}
		if err := ops.RevokeKey(ctx, made.ID); !errors.Is(err, ErrNotFound) {
			t.Errorf("%s: again: got %v", name, err)
		}
		for _, wrong := range []KeyRequest{{From: []string{"x"}}, {Expires: time.Now().Add(-time.Hour)}, {QuotaPerMinute: -1}} {
			if _, err := ops.CreateKey(ctx, wrong); !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %+v: got %v", name, wrong, err)
			}
		}
	}
}

func TestOverridesAndSecrets(t *testing.T) {
	w := begin(t, nil)
	c := w.client(Admin)
	w.drain("sin1")
	list, err := c.Overrides(t.Context())
	if err != nil || len(list) != 1 || list[0].Author != "some operator" || list[0].Created.IsZero() {
		t.Fatalf("got %+v, %v", list, err)
	}
	past := &topology.Override{Kind: topology.Drain, PoP: "sin1", Reason: "late", Expires: time.Now().Add(-time.Hour)}
	if _, err := c.PutOverride(t.Context(), "late", past); !errors.Is(err, ErrInvalid) {
		t.Errorf("an override that is over: got %v", err)
	}
	if _, err := c.PutOverride(t.Context(), "why", &topology.Override{Kind: topology.Drain, PoP: "sin1", Expires: time.Now().Add(time.Hour)}); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "reason") {
		t.Errorf("one without a reason: got %v", err)
	}
	if _, err := c.DeleteOverride(t.Context(), "drain-sin1"); err != nil {
		t.Error(err)
	}
	if _, err := c.DeleteOverride(t.Context(), "drain-sin1"); !errors.Is(err, ErrNotFound) {
		t.Errorf("again: got %v", err)
	}

	if err := c.PutSecret(t.Context(), "plain", &topology.Sealed{Schema: 1, Age: "hunter2"}); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("a secret that is not sealed: got %v", err)
	}
	_, recipient, err := sealed.GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	secret, err := sealed.Seal("cluster-token.fra", []byte("hunter2"), []string{recipient}, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.PutSecret(t.Context(), "cluster-token.fra", secret); err != nil {
		t.Errorf("a sealed secret: got %v", err)
	}
	if list, err := c.Secrets(t.Context()); err != nil || len(list) != 1 || list[0].Name != "cluster-token.fra" || list[0].Age != "" {
		t.Errorf("the sealed secrets: got %+v, %v", list, err)
	}
	if err := c.DeleteSecret(t.Context(), "nothing"); !errors.Is(err, ErrNotFound) {
		t.Errorf("got %v", err)
	}
}
