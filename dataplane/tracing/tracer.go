package tracing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/isochrone/isochrone/internal/tokenbucket"
)

// flushTimeout bounds how long Close waits for the collector.
const flushTimeout = time.Second

// Options are how a Tracer samples.
type Options struct {
	Sample      float64 // share of the requests that come without a sampled traceparent, 0..1; 0 records none of them
	AskedPerSec float64 // requests a second that are recorded since their clients have asked for it; default 10
	Service     string  // service.name, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES says another; default isochrone-pop
	Version     string  // service.version; may be empty
}

// Tracer decides what is recorded, and sends it. Nil records nothing. It may be used concurrently.
type Tracer struct {
	threshold uint64 // of 2^63 numbers, those below are sampled
	asked     *tokenbucket.Bucket
	provider  *sdktrace.TracerProvider
	tracer    trace.Tracer
}

// Enabled reports whether the environment names a collector for traces, and does not turn tracing off (OpenTelemetry Environment Variable
// Specification: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_EXPORTER, OTEL_SDK_DISABLED).
func Enabled() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" ||
		os.Getenv("OTEL_TRACES_EXPORTER") == "otlp"
}

// Open returns a Tracer that sends to the collector of the environment, or nil if that names none. An error means that a setting is wrong;
// a collector that is away costs only what would have been recorded.
func Open(ctx context.Context, o Options) (*Tracer, error) {
	if !Enabled() {
		return nil, nil
	}
	if !(o.Sample >= 0 && o.Sample <= 1) {
		return nil, fmt.Errorf("the share of requests that are traced is %v, which is not in 0..1", o.Sample)
	}
	protocol := cmp.Or(os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"), os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL"), "http/protobuf")
	if protocol != "http/protobuf" {
		return nil, fmt.Errorf("traces are sent by http/protobuf (port 4318 of most collectors), not by OTEL_EXPORTER_OTLP_PROTOCOL %q", protocol)
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	described, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", cmp.Or(o.Service, "isochrone-pop")), attribute.String("service.version", o.Version)),
		resource.WithHost(), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, errors.Join(fmt.Errorf("describe this process for traces: %w", err), exporter.Shutdown(ctx))
	}
	t := &Tracer{
		threshold: uint64(o.Sample * math.MaxInt64), asked: tokenbucket.New(cmp.Or(o.AskedPerSec, 10), 10),
		provider: sdktrace.NewTracerProvider( // what a full queue cannot take is dropped: nobody waits
			sdktrace.WithBatcher(exporter), sdktrace.WithResource(described), sdktrace.WithSampler(sdktrace.AlwaysSample())),
	}
	t.tracer = t.provider.Tracer("github.com/isochrone/isochrone/dataplane")
	return t, nil
}

// Close sends what is recorded, for a second at most, and ends the Tracer.
func (t *Tracer) Close() error {
	if t == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	return t.provider.Shutdown(ctx)
}

// Span is a part of a trace, or nothing: the zero Span. It is used by one goroutine at a time.
type Span struct {
	tracer *Tracer // nil if the span is not recorded
	span   trace.Span
	passed string // the traceparent to pass on, if it is not recorded
}

// Start begins the span of a request that came with a traceparent, or with none. A client that has sampled its own trace has it recorded,
// up to Options.AskedPerSec requests a second; of all others a random share is.
func (t *Tracer) Start(traceparent string, at time.Time) Span {
	var parent Traceparent
	known := false
	if traceparent != "" {
		if parent, known = Parse(traceparent); !known {
			traceparent = "" // as if it were not there
		}
	}
	switch {
	case t == nil:
		return Span{passed: traceparent}
	case parent.Sampled && t.asked.Take(at):
	case rand.Uint64()>>1 < t.threshold:
	case parent.Sampled: // one that asks too often is not recorded by the next either
		parent.Sampled = false
		return Span{passed: parent.String()}
	default:
		return Span{passed: traceparent}
	}
	ctx := context.Background()
	if known {
		ctx = parent.context()
	}
	_, span := t.tracer.Start(ctx, "intake", trace.WithSpanKind(trace.SpanKindServer), trace.WithTimestamp(at))
	return Span{tracer: t, span: span}
}

// Forward begins the span of an attempt to forward an envelope, by the traceparent that it has.
func (t *Tracer) Forward(traceparent string, at time.Time) Span {
	if t == nil || traceparent == "" {
		return Span{passed: traceparent}
	}
	parent, ok := Parse(traceparent)
	if !ok || !parent.Sampled {
		return Span{passed: traceparent}
	}
	_, span := t.tracer.Start(parent.context(), "forward", trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(at))
	return Span{tracer: t, span: span}
}

// context returns a context with the span that the traceparent names.
func (t Traceparent) context() context.Context {
	config := trace.SpanContextConfig{TraceID: t.TraceID, SpanID: t.Parent, Remote: true}
	if t.Sampled {
		config.TraceFlags = trace.FlagsSampled
	}
	return trace.ContextWithSpanContext(context.Background(), trace.NewSpanContext(config))
}

// Sampled reports whether the span is recorded.
func (s Span) Sampled() bool { return s.tracer != nil }

// TraceID returns 32 hexadecimal digits, or nothing if the span is not recorded.
func (s Span) TraceID() string {
	if s.tracer == nil {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// Traceparent returns what an envelope keeps: of a span that is recorded its own, else what the client sent if that was right, else nothing.
func (s Span) Traceparent() string {
	if s.tracer == nil {
		return s.passed
	}
	return s.own().String()
}

// AppendTraceparent appends the header field for the request that the span is about: a span that is recorded is its parent, and one that
// is not passes the trace on, or begins one (see AppendChild).
func (s Span) AppendTraceparent(dst []byte) []byte {
	if s.tracer == nil {
		return AppendChild(dst, s.passed)
	}
	return s.own().Append(dst)
}

func (s Span) own() Traceparent {
	is := s.span.SpanContext()
	return Traceparent{TraceID: is.TraceID(), Parent: is.SpanID(), Sampled: true}
}

// Phase records a part of the span, such as "quota", "body" or "spool", which is over. Parts that took no time are left out.
func (s Span) Phase(name string, from, to time.Time) {
	if s.tracer == nil || !to.After(from) {
		return
	}
	_, part := s.tracer.tracer.Start(trace.ContextWithSpan(context.Background(), s.span), name, trace.WithTimestamp(from))
	part.End(trace.WithTimestamp(to))
}

// Request is what the span of an intake says at its end. Empty fields are left out. It holds no secrets: never a key, only its id.
type Request struct {
	PoP, Service, ID, KeyID string
	Protocol                string // h3, h2 or http/1.1
	Status                  int
	Bytes                   int64
	Detail                  string // of a refusal
}

// End ends the span of an intake. It is an error when it is the PoP's fault, as OpenTelemetry's conventions for HTTP have it.
func (s Span) End(r Request) {
	if s.tracer == nil {
		return
	}
	s.span.SetAttributes(texts(
		"isochrone.pop", r.PoP, "isochrone.service", r.Service, "isochrone.request_id", r.ID, "isochrone.key_id", r.KeyID,
		"network.protocol.version", strings.TrimLeft(r.Protocol, "htp/"), "isochrone.detail", r.Detail)...)
	s.span.SetAttributes(attribute.Int("http.response.status_code", r.Status), attribute.Int64("http.request.body.size", r.Bytes))
	if r.Status >= 500 {
		s.span.SetStatus(codes.Error, r.Detail)
	}
	s.span.End()
}

// Attempt is what the span of an attempt to forward says at its end.
type Attempt struct {
	Cluster, Endpoint, ID string
	Status                int    // of the cluster's answer; 0 for none
	Result                string // such as acknowledged, duplicate, refused, retry
	Number                int    // of attempts before this one
}

// EndAttempt ends the span of an attempt to forward. Failed says that the cluster has not taken the envelope.
func (s Span) EndAttempt(a Attempt, failed error) {
	if s.tracer == nil {
		return
	}
	s.span.SetAttributes(texts("isochrone.cluster", a.Cluster, "server.address", a.Endpoint, "isochrone.request_id", a.ID, "isochrone.result", a.Result)...)
	if a.Status != 0 {
		s.span.SetAttributes(attribute.Int("http.response.status_code", a.Status))
	}
	if a.Number > 0 {
		s.span.SetAttributes(attribute.Int("http.request.resend_count", a.Number))
	}
	if failed != nil {
		s.span.SetStatus(codes.Error, failed.Error())
	}
	s.span.End()
}

// texts makes attributes of names and values; empty values are left out.
func texts(pairs ...string) []attribute.KeyValue {
	all := make([]attribute.KeyValue, 0, len(pairs)/2)
	for pair := range slices.Chunk(pairs, 2) {
		if pair[1] != "" {
			all = append(all, attribute.String(pair[0], strings.ToValidUTF8(pair[1], "\uFFFD")))
		}
	}
	return all
}
