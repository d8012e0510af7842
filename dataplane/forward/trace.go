package forward

import (
	"errors"
	"net/http"
	"time"

	"github.com/isochrone/isochrone/dataplane/tracing"
)

// trace begins the span of an attempt, if the envelope's request is traced. The caller holds the mutex.
func (f *Forwarder) trace(j *job, now time.Time) {
	if f.config.Tracer == nil || j.item.Traceparent == "" {
		return
	}
	if j.span != nil { // a connection gave it back without a word
		j.span.EndAttempt(tracing.Attempt{ID: j.item.ID, Result: "retried"}, nil)
		j.span = nil
	}
	if span := f.config.Tracer.Forward(j.item.Traceparent, now); span.Sampled() {
		j.span = &span
	}
}

// traced ends the span of an attempt that had an answer, or none: status 0. The caller holds the mutex.
func (j *job) traced(e *endpoint, status int, failure string) {
	if j.span == nil {
		return
	}
	a := tracing.Attempt{
		Cluster: e.cluster.name, Endpoint: e.address, ID: j.item.ID, Status: status, Result: "retried", Number: j.item.Attempts + j.tries,
	}
	var err error
	switch {
	case status/100 == 2:
		a.Result = "acknowledged"
	case status == http.StatusConflict:
		a.Result = "duplicate"
	case status != 0 && !retryable(status):
		a.Result, err = "refused", errors.New("the cluster answered "+statusText(status))
	case status != 0:
		err = errors.New("the cluster answered " + statusText(status))
	default:
		err = errors.New(failure)
	}
	j.span.EndAttempt(a, err)
	j.span = nil
}

// parent makes the traceparent of a request to a cluster: of the span of the attempt, if there is one.
func (j *job) parent() (parent [55]byte, ok bool) {
	if j.span == nil {
		return parentOf(j.item.Traceparent)
	}
	j.span.AppendTraceparent(parent[:0])
	return parent, true
}
