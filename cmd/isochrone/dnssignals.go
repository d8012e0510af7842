package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/isochrone/isochrone/internal/certfile"
	"github.com/isochrone/isochrone/internal/systemd"
)

// signals are those that a DNS node goes on after.
type signals struct{ reload, upgrade chan os.Signal }

func watchSignals() *signals {
	s := &signals{make(chan os.Signal, 1), make(chan os.Signal, 1)}
	signal.Notify(s.reload, syscall.SIGHUP)
	signal.Notify(s.upgrade, syscall.SIGUSR2)
	return s
}

func (s *signals) stop() {
	signal.Stop(s.reload)
	signal.Stop(s.upgrade)
}

// prepareTimeout bounds how long a successor makes answers before it takes over; those that are missing then are made when they are
// asked for.
const prepareTimeout = 10 * time.Second

// serve does what signals say until ctx ends, a part fails, or a successor has taken over.
func (d *dnsNode) serve(ctx context.Context, s *signals) error {
	var (
		first    = d.node.first
		prepared <-chan struct{}
		late     <-chan time.Time
	)
	upgrading, cancel := context.WithCancel(ctx)
	var upgraded chan error // of an upgrade that is under way
	defer func() {
		if cancel(); upgraded != nil {
			<-upgraded
		}
	}()
	for {
		select {
		case <-first:
			first, prepared, late = nil, d.server.Prepared(), time.After(prepareTimeout)
		case <-prepared:
			prepared, late = nil, nil
			d.tellPredecessor()
		case <-late:
			prepared, late = nil, nil
			d.tellPredecessor()
		case <-s.reload:
			d.reload(ctx)
		case <-s.upgrade:
			if upgraded != nil {
				d.log.Warn("an upgrade is under way already")
				continue
			}
			upgraded = make(chan error, 1)
			go func() { upgraded <- d.upgrade(upgrading) }()
		case err := <-upgraded:
			upgraded = nil
			if d.succeeded = err == nil; d.succeeded {
				if d.bgp != nil {
					d.bgp.hurry()
				}
				d.log.Info("the successor serves: this process ends when what is in flight is answered")
				return nil
			}
			d.log.Error("the upgrade has failed, this process goes on", "error", err)
		case err := <-d.layers.failed:
			return err
		case <-ctx.Done():
			systemd.Notify("STOPPING=1")
			return nil
		}
	}
}

// reloads remembers how the last reload went. It is safe for concurrent use.
type reloads struct {
	mu     sync.Mutex
	at     time.Time // of the last good one, or of the start
	failed error     // why the last one was refused, or nil
}

func (r *reloads) note(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.failed = err; err == nil {
		r.at = time.Now()
	}
}

func (r *reloads) last() (at time.Time, failed error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at, r.failed
}

// reload reads flags and files again. All that can be changed is changed, or nothing when there is a fault.
func (d *dnsNode) reload(ctx context.Context) {
	systemd.Reloading()
	defer systemd.Notify("READY=1")
	err := d.reloadAll(ctx)
	d.reloads.note(err)
	if err == nil {
		d.log.Info("configuration read again")
		return
	}
	for fault := range strings.SplitSeq(err.Error(), "\n") {
		d.log.Error("the configuration has a fault, all stays as it is", "fault", fault)
	}
}

func (d *dnsNode) reloadAll(ctx context.Context) error {
	next, err := d.start.again(d.given)
	if err != nil {
		return err
	}
	settings, err := next.settings.load()
	var cert *certfile.File
	if next.cert != "" {
		opened, certErr := certfile.Open(next.cert, next.certKey)
		if cert = opened; certErr != nil {
			err = errors.Join(err, fmt.Errorf("cert: %w", certErr))
		}
	}
	var placed *placing
	if next.sources != d.flags.Load().sources {
		p, placeErr := next.sources.load()
		placed, err = p, errors.Join(err, placeErr)
	}
	if err = errors.Join(err, d.bgp.reload(next)); err != nil {
		return err
	}
	if placed != nil {
		if err := d.sources.reopen(ctx, next.sources, placed); err != nil {
			return err
		}
	}
	if cert != nil {
		d.serveCert(cert)
	}
	d.node.secrets.reread()
	d.configure(&settings)
	d.use(next)
	if names := d.start.needRestart(next); len(names) > 0 {
		d.log.Warn("some flags have changed that a running process cannot take: SIGUSR2 or a restart can", "flags", strings.Join(names, ", "))
	}
	return nil
}
