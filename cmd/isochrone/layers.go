package main

import (
	"context"
	"errors"
	"fmt"
)

// layers are components that stand on each other: those of a later layer may use those of an earlier one. They stop in the
// reverse order, each layer when all above it have ended, so that nothing loses what it stands on while it still works.
type layers struct {
	all    []*layer
	failed chan error // the first error of a component that ended by itself
}

type layer struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running []chan error
	failed  chan<- error
}

func newLayers() *layers { return &layers{failed: make(chan error, 1)} }

// add begins a new layer above the others.
func (l *layers) add() *layer {
	ctx, cancel := context.WithCancel(context.Background())
	added := &layer{ctx: ctx, cancel: cancel, failed: l.failed}
	l.all = append(l.all, added)
	return added
}

// run starts a component, which works until its context ends.
func (y *layer) run(name string, work func(context.Context) error) {
	done := make(chan error, 1)
	y.running = append(y.running, done)
	go func() {
		err := work(y.ctx)
		if y.ctx.Err() != nil && errors.Is(err, y.ctx.Err()) {
			err = nil
		}
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
		} else if y.ctx.Err() == nil {
			err = fmt.Errorf("%s: ended by itself", name)
		}
		if err != nil {
			select {
			case y.failed <- err:
			default:
			}
		}
		done <- err
	}()
}

// stop ends all layers, the latest first, and returns the errors of their components.
func (l *layers) stop() error {
	var failures []error
	for i := len(l.all) - 1; i >= 0; i-- {
		l.all[i].cancel()
		for _, done := range l.all[i].running {
			failures = append(failures, <-done)
		}
	}
	return errors.Join(failures...)
}
