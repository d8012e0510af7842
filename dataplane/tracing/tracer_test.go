package tracing

import (
	"compress/gzip"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	otlp "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is an OTLP collector: it keeps the spans that it is sent.
type receiver struct {
	*httptest.Server
	mu      sync.Mutex
	spans   []*otlp.Span
	service []string
	wrong   []string
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	reader := io.Reader(request.Body)
	if request.Header.Get("Content-Encoding") == "gzip" {
		reader, _ = gzip.NewReader(reader)
	}
	body, err := io.ReadAll(reader)
	var message collector.ExportTraceServiceRequest
	if err == nil {
		err = proto.Unmarshal(body, &message)
	}
	if err != nil || request.URL.Path != "/v1/traces" || request.Header.Get("Content-Type") != "application/x-protobuf" {
		r.wrong = append(r.wrong, request.URL.Path+": "+request.Header.Get("Content-Type"))
	}
	for _, of := range message.ResourceSpans {
		for _, a := range of.Resource.Attributes {
			if a.Key == "service.name" {
				r.service = append(r.service, a.Value.GetStringValue())
			}
		}
		for _, scope := range of.ScopeSpans {
			r.spans = append(r.spans, scope.Spans...)
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func attributes(s *otlp.Span) string {
	var all []string
	for _, a := range s.Attributes {
		value := a.Value.GetStringValue()
		if value == "" {
			value = time.Duration(a.Value.GetIntValue()).String()
		}
		all = append(all, a.Key+"="+strings.TrimSuffix(value, "ns"))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

// TestATraceOverTheSpool follows one request through the intake, two attempts to forward, and to a collector.
func TestATraceOverTheSpool(t *testing.T) {
	r := newReceiver(t)
	tracer, err := Open(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	span := tracer.Start(example, now)
	if !span.Sampled() || span.TraceID() != example[3:35] {
		t.Fatalf("the client's trace is not recorded: %q", span.TraceID())
	}
	span.Phase("quota", now, now)
	span.Phase("spool", now.Add(time.Millisecond), now.Add(3*time.Millisecond))
	kept := span.Traceparent()
	span.End(Request{PoP: "sin1", Service: "intake.isochrone.test", ID: "sin1.x", KeyID: "abcdefgh", Protocol: "h3", Status: 202, Bytes: 10})
	first := tracer.Forward(kept, now)
	header := string(first.AppendTraceparent(nil))
	first.EndAttempt(Attempt{Cluster: "ap", ID: "sin1.x", Status: 503, Result: "retry"}, errors.New("503 Service Unavailable"))
	tracer.Forward(kept, now).EndAttempt(Attempt{Cluster: "eu", ID: "sin1.x", Status: 202, Result: "acknowledged", Number: 1}, nil)
	refused := tracer.Start(strings.Replace(example, "4b", "4c", 1), now)
	refused.End(Request{PoP: "sin1", Status: 503, Detail: "this PoP's queue is full"})

	began := time.Now()
	if err := tracer.Close(); err != nil || time.Since(began) > flushTimeout {
		t.Errorf("closed after %v: %v", time.Since(began), err)
	}
	byName := map[string][]*otlp.Span{}
	for _, s := range r.spans {
		byName[s.Name] = append(byName[s.Name], s)
	}
	if len(r.spans) != 5 || len(byName["intake"]) != 2 || len(byName["spool"]) != 1 || len(byName["forward"]) != 2 || r.wrong != nil ||
		r.service[0] != "isochrone-pop" {
		t.Fatalf("got %v of %v, wrong are %v", r.spans, r.service, r.wrong)
	}
	intake, spool, retried, taken := byName["intake"][0], byName["spool"][0], byName["forward"][0], byName["forward"][1]
	for name, test := range map[string]struct{ got, want string }{
		"parent of the intake":  {hexOf(intake.ParentSpanId), example[36:52]},
		"parent of the spool":   {hexOf(spool.ParentSpanId), hexOf(intake.SpanId)},
		"parent of the attempt": {hexOf(retried.ParentSpanId), hexOf(intake.SpanId)},
		"parent of the second":  {hexOf(taken.ParentSpanId), hexOf(intake.SpanId)},
		"trace of the second":   {hexOf(taken.TraceId), example[3:35]},
		"what the cluster gets": {header, "00-" + example[3:35] + "-" + hexOf(retried.SpanId) + "-01"},
		"the intake": {attributes(intake), "http.request.body.size=10 http.response.status_code=202 isochrone.key_id=abcdefgh isochrone.pop=sin1 " +
			"isochrone.request_id=sin1.x isochrone.service=intake.isochrone.test network.protocol.version=3"},
		"the attempt": {attributes(retried) + " " + retried.Status.Message, "http.response.status_code=503 isochrone.cluster=ap " +
			"isochrone.request_id=sin1.x isochrone.result=retry 503 Service Unavailable"},
		"the second": {attributes(taken), "http.request.resend_count=1 http.response.status_code=202 isochrone.cluster=eu " +
			"isochrone.request_id=sin1.x isochrone.result=acknowledged"},
		"the refused one":  {byName["intake"][1].Status.Code.String(), "STATUS_CODE_ERROR"},
		"the spool's time": {time.Duration(spool.EndTimeUnixNano - spool.StartTimeUnixNano).String(), "2ms"},
	} {
		if test.got != test.want {
			t.Errorf("%s: got %s, want %s", name, test.got, test.want)
		}
	}
}

func hexOf(id []byte) string {
	const digits = "0123456789abcdef"
	var text []byte
	for _, b := range id {
		text = append(text, digits[b>>4], digits[b&15])
	}
	return string(text)
}

// TestSampling holds the shares, and that clients cannot have more recorded than is allowed.
func TestSampling(t *testing.T) {
	newReceiver(t)
	tracer, err := Open(t.Context(), Options{Sample: 0.25, AskedPerSec: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer tracer.Close()
	sampled, now := 0, time.Now()
	for range 10_000 {
		if tracer.Start("", now).Sampled() {
			sampled++
		}
	}
	if sampled < 2_250 || sampled > 2_750 { // six standard deviations are 260
		t.Errorf("%d of 10000 are sampled", sampled)
	}
	tracer.threshold = 0
	sampled = 0
	for range 1000 {
		span := tracer.Start(example, now)
		if span.Sampled() {
			sampled++
		} else if got := span.Traceparent(); got != strings.TrimSuffix(example, "1")+"0" {
			t.Fatalf("what is not recorded is passed on as %s", got)
		}
	}
	if sampled != 10 {
		t.Errorf("%d of 1000 at once that ask for it are sampled, want 10", sampled)
	}
	if !tracer.Start(example, now.Add(time.Second)).Sampled() {
		t.Error("none is sampled a second later")
	}
	unsampled := strings.TrimSuffix(example, "1") + "0"
	if got := tracer.Start(unsampled, now).Traceparent(); got != unsampled {
		t.Errorf("got %s", got)
	}
	if got := tracer.Start("wrong", now).Traceparent(); got != "" {
		t.Errorf("got %s of what is no traceparent", got)
	}
}

// TestNothingIsAllocated holds that what is not sampled costs next to nothing.
func TestNothingIsAllocated(t *testing.T) {
	newReceiver(t)
	tracer, err := Open(t.Context(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer tracer.Close()
	buffer, now := make([]byte, 0, 64), time.Now()
	for name, of := range map[string]*Tracer{"off": nil, "on": tracer} {
		for _, header := range []string{"", strings.TrimSuffix(example, "1") + "0", "wrong"} {
			if n := testing.AllocsPerRun(100, func() { whole(of, header, buffer, now) }); n != 0 {
				t.Errorf("%s, %q: %v allocations", name, header, n)
			}
		}
	}
}

func whole(tracer *Tracer, header string, buffer []byte, now time.Time) {
	span := tracer.Start(header, now)
	span.Phase("spool", now, now.Add(1))
	kept := span.Traceparent()
	span.End(Request{PoP: "sin1", Status: 202})
	attempt := tracer.Forward(kept, now)
	attempt.AppendTraceparent(buffer)
	attempt.EndAttempt(Attempt{Cluster: "ap"}, nil)
}

func BenchmarkNotSampled(b *testing.B) {
	b.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
	tracer, err := Open(b.Context(), Options{Sample: 1e-9})
	if err != nil {
		b.Fatal(err)
	}
	defer tracer.Close()
	b.ReportAllocs()
	buffer, now := make([]byte, 0, 64), time.Now()
	for b.Loop() {
		whole(tracer, "", buffer, now)
	}
}

func TestEnvironment(t *testing.T) {
	for _, test := range []struct {
		name string
		env  map[string]string
		on   bool
		err  string
	}{
		{"nothing", nil, false, ""},
		{"an endpoint", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}, true, ""},
		{"an endpoint for traces", map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces"}, true, ""},
		{"off", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"}, false, ""},
		{"gRPC", map[string]string{"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, "http/protobuf"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.env {
				t.Setenv(name, value)
			}
			tracer, err := Open(t.Context(), Options{})
			if tracer != nil {
				defer tracer.Close()
			}
			if (tracer != nil) != test.on || (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
				t.Errorf("got %v, %v", tracer, err)
			}
		})
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
	for _, share := range []float64{-0.1, 1.1} {
		if _, err := Open(t.Context(), Options{Sample: share}); err == nil {
			t.Errorf("a share of %v is taken", share)
		}
	}
}

// TestACollectorThatIsAway ends in time.
func TestACollectorThatIsAway(t *testing.T) {
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hang }))
	defer server.Close()
	defer close(hang)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.URL)
	tracer, err := Open(t.Context(), Options{Sample: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range 5000 { // more than is queued
		tracer.Start("", time.Now()).End(Request{Status: 202})
	}
	began := time.Now()
	if err := tracer.Close(); err == nil || time.Since(began) > flushTimeout+500*time.Millisecond {
		t.Errorf("closed after %v: %v", time.Since(began), err)
	}
}
