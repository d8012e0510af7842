package health

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func exampleReport(statements int) *Report {
	r := &Report{
		Vantage: Vantage{Name: "pop:fra1", Region: "EU"}, Incarnation: epoch.UnixNano(), Sequence: 7, Full: true,
		Self: Self{Degraded: "no cluster can be reached", Shedding: true, Load: Load{1234, 0.375, 12 * time.Millisecond}},
	}
	for i := range statements {
		s := Statement{
			Target: Target{PoP, fmt.Sprintf("p%03d", i)}, Status: Up, Reason: "accepted a probe", Took: 123 * time.Millisecond,
			Steps: Steps{Handshake: 60 * time.Millisecond, Answer: 63 * time.Millisecond}, Since: epoch.Add(-time.Hour), Seen: epoch.Add(-2 * time.Second),
		}
		if i%3 == 1 {
			s.Status, s.Failures, s.Code, s.Reason, s.Suppressed = Down, 4, Timeout, "no answer within 1s", i%2 == 0
		}
		if i%7 == 2 {
			s.Late = true
		}
		r.Statements = append(r.Statements, s)
	}
	return r
}

func TestReportComesBack(t *testing.T) {
	r := exampleReport(10)
	r.Statements[3].Target = Target{Cluster, "eu"}
	r.Statements[4].Target = Target{DNS, "eu-1"}
	got, err := DecodeReport(r.Append(nil, 0, epoch), epoch)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", sorted(got)) != fmt.Sprintf("%+v", sorted(r)) {
		t.Errorf("got  %+v\nwant %+v", sorted(got), sorted(r))
	}
	r.Hosts = []Hosted{{"a", "no cluster can be reached", false}, {"b", "", true}, {"c", "", false}}
	if got, err = DecodeReport(r.Append(nil, 0, epoch), epoch); err != nil || fmt.Sprint(got.Hosts) != fmt.Sprint(r.Hosts) {
		t.Errorf("hosted PoPs: got %+v, %v", got, err)
	}
	if cut := r.Append(nil, 300, epoch); len(cut) > 300 {
		t.Errorf("got %d octets with hosted PoPs, want at most 300", len(cut))
	}
	later, err := DecodeReport(r.Append(nil, 0, epoch), epoch.Add(time.Hour))
	if err != nil || later.Statements[0].Seen.Sub(got.Statements[0].Seen) != time.Hour {
		t.Errorf("ages do not count from the arrival: %v", err)
	}
}

// sorted returns the report with statements in the order of targets.
func sorted(r *Report) *Report {
	l := NewLedger()
	l.Take(r, epoch)
	return l.Reports(func(string, time.Time) bool { return true })[0]
}

func TestReportIsCutToItsLimit(t *testing.T) {
	r := exampleReport(300)
	b := r.Append([]byte("before"), 1200, epoch)
	if len(b) > 1200+len("before") {
		t.Errorf("got %d octets", len(b))
	}
	got, err := DecodeReport(b[len("before"):], epoch)
	if err != nil {
		t.Fatal(err)
	}
	if got.Full || len(got.Statements) < 15 {
		t.Errorf("got full %v, %d statements", got.Full, len(got.Statements))
	}
	for _, s := range got.Statements {
		if s.Status == Up && !s.Suspects() {
			t.Errorf("%v, which is well, took the place of one that is not", s.Target)
		}
	}
	r.Statements = r.Statements[:1]
	r.Statements[0].Reason = "é\x00\xff" + strings.Repeat("é", 200)
	got, err = DecodeReport(r.Append(nil, 0, epoch), epoch)
	if err != nil || !got.Full || got.Statements[0].Reason != "é ?"+strings.Repeat("é", 58) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestReportsThatAreNone(t *testing.T) {
	good := exampleReport(2).Append(nil, 0, epoch)
	twice := exampleReport(2)
	twice.Statements[1].Target = twice.Statements[0].Target
	nameless := exampleReport(0)
	nameless.Name = ""
	for _, test := range []struct {
		name string
		b    []byte
		want string
	}{
		{"nothing", nil, "octet 0: schema is missing"},
		{"a later schema", []byte{2, 0}, "schema 2, want 1"},
		{"cut off", good[:len(good)-1], "is no number"},
		{"too long", append(bytes.Clone(good), 0), "no hosted PoP, want some or nothing"},
		{"hosts out of order", (&Report{Vantage: Vantage{Name: "up:a"}, Sequence: 1, Hosts: []Hosted{{PoP: "b"}, {PoP: "a"}}}).Append(nil, 0, epoch), "hosted PoP a after b"},
		{"one target twice", twice.Append(nil, 0, epoch), "a second statement of pop/p000"},
		{"no name", nameless.Append(nil, 0, epoch), "vantage has no name"},
		{"huge", make([]byte, MaxReport+1), "want at most 65536"},
	} {
		if _, err := DecodeReport(test.b, epoch); !errors.Is(err, ErrReport) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q in it", test.name, err, test.want)
		}
	}
}

func FuzzReport(f *testing.F) {
	f.Add(exampleReport(0).Append(nil, 0, epoch))
	f.Add(exampleReport(9).Append(nil, 0, epoch))
	f.Add([]byte{1, 0, 1, 'a', 0, 1, 1, 0, 0, 0, 0, 255, 255, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReport(b, epoch)
		if err != nil {
			return
		}
		again, err := DecodeReport(r.Append(nil, 0, epoch), epoch)
		if err != nil {
			t.Fatalf("what was decoded and encoded cannot be decoded: %v", err)
		}
		if !reflect.DeepEqual(sorted(r), sorted(again)) {
			t.Fatalf("got  %+v\nwant %+v", again, r)
		}
	})
}
