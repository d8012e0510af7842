// Package leader elects one of several control planes, for the tasks of which there must not be many: what they do is safe when two
// do it for a moment, but of no use twice.
//
//	err := leader.Run(ctx, leader.Candidate{Client: client, Prefix: "/isochrone/", Name: "control-1", Log: log},
//		leader.Task{Name: "record outside edits", Run: store.RecordOutside})
//
// It elects through etcd. It does not know what the tasks do.
package leader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A process that dies is followed by another once its lease has run out: after lifetime, and at most half a second until etcd looks,
// so within 5 s. Shorter is not safer: a leader that is held up for so long by a slow disk would lose its tasks to another for nothing.
const (
	lifetime    = 3 * time.Second
	renewal     = lifetime / 3
	requestTime = time.Second // of one request while a lease runs
	lastWord    = time.Second // for the resignation at the end
)

// The pauses between attempts, of an election and of a task, grow from the first to the last.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 5 * time.Second
)

// electionKey is where candidates stand, each with its lease's id; the oldest leads.
const electionKey = "leader/election/"

// Candidate is a process that stands for election.
type Candidate struct {
	Client *clientv3.Client
	Prefix string       // below which everything stands in etcd, such as /isochrone/
	Name   string       // by which others know it
	Log    *slog.Logger // nil: nothing is told
}

// Task is what the leader does. Run works until ctx ends; when it returns before, it is run again after a pause, and its error is told.
type Task struct {
	Name string
	Run  func(ctx context.Context) error
}

// Every returns a task that does something at once, and again after each interval.
func Every(interval time.Duration, name string, do func(context.Context) error) Task {
	return Task{name, func(ctx context.Context) error {
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			if err := do(ctx); err != nil {
				return err
			}
			select {
			case <-ticker.C:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}}
}

// Run stands for election until ctx ends, whose error it returns, and runs the tasks while it leads. They have ended when leadership
// is given on: at the end it resigns, so that another leads at once. When it is lost, such as with etcd, their contexts end before
// the lease has run out; it outlives that, and stands again.
func Run(ctx context.Context, c Candidate, tasks ...Task) error {
	c.Prefix = strings.TrimSuffix(c.Prefix, "/") + "/"
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		led, err := c.term(ctx, tasks)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if led {
			pause = firstPause
			c.Log.Warn("this control plane no longer leads, and stands for election again", "error", err)
		} else {
			c.Log.Debug("this control plane could not stand for election, and tries again", "error", err)
		}
		if !wait(ctx, pause/2+rand.N(pause/2)) {
			return ctx.Err()
		}
	}
}

// term stands for election and leads, until ctx ends or the lease is lost. It reports whether it ever led.
func (c *Candidate) term(ctx context.Context, tasks []Task) (led bool, err error) {
	asking, cancel := context.WithTimeout(ctx, requestTime)
	granted := time.Now()
	lease, err := c.Client.Grant(asking, int64(lifetime/time.Second))
	cancel()
	if err != nil {
		return false, fmt.Errorf("ask for a lease: %w", err)
	}
	key := fmt.Sprintf("%s%s%x", c.Prefix, electionKey, lease.ID)
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
		defer cancel()
		_, _ = c.Client.Revoke(last, lease.ID) // else it ends by itself
	}()
	ctx, lose := context.WithCancelCause(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer lose(nil)
	running.Go(func() { lose(c.keep(ctx, lease.ID, granted)) })

	stood, err := c.Client.Put(ctx, key, c.Name, clientv3.WithLease(lease.ID))
	if err != nil {
		return false, fmt.Errorf("stand for election: %w", err)
	}
	if err := c.await(ctx, stood.Header.Revision); err != nil {
		return false, cause(ctx, err)
	}
	c.Log.Info("this control plane leads", "name", c.Name)
	leading := context.WithValue(ctx, termKey{}, clientv3.Compare(clientv3.CreateRevision(key), "=", stood.Header.Revision))
	for _, task := range tasks {
		running.Go(func() { c.repeat(leading, task) })
	}
	running.Go(func() { lose(c.gone(ctx, key, stood.Header.Revision)) })
	<-ctx.Done()
	return true, cause(ctx, ctx.Err())
}

// cause returns why a term ended, or else the error.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil {
		return why
	}
	return err
}

// keep renews a lease until ctx ends. It returns an error when the lease may have run out: reckoned from when etcd was asked last with
// success, and with time to spare, so that etcd does not give it to another before this one knows.
func (c *Candidate) keep(ctx context.Context, lease clientv3.LeaseID, asked time.Time) error {
	for {
		if !wait(ctx, time.Until(asked.Add(renewal))) {
			return ctx.Err()
		}
		for begin := time.Now(); ; begin = time.Now() {
			left := asked.Add(lifetime - renewal/2).Sub(begin)
			if left <= 0 {
				return errors.New("the lease could not be renewed in time")
			}
			asking, cancel := context.WithTimeout(ctx, min(left, requestTime))
			renewed, err := c.Client.KeepAliveOnce(asking, lease)
			cancel()
			if err == nil && renewed.TTL > 0 {
				asked = begin
				break
			}
			if errors.Is(err, rpctypes.ErrLeaseNotFound) || err == nil {
				return errors.New("the lease is gone")
			}
			if !wait(ctx, firstPause) {
				return ctx.Err()
			}
		}
	}
}

// await returns when no candidate is older than a revision.
func (c *Candidate) await(ctx context.Context, revision int64) error {
	for {
		options := append(clientv3.WithLastCreate(), clientv3.WithMaxCreateRev(revision-1))
		before, err := c.Client.Get(ctx, c.Prefix+electionKey, options...)
		if err != nil {
			return fmt.Errorf("read the candidates: %w", err)
		}
		if len(before.Kvs) == 0 {
			return nil
		}
		if err := c.deleted(ctx, string(before.Kvs[0].Key), before.Header.Revision+1); err != nil {
			return err
		}
	}
}

// gone returns an error when the leader's own key is gone, whoever deleted it.
func (c *Candidate) gone(ctx context.Context, key string, stood int64) error {
	for {
		err := c.deleted(ctx, key, stood+1)
		if err == nil {
			return errors.New("its key in etcd is gone")
		}
		if ctx.Err() != nil {
			return err
		}
		// The watch has ended, by a compaction or with a connection: is the key still there?
		asking, cancel := context.WithTimeout(ctx, requestTime)
		now, readErr := c.Client.Get(asking, key)
		cancel()
		switch {
		case readErr == nil && len(now.Kvs) == 0:
			return errors.New("its key in etcd is gone")
		case readErr == nil:
			stood = now.Header.Revision
		}
		if !wait(ctx, firstPause) {
			return ctx.Err()
		}
	}
}

// deleted returns when a key is deleted at a revision or later.
func (c *Candidate) deleted(ctx context.Context, key string, from int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for response := range c.Client.Watch(ctx, key, clientv3.WithRev(from), clientv3.WithFilterPut()) {
		if err := response.Err(); err != nil {
			return fmt.Errorf("watch the candidates: %w", err)
		}
		if len(response.Events) > 0 {
			return nil
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New("watch the candidates: the watch has ended")
}

// repeat runs a task until ctx ends.
func (c *Candidate) repeat(ctx context.Context, task Task) {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := task.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		c.Log.Warn("a task of the leader has failed, and is tried again", "task", task.Name, "error", err)
		if !wait(ctx, pause) {
			return
		}
	}
}

// wait reports false when ctx ended before.
func wait(ctx context.Context, pause time.Duration) bool {
	select {
	case <-time.After(pause):
		return true
	case <-ctx.Done():
		return false
	}
}

// Leader returns the name of who leads, and the revision at which it stood for election; no name when nobody does.
func Leader(ctx context.Context, client *clientv3.Client, prefix string) (name string, since int64, err error) {
	prefix = strings.TrimSuffix(prefix, "/") + "/"
	first, err := client.Get(ctx, prefix+electionKey, clientv3.WithFirstCreate()...)
	if err != nil {
		return "", 0, fmt.Errorf("read who leads: %w", err)
	}
	if len(first.Kvs) == 0 {
		return "", 0, nil
	}
	return string(first.Kvs[0].Value), first.Kvs[0].CreateRevision, nil
}
