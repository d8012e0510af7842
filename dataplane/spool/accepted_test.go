package spool

import (
	"testing"
	"time"
)

// TestAcceptedIsTheArrival has an outcome tell the time of the receipt, whatever happened since: the disk took its time, the PoP was
// started again, the envelope was a dead letter and put back.
func TestAcceptedIsTheArrival(t *testing.T) {
	for name, add := range map[string]func(*Spool, *Envelope) error{
		"append":       func(s *Spool, e *Envelope) error { return s.Append(e, nil) },
		"append early": func(s *Spool, e *Envelope) error { return s.AppendEarly(e, nil) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newCrashDisk(1)
			s := mustOpen(t, d, Options{})
			e := envelope("pop.key", []byte("{}"))
			e.Received = time.Now().Add(-3 * time.Hour)
			if err := add(s, e); err != nil {
				t.Fatal(err)
			}
			check := func(when string, state State) {
				t.Helper()
				if got, ok := s.ByCore("key"); !ok || got.State != state || !got.Accepted.Equal(e.Received) {
					t.Errorf("%s: got %+v, %v, want the arrival %v", when, got, ok, e.Received)
				}
			}
			again := func() { s.Close(); s = mustOpen(t, d, Options{}) }
			check("accepted", Pending)
			again()
			check("after a restart", Pending)
			if err := s.Bury(s.take(1, nil)[0], "answered 422"); err != nil {
				t.Fatal(err)
			}
			check("a dead letter", DeadLettered)
			names, err := s.dead.disk.List()
			if err != nil || len(names) != 1 {
				t.Fatal(names, err)
			}
			if err := s.dead.disk.Rename(names[0], names[0][:len(names[0])-len(letterSuffix)]+replaySuffix); err != nil {
				t.Fatal(err)
			}
			s.replay()
			check("put back", Pending)
			again()
			check("put back, after a restart", Pending)
			s.Delivered(s.take(1, nil)[0], "eu")
			check("delivered", Delivered)
			again()
			check("delivered, after a restart", Delivered)
			s.Close()
		})
	}
}
