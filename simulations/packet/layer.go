package packet

import (
	"context"
	"errors"
	"sync"
)

// layer is some of what runs; it ends as a whole.
type layer struct {
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	mu      sync.Mutex
	errs    []error
}

func newLayer() *layer {
	l := &layer{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

func (l *layer) run(work func(context.Context) error) {
	l.running.Go(func() {
		if err := work(l.ctx); err != nil {
			l.mu.Lock()
			l.errs = append(l.errs, err)
			l.mu.Unlock()
		}
	})
}

// end ends all and waits for it.
func (l *layer) end() error {
	l.cancel()
	l.running.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.errs...)
}
