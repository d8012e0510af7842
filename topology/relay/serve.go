package relay

import (
	"cmp"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// The paths of a hub.
const (
	Path       = "/v1/relay/" // below which all are
	watchPath  = Path + "watch"
	reportPath = Path + "report"
	quotaPath  = Path + "quota"
)

// writeTimeout is how long a node may take to read a message before it is cut off.
const writeTimeout = 10 * time.Second

// maxBody bounds what a node sends.
const maxBody = 16 << 10

// identity is who a client certificate names.
type identity struct {
	kind kind
	name string
}

// client is who asks, by a certificate.
type client struct {
	identity
	cert *x509.Certificate
}

func (i identity) String() string { return store.NodeName(string(i.kind), i.name) }

// identify returns who asks: the common name of the certificate that the server has verified.
func identify(r *http.Request) (client, error) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return client{}, errors.New("want a client certificate of this system's CA")
	}
	cert := r.TLS.VerifiedChains[0][0]
	common := cert.Subject.CommonName
	for _, k := range kinds {
		if name, ok := strings.CutPrefix(common, string(k)+":"); ok && name != "" && len(name) <= 253 && !strings.ContainsAny(name, "/:") {
			return client{identity{k, name}, cert}, nil
		}
	}
	return client{}, errors.New("the client certificate is not of a PoP or a DNS node: want a common name such as pop:sin1")
}

// admit refuses who has not been let in, was turned out since, or has a certificate that has ended: TLS looks when a connection begins, and
// those of nodes last.
func (h *Hub) admit(who client) error {
	if time.Now().After(who.cert.NotAfter) {
		return fmt.Errorf("the certificate has expired at %s", who.cert.NotAfter.Format(time.RFC3339))
	}
	return h.config.Admit(who.cert)
}

// ServeHTTP implements http.Handler for paths below Path. The server must ask for client certificates and verify those that are given.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	who, err := identify(r)
	if err == nil {
		err = h.admit(who)
	}
	if errors.Is(err, ErrUnsure) {
		problem.Write(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	if err != nil {
		w.Header().Set("Connection", "close") // the next one may be with a certificate that was renewed
		problem.Write(w, http.StatusForbidden, err.Error())
		return
	}
	want, serve := http.MethodPost, h.report
	switch r.URL.Path {
	case watchPath:
		want, serve = http.MethodGet, h.watch
	case reportPath:
	case quotaPath:
		serve = h.quota
	default:
		problem.Write(w, http.StatusNotFound, "the relay has watch, report and quota")
		return
	}
	if r.Method != want {
		w.Header().Set("Allow", want)
		problem.Write(w, http.StatusMethodNotAllowed, "want "+want)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	serve(w, r, who)
}

// watch streams what is stored until somebody ends it.
func (h *Hub) watch(w http.ResponseWriter, r *http.Request, who client) {
	var has store.Sum
	if err := has.UnmarshalText([]byte(r.URL.Query().Get("sum"))); err != nil {
		problem.Write(w, http.StatusBadRequest, "sum: "+err.Error())
		return
	}
	revision, err := strconv.ParseInt(cmp.Or(r.URL.Query().Get("revision"), "0"), 10, 64)
	if err != nil {
		problem.Write(w, http.StatusBadRequest, "revision: want a number, of the newest update that the node has")
		return
	}
	if _, away := h.state(who.kind); away != "" {
		problem.Write(w, http.StatusServiceUnavailable, "etcd cannot be read: "+away)
		return
	}
	if h.find(who.kind, has) < 0 {
		if err := h.lags(r.Context(), revision); err != nil {
			problem.Write(w, http.StatusServiceUnavailable, err.Error())
			return
		}
	}
	ctx, cut := context.WithCancelCause(r.Context())
	defer cut(nil)
	leave, ok := h.enter(who.identity, cut)
	if !ok {
		problem.Write(w, http.StatusServiceUnavailable, "there are too many streams")
		return
	}
	defer leave()
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-store")
	s := stream{hub: h, who: who, kind: who.kind, to: http.NewResponseController(w), w: w}
	if err := s.run(ctx, has); err != nil && r.Context().Err() == nil {
		h.config.Log.Warn("a node is cut off, and may come back", "node", who.String(), "reason", err)
	}
}

// stream is what one node is sent.
type stream struct {
	hub  *Hub
	who  client
	kind kind
	to   *http.ResponseController
	w    io.Writer
	at   int64 // the place of the ring up to which it has been sent
}

// run sends, until ctx or the hub ends or there is nothing more to tell.
func (s *stream) run(ctx context.Context, has store.Sum) error {
	if s.at = s.hub.find(s.kind, has); s.at < 0 {
		frames, at := s.hub.all(s.kind)
		if err := s.send(frames); err != nil {
			return err
		}
		s.at = at
	}
	beat := time.NewTicker(s.hub.config.Heartbeat)
	defer beat.Stop()
	for beats := true; ; { // at once, so that the node knows what it has
		news, away := s.hub.state(s.kind)
		if away != "" {
			return errors.New("etcd cannot be read: " + away)
		}
		changes, next, ok := s.hub.after(s.kind, s.at)
		if !ok {
			return errors.New("it reads more slowly than changes come")
		}
		for _, frames := range changes {
			if err := s.send(frames()); err != nil {
				return err
			}
		}
		if s.at = next; beats {
			if beat := s.hub.heartbeat(s.kind, s.at); beat != nil {
				if err := s.send([][]byte{beat}); err != nil {
					return err
				}
			}
		}
		beats = false
		select {
		case <-news:
		case <-beat.C:
			if err := s.hub.admit(s.who); err != nil && !errors.Is(err, ErrUnsure) {
				return err
			}
			beats = true
		case <-s.hub.ended:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// send sends frames in time.
func (s *stream) send(frames [][]byte) error {
	for _, f := range frames {
		if err := s.to.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		if _, err := s.w.Write(f); err != nil {
			return err
		}
	}
	return s.to.Flush()
}

// Quota is what a PoP asks of the quota of keys, as package dataplane/quota's Request is.
type Quota struct {
	PoP  string     `json:"-"` // by its certificate
	Open int64      `json:"open,omitempty"`
	Lost int64      `json:"lost,omitempty"`
	Asks []QuotaAsk `json:"asks,omitempty"`
}

// QuotaAsk asks for some of the quota of one key. The relay knows the quota itself.
type QuotaAsk struct {
	Key    string `json:"key"` // its id
	Window int64  `json:"window"`
	Limit  int64  `json:"-"`
	Want   int64  `json:"want"`
}

// QuotaAnswer is the answer, as package dataplane/quota's Answer is.
type QuotaAnswer struct {
	Window int64          `json:"window"`
	Rest   bool           `json:"rest,omitempty"`
	Grants []QuotaGranted `json:"grants,omitempty"`
}

// QuotaGranted answers a QuotaAsk.
type QuotaGranted struct {
	Granted   int64 `json:"granted,omitempty"`
	Remaining int64 `json:"remaining,omitempty"`
	PoPs      int   `json:"pops,omitempty"`
	Closed    bool  `json:"closed,omitempty"`
	Busy      bool  `json:"busy,omitempty"`
}

// maxAsks is how many grants are asked for at once.
const maxAsks = 100

func (q *Quota) check() error {
	if len(q.Asks) > maxAsks || q.Open < 0 || q.Lost < 0 {
		return fmt.Errorf("want at most %d asks, and numbers of windows", maxAsks)
	}
	seen := map[QuotaAsk]bool{}
	for _, ask := range q.Asks {
		if ask.Key == "" || len(ask.Key) > 100 || strings.Contains(ask.Key, "/") || ask.Window < 0 || ask.Want < 1 {
			return errors.New("want the id of a key, a window and how much is wanted")
		}
		ask.Want = 0
		if seen[ask] {
			return fmt.Errorf("key %s is asked for twice in window %d", ask.Key, ask.Window)
		}
		seen[ask] = true
	}
	return nil
}

// quota tells a PoP of windows and grants it some of the quota of keys, as far as these are known here.
func (h *Hub) quota(w http.ResponseWriter, r *http.Request, who client) {
	var ask Quota
	err := readJSON(r.Body, &ask)
	if err == nil {
		err = ask.check()
	}
	switch {
	case err != nil:
		problem.Write(w, http.StatusBadRequest, err.Error())
		return
	case who.kind != "pop":
		problem.Write(w, http.StatusForbidden, "only PoPs have use for quota")
		return
	case h.config.Quota == nil:
		problem.Write(w, http.StatusNotFound, "this relay grants no quota")
		return
	}
	known := Quota{PoP: who.name, Open: ask.Open, Lost: ask.Lost}
	var places []int
	for i, one := range ask.Asks { // a key that is not known could have records made without end
		if one.Limit = h.limit(one.Key); one.Limit > 0 {
			known.Asks, places = append(known.Asks, one), append(places, i)
		}
	}
	got, err := h.config.Quota(r.Context(), known)
	if err == nil && len(got.Grants) != len(places) {
		err = errors.New("the store answers other questions")
	}
	if err != nil {
		problem.Write(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	answer := QuotaAnswer{Window: got.Window, Rest: got.Rest, Grants: make([]QuotaGranted, len(ask.Asks))}
	for i := range answer.Grants {
		answer.Grants[i].Closed = true
	}
	for n, i := range places {
		answer.Grants[i] = got.Grants[n]
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(answer) // who is gone has lost the grants
}

// limit returns the quota of a key, and 0 for one that there is not.
func (h *Hub) limit(id string) int64 {
	h.mu.Lock()
	text := h.values["keys/"+id]
	h.mu.Unlock()
	if text == nil {
		return 0
	}
	key, faults := topology.ParseKey(id, text)
	if len(faults) > 0 || key == nil {
		return 0
	}
	return key.QuotaPerMinute
}

// readJSON reads one value.
func readJSON(r io.Reader, into any) error {
	text, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}
