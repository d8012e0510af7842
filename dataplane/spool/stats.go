package spool

import "time"

// Stats is what a spool holds.
type Stats struct {
	Pending   int       // envelopes
	Later     int       // of them that ReturnAt has put off
	Bytes     int64     // of them
	Memory    int64     // of them that are kept in memory, about
	Oldest    time.Time // arrival of the one that has waited the longest; zero when there is none
	Dead      int       // dead letters
	DeadBytes int64     // bytes of dead letters, which count as those of envelopes do
	MaxBytes  int64     // of both
	Max       int       // envelopes
	Failing   bool      // the disk has not taken the last write
	Failures  uint64    // writes that the disk has not taken, since the start
}

// Full reports whether nothing more is taken.
func (s Stats) Full() bool { return s.Bytes+s.DeadBytes >= s.MaxBytes || s.Pending >= s.Max }

// Stats returns what the spool holds.
func (s *Spool) Stats() Stats {
	oldest := s.oldestPending()
	s.dead.recount(time.Now())
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{
		Pending: len(s.pending), Later: len(s.later.items), Bytes: s.bytes, Memory: s.memory, Oldest: oldest, Dead: s.dead.count(), DeadBytes: s.dead.size(),
		MaxBytes: s.options.MaxBytes, Max: s.options.MaxEnvelopes, Failing: s.failing, Failures: s.failures,
	}
}

// oldestStep is how many numbers are looked at while the others wait.
const oldestStep = 1 << 12

// oldestPending returns when the first pending envelope arrived. Each number is passed once in the life of a spool, here and not when
// an envelope is settled, so that those who accept and forward do not pay for it.
func (s *Spool) oldestPending() time.Time {
	for {
		s.mu.Lock()
		for range oldestStep {
			if s.oldest > s.newest {
				s.mu.Unlock()
				return time.Time{}
			}
			if item := s.pending[s.oldest]; item != nil {
				s.mu.Unlock()
				return time.Unix(0, item.queued)
			}
			s.oldest++
		}
		s.mu.Unlock()
	}
}
