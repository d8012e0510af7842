package tracing_test

import (
	"fmt"
	"time"

	"github.com/isochrone/isochrone/dataplane/tracing"
)

// One request and its envelope, with tracing off: what the client said of its trace goes to the cluster all the same.
func Example() {
	var tracer *tracing.Tracer // of tracing.Open; nil is off
	fromClient := "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

	began := time.Now()
	span := tracer.Start(fromClient, began)
	span.Phase("spool", began, time.Now())
	kept := span.Traceparent() // Envelope.Traceparent
	span.End(tracing.Request{PoP: "sin1", Status: 202})

	attempt := tracer.Forward(kept, time.Now())
	header := attempt.AppendTraceparent(nil)
	attempt.EndAttempt(tracing.Attempt{Cluster: "ap", Status: 202, Result: "acknowledged"}, nil)
	fmt.Printf("%.36s…\n", header)
	// Output: 00-4bf92f3577b34da6a3ce929d0e0e4736-…
}
