package dns

import (
	"context"
	"net/netip"
	"runtime"
	"sync"
	"time"
)

// maxQueue bounds how many questions of a kind wait for the full path; more are not answered, so that those of the fast path are.
const maxQueue = 4096

// job is a question for the full path that came to a thread of the UDP sockets.
type job struct {
	packet  []byte
	from    netip.Addr
	address []byte // of the asker, as the system has it
	reply   func(packet, address []byte)
	done    func() // called behind the last reply
}

// enqueue gives a question to the full path, or drops it when too many wait. It reports whether the full path has it. Those for names
// that exist do not wait behind those that somebody has made up.
func (s *Server) enqueue(j *job, known bool, c *counts) bool {
	queue := s.others
	if known {
		queue = s.known
	}
	select {
	case queue <- j:
		return true
	default:
		c.dropped.Add(1)
		return false
	}
}

// work answers the questions of the queues until both are closed and empty.
func (s *Server) work() {
	w := s.newWorker(s.common)
	for j := s.next(); j != nil; j = s.next() {
		w.tick()
		w.q.packet = j.packet
		_ = w.full(j.from, UDP, func(answer []byte) error {
			j.reply(answer, j.address)
			return nil
		})
		j.done()
	}
}

// next waits for the next question of the queues, and returns nil when they are closed and empty.
func (s *Server) next() *job {
	select {
	case j, more := <-s.known:
		if more {
			return j
		}
		return <-s.others
	default:
	}
	select {
	case j, more := <-s.known:
		if more {
			return j
		}
		return <-s.others
	case j, more := <-s.others:
		if more {
			return j
		}
		return <-s.known
	}
}

// Run serves the sockets until ctx ends or one of them fails, and closes them. Questions in flight are answered. It may be called
// once.
func (s *Server) Run(ctx context.Context, sockets Sockets) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var front, workers sync.WaitGroup
	failed := make(chan error, 1)
	run := func(work func() error) {
		front.Go(func() {
			if err := work(); err != nil && ctx.Err() == nil {
				select {
				case failed <- err:
				default:
				}
				cancel()
			}
		})
	}
	for range runtime.GOMAXPROCS(0) {
		workers.Go(s.work)
	}
	run(func() error { return s.maintain(ctx) })
	run(func() error { return s.notify(ctx) })
	for _, conn := range sockets.UDP {
		run(func() error { return s.serveUDP(ctx, conn) })
	}
	for _, work := range s.streamWorks(ctx, sockets) {
		run(work)
	}
	<-ctx.Done()
	front.Wait()
	close(s.known)
	close(s.others)
	workers.Wait()
	select {
	case err := <-failed:
		return err
	default:
		return ctx.Err()
	}
}

// checkInterval is how often the server looks whether signatures are to be renewed, and whether keys that it lacks have come.
const checkInterval = 5 * time.Second

// maxAnticipated bounds how many answers of several choices are made ahead for one index; others are made when they are asked for.
const maxAnticipated = 1 << 16

// maintain makes answers ahead of the questions whenever what they are made of has changed, and renews signatures.
func (s *Server) maintain(ctx context.Context) error {
	check := time.NewTicker(checkInterval)
	defer check.Stop()
	for {
		select {
		case <-s.renewed:
			s.anticipate(ctx)
		case <-check.C:
			s.check()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// anticipate makes the answers that are likely to be asked for, until the index is replaced: all that do not depend on the client, and
// of those that do, what zero or one lost PoP can give, first the answers of one PoP.
func (s *Server) anticipate(ctx context.Context) {
	sv := s.serving.Load()
	if sv.index == nil {
		return
	}
	now := s.now()
	over := func() bool { return ctx.Err() != nil || s.serving.Load().index != sv.index }
	for _, several := range []bool{false, true} {
		for _, n := range sv.index.quick {
			if over() {
				return
			}
			if err := sv.anticipate(n, several, now, over); err != nil {
				s.common.failures.Add(1)
				s.config.Log.Error("an answer cannot be made ahead", "name", n.name, "error", err)
			}
			runtime.Gosched()
		}
	}
	if over() {
		return
	}
	for _, z := range sv.index.zones {
		if z.signer != nil {
			z.signer.Settle()
		}
	}
	s.firstPrepared.Do(func() { close(s.prepared) })
}

// maxHeadStart bounds for how long a new index is held back. Verdicts wait meanwhile.
const maxHeadStart = 100 * time.Millisecond

// headStart makes the answers of services that are likely to be asked for before the index is served, in place of one that has them: at
// full speed, the full path's queue would not hold the questions that come until they are made.
func (sv *serving) headStart(now time.Time) {
	began := time.Now()
	over := func() bool { return time.Since(began) > maxHeadStart }
	for _, several := range []bool{false, true} {
		for _, n := range sv.index.quick {
			if n.service == nil {
				continue
			}
			if over() || sv.anticipate(n, several, now, over) != nil {
				return // a failure happens again behind, and is told then
			}
		}
	}
}

// anticipate makes the answers of a name, until it is over: those of several PoPs, or all others.
func (sv *serving) anticipate(n *node, several bool, now time.Time, over func() bool) error {
	for _, t := range n.all() {
		for _, do := range []bool{false, true} {
			if t.kind == static && !several {
				if err := sv.learn(n, t, nil, do, now); err != nil {
					return err
				}
			}
			if t.kind != steered {
				continue
			}
			for choices := range sv.view.Table.Foreseen(n.service.id, t.family) {
				if several != (len(choices) > 1) {
					continue
				}
				if over() || several && sv.index.answers.tuples.len() >= maxAnticipated {
					return nil
				}
				if err := sv.learn(n, t, choices, do, now); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// all lists what the name answers, by type.
func (n *node) all() []typed {
	all := append([]typed{n.none}, n.typed[:]...)
	for _, t := range n.other {
		all = append(all, t)
	}
	return all
}
