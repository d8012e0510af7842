package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/isochrone/isochrone/dataplane/spool"
	"github.com/isochrone/isochrone/internal/devca"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/intaketest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const service = "svc.test"

// pop is a real HTTP/3 and HTTP/2 server that answers as a test wants, and notes what came.
type pop struct {
	*intaketest.Server
	answer func(w http.ResponseWriter, body string)

	mu   sync.Mutex
	came []arrival
}

type arrival struct{ key, body string }

func startPoP(t *testing.T, ca *devca.CA, answer func(w http.ResponseWriter, body string)) *pop {
	p := &pop{answer: answer}
	p.Server = intaketest.Serve(t, ca, service, p)
	return p
}

func (p *pop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // it was overtaken by another attempt
	}
	p.mu.Lock()
	p.came = append(p.came, arrival{r.Header.Get("Idempotency-Key"), string(body)})
	answer := p.answer
	p.mu.Unlock()
	answer(w, string(body))
}

// change has later requests answered otherwise.
func (p *pop) change(answer func(w http.ResponseWriter, body string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

func (p *pop) arrivals() []arrival {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]arrival(nil), p.came...)
}

func status(code int) func(http.ResponseWriter, string) {
	return func(w http.ResponseWriter, _ string) { w.WriteHeader(code) }
}

// running is an agent that runs, behind a real HTTP server.
type running struct {
	*Agent
	queue *spool.Spool
	url   string
	stop  func()
}

func startAgent(t *testing.T, ca *devca.CA, dir string, change func(*Config), pops ...*pop) *running {
	t.Helper()
	queue, err := spool.Open(dir, spool.Options{MaxBytes: 64 << 20, SegmentBytes: 1 << 20, Outcomes: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var records []string
	for i, p := range pops {
		records = append(records, intaketest.Record(service, i+1, p.Server))
	}
	resolver := &intakeclient.Resolver{Server: intaketest.DNS(t, records...).At}
	c := Config{Service: service, Key: "key", Queue: queue, Wait: 20 * time.Second, Sender: intakeclient.NewSender(intakeclient.SenderConfig{
		Service: service, Resolve: resolver.Lookup, Config: intakeclient.Config{Roots: ca.Pool()},
	})}
	if change != nil {
		change(&c)
	}
	a := New(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	server := httptest.NewServer(a)
	r := &running{Agent: a, queue: queue, url: server.URL, stop: sync.OnceFunc(func() {
		a.Hurry()
		server.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})}
	t.Cleanup(r.stop)
	return r
}

// post posts as a local program does, with fields of a header in pairs.
func (a *running) post(t *testing.T, body io.Reader, header ...string) (status int, answer string, fields http.Header) {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodPost, a.url, body)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		t.Errorf("post: %v", err)
		return 0, "", nil
	}
	defer response.Body.Close()
	text, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(text), response.Header
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// TestOthersGoOn has many more payloads than workers always answered 500: all others are accepted, at once.
func TestOthersGoOn(t *testing.T) {
	ca := intaketest.CA(t)
	p := startPoP(t, ca, func(w http.ResponseWriter, body string) {
		w.WriteHeader(map[bool]int{true: 500, false: 202}[strings.HasPrefix(body, "poison")])
	})
	a := startAgent(t, ca, t.TempDir(), nil, p)
	const poison = 5 * workers
	var programs sync.WaitGroup
	for i := range poison {
		programs.Go(func() {
			if code, answer, _ := a.post(t, strings.NewReader(fmt.Sprint("poison ", i))); code != 202 || !strings.Contains(answer, "queued") {
				t.Errorf("got %d: %s", code, answer)
			}
		})
	}
	eventually(t, "all of them to be tried", func() bool { return a.Agent.Stats().Retried >= poison })
	for i := range 40 {
		if code, answer, _ := a.post(t, strings.NewReader(fmt.Sprint("good ", i))); code != 202 || strings.Contains(answer, "queued") {
			t.Fatalf("got %d: %s", code, answer)
		}
	}
	tried := map[arrival]int{}
	for _, one := range p.arrivals() {
		tried[one]++
	}
	if len(tried) != poison+40 {
		t.Errorf("got %d different posts, want %d: each keeps its Idempotency-Key", len(tried), poison+40)
	}
	a.stop() // which tells the programs that wait
	programs.Wait()
}

// TestOutage has nothing get through for a while: the PoP is left alone as far as possible, and then gets all there is.
func TestOutage(t *testing.T) {
	ca := intaketest.CA(t)
	p := startPoP(t, ca, status(503))
	a := startAgent(t, ca, t.TempDir(), func(c *Config) { c.Wait = 0 }, p)
	const n = 300
	for i := range n {
		if code, answer, _ := a.post(t, strings.NewReader(fmt.Sprint(i))); code != 202 {
			t.Fatalf("got %d: %s", code, answer)
		}
	}
	eventually(t, "all of them to be tried", func() bool { return a.Agent.Stats().Retried >= n })
	p.change(status(202))
	eventually(t, "all of them to be accepted", func() bool { return a.Agent.Stats().Accepted == n })
	if got := len(p.arrivals()); got > 3*n {
		t.Errorf("%d posts for %d payloads", got, n)
	}
}

// TestQuotaIsWaitedFor has a key over its quota: nothing is tried until the PoP said that there is more.
func TestQuotaIsWaitedFor(t *testing.T) {
	ca := intaketest.CA(t)
	var mu sync.Mutex
	var until time.Time
	early := 0
	p := startPoP(t, ca, func(w http.ResponseWriter, _ string) {
		mu.Lock()
		defer mu.Unlock()
		switch now := time.Now(); {
		case until.IsZero():
			until = now.Add(2 * time.Second)
			fallthrough
		case now.Before(until):
			early++
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(429)
		default:
			w.WriteHeader(202)
		}
	})
	a := startAgent(t, ca, t.TempDir(), func(c *Config) { c.Wait = 0 }, p)
	const n = 10 * workers
	for i := range n {
		a.post(t, strings.NewReader(fmt.Sprint(i)))
	}
	eventually(t, "all of them to be accepted", func() bool { return a.Agent.Stats().Accepted == n })
	mu.Lock()
	defer mu.Unlock()
	if early > 2*workers { // by HTTP/2 beside HTTP/3, where that is slow
		t.Errorf("%d posts met a quota that was known to be used up, want at most one of each of %d workers over each transport", early, workers)
	}
}

// TestFailover has the first PoP die, then both, and the agent itself: nothing is lost, and each payload keeps its key.
func TestFailover(t *testing.T) {
	ca, dir := intaketest.CA(t), t.TempDir()
	first, second := startPoP(t, ca, status(202)), startPoP(t, ca, status(202))
	a := startAgent(t, ca, dir, nil, first, second)
	expect := func(body string, at ...*pop) {
		t.Helper()
		if code, answer, _ := a.post(t, strings.NewReader(body)); code != 202 || strings.Contains(answer, "queued") {
			t.Fatalf("got %d: %s", code, answer)
		}
		came := 0
		for _, p := range at {
			for _, one := range p.arrivals() {
				came += map[bool]int{true: 1}[one.body == body]
			}
		}
		if came == 0 {
			t.Errorf("%s did not come where it should have", body)
		}
	}
	expect("one", first, second) // the second if the first was slow
	first.Close()
	expect("two", second)
	second.Close()
	a.stop()
	a = startAgent(t, ca, dir, func(c *Config) { c.Wait = 0 }, first, second)
	if code, answer, _ := a.post(t, strings.NewReader("three"), "Idempotency-Key", "event 3"); code != 202 || !strings.Contains(answer, "queued") {
		t.Fatalf("got %d: %s", code, answer)
	}
	a.stop()
	third := startPoP(t, ca, status(202))
	a = startAgent(t, ca, dir, nil, third)
	eventually(t, "what was queued", func() bool { return len(third.arrivals()) == 1 })
	if got := third.arrivals()[0]; got != (arrival{"event 3", "three"}) {
		t.Errorf("got %+v", got)
	}
}

// TestEachItsAnswer has two programs post different payloads with one Idempotency-Key at the same time.
func TestEachItsAnswer(t *testing.T) {
	ca := intaketest.CA(t)
	var mu sync.Mutex
	here, both := map[string]bool{}, make(chan struct{})
	all := sync.OnceFunc(func() { close(both) })
	p := startPoP(t, ca, func(w http.ResponseWriter, body string) {
		mu.Lock()
		if here[body] = true; len(here) == 2 {
			all()
		}
		mu.Unlock()
		<-both
		w.WriteHeader(map[string]int{"one": 202, "two": 422}[body])
	})
	a := startAgent(t, ca, t.TempDir(), nil, p)
	var programs sync.WaitGroup
	for body, want := range map[string]int{"one": 202, "two": 422} {
		programs.Go(func() {
			if code, answer, _ := a.post(t, strings.NewReader(body), "Idempotency-Key", "k"); code != want || strings.Contains(answer, "queued") {
				t.Errorf("%s: got %d, want %d: %s", body, code, want, answer)
			}
		})
	}
	programs.Wait()
}

// TestRefusedBehindTheBack has a payload refused when no program waits: it is a dead letter, with the reason.
func TestRefusedBehindTheBack(t *testing.T) {
	ca, dir := intaketest.CA(t), t.TempDir()
	p := startPoP(t, ca, func(w http.ResponseWriter, _ string) {
		w.WriteHeader(400)
		_, _ = io.WriteString(w, "what is this?")
	})
	a := startAgent(t, ca, dir, func(c *Config) { c.Wait = 0 }, p)
	a.post(t, strings.NewReader("{}"))
	eventually(t, "a dead letter", func() bool { return a.queue.Stats().Dead == 1 })
	a.stop()
	contents, err := spool.Inspect(dir, nil)
	if err != nil || len(contents.Entries) != 1 || !strings.Contains(contents.Entries[0].Reason, "400: what is this?") {
		t.Errorf("got %+v, %v", contents, err)
	}
}

// TestBodiesAreBounded has programs that send slowly: what all send together is bounded, and over it the answer is 503.
func TestBodiesAreBounded(t *testing.T) {
	ca := intaketest.CA(t)
	p := startPoP(t, ca, status(202))
	a := startAgent(t, ca, t.TempDir(), func(c *Config) { c.MaxBodies = 1 << 20 }, p)
	code := func(body io.Reader) int {
		code, _, header := a.post(t, body)
		if got := header.Get("Retry-After"); (code == 503) != (got != "") {
			t.Errorf("%d has Retry-After %q", code, got)
		}
		return code
	}
	large := bytes.Repeat([]byte("x"), 1<<20)
	if got := code(struct{ io.Reader }{bytes.NewReader(large[:1<<19])}); got != 202 { // without Content-Length
		t.Errorf("half of it: got %d", got)
	}
	if got := code(struct{ io.Reader }{io.MultiReader(bytes.NewReader(large), strings.NewReader("x"))}); got != 503 {
		t.Errorf("more than all, in chunks: got %d", got)
	}
	if got := code(bytes.NewReader(make([]byte, maxBody+1))); got != 413 {
		t.Errorf("more than a body may have: got %d", got)
	}
	slow, send := io.Pipe()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, a.url, slow)
	if err != nil {
		t.Fatal(err)
	}
	request.ContentLength = 1 << 20
	request.Header.Set("Expect", "100-continue") // so that what is written below is read when the agent reads
	transport := &http.Transport{ExpectContinueTimeout: time.Minute}
	defer transport.CloseIdleConnections()
	done := make(chan int)
	go func() {
		response, err := transport.RoundTrip(request)
		if err != nil {
			t.Error(err)
			response = &http.Response{Body: http.NoBody}
		}
		response.Body.Close()
		done <- response.StatusCode
	}()
	if _, err := send.Write(large[:1]); err != nil {
		t.Fatal(err)
	}
	if got := code(strings.NewReader("{}")); got != 503 {
		t.Errorf("beside the slow one: got %d", got)
	}
	if _, err := send.Write(large[1:]); err != nil {
		t.Fatal(err)
	}
	send.Close()
	if got := <-done; got != 202 {
		t.Errorf("the slow one: got %d", got)
	}
	if got := code(bytes.NewReader(large)); got != 202 {
		t.Errorf("afterwards: got %d", got)
	}
}

// TestHurry has an agent end while a program waits for a PoP that does not answer.
func TestHurry(t *testing.T) {
	ca := intaketest.CA(t)
	hold, came := make(chan struct{}), make(chan struct{})
	first := sync.OnceFunc(func() { close(came) })
	p := startPoP(t, ca, func(http.ResponseWriter, string) { first(); <-hold })
	defer close(hold)
	a := startAgent(t, ca, t.TempDir(), func(c *Config) { c.Wait = time.Hour }, p)
	answers := make(chan string)
	go func() {
		_, answer, _ := a.post(t, strings.NewReader("{}"))
		answers <- answer
	}()
	<-came
	a.Hurry()
	var told Queued
	if answer := <-answers; json.Unmarshal([]byte(answer), &told) != nil || told.Status != "queued" || told.ID == "" {
		t.Errorf("got %s", answer)
	}
}

// TestRefuses has what an agent does not take.
func TestRefuses(t *testing.T) {
	ca := intaketest.CA(t)
	a := startAgent(t, ca, t.TempDir(), nil, startPoP(t, ca, status(202)))
	for _, test := range []struct {
		name   string
		header []string
		want   int
	}{
		{"nothing odd", nil, 202},
		{"a content encoding", []string{"Content-Encoding", "gzip"}, 415},
		{"a page's origin", []string{"Origin", "https://page.example"}, 403},
		{"a long key", []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400},
		{"a key with a control character", []string{"Idempotency-Key", "a\tb"}, 400},
		{"a long type", []string{"Content-Type", strings.Repeat("t", 5000)}, 400},
		{"a long traceparent, which is left out", []string{"Traceparent", strings.Repeat("t", 5000)}, 202},
	} {
		if code, answer, _ := a.post(t, strings.NewReader("{}"), test.header...); code != test.want {
			t.Errorf("%s: got %d, want %d: %s", test.name, code, test.want, answer)
		}
	}
}
