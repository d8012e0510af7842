// Package tracing records sampled requests as OpenTelemetry traces: the intake, what it waits for, and each attempt to forward the envelope,
// minutes or a restart later. It is sent by OTLP over HTTP to the collector that the environment names (OTEL_EXPORTER_OTLP_ENDPOINT).
//
// A trace is tied together over the spool by the W3C traceparent that an envelope has. What is not sampled costs nothing: all methods work
// on a nil Tracer and on the zero Span, and allocate only for what is recorded.
//
//	span := tracer.Start(r.Header.Get("traceparent"), time.Now())
//	…
//	span.Phase("spool", began, time.Now())
//	envelope.Traceparent = span.Traceparent()
//	span.End(tracing.Request{PoP: "sin1", Status: 202, ID: envelope.ID})
//
//	span := tracer.Forward(envelope.Traceparent, time.Now()) // in the forwarder
//	header = span.AppendTraceparent(header)
//	span.EndAttempt(tracing.Attempt{Cluster: "ap", Status: 202, Result: "acknowledged"})
package tracing
