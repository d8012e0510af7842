package certs

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/isochrone/isochrone/internal/certfile"
)

// Config says what a source gives out. The zero value gives out nothing but keys of tickets.
type Config struct {
	Pairs []Pair // files that must be good at the start
	Dir   string // folder with NAME.pem and NAME.key, which may come and go; empty for none

	// First returns the service whose certificate they get who ask for none, or for a name that is no service; empty for none. IsService
	// tells whether a name is one. Both may be nil, and are called in handshakes.
	First     func() string
	IsService func(name string) bool
	// Own is asked when there is nothing else; nil for nobody.
	Own func(*tls.ClientHelloInfo) (*tls.Certificate, error)

	Log *slog.Logger     // nil: nothing is told
	Now func() time.Time // nil stands for time.Now
}

// Pair is a certificate, with its chain behind it, and its private key, both files in PEM.
type Pair struct{ Cert, Key string }

// ErrNone is returned to a client for whose name there is no certificate.
var ErrNone = errors.New("there is no certificate of that name")

// lookInterval is the time between two looks at the files, and at the clock.
const lookInterval = 10 * time.Second

// Source gives out certificates and keys of tickets. It is safe for concurrent use; Certificate and TicketKeys never wait.
type Source struct {
	config   Config
	table    atomic.Pointer[table]
	tickets  atomic.Pointer[ticketKeys]
	failures atomic.Uint64 // of reloading

	mu     sync.Mutex // of what follows
	files  []*file
	issued []*held
	told   map[string]string // faults that were logged, by what has them
}

// file is a pair of files.
type file struct {
	Pair
	listed bool // of Pairs, so that it stays
	opened *certfile.File
	used   *tls.Certificate // the last one that can be chosen
}

// held is a certificate with where it is from.
type held struct {
	*tls.Certificate
	source string // file or acme
	from   string // path, or service
}

// table is what certificates are chosen from, in this order. It is immutable.
type table struct {
	layers  []names
	held    []*held
	expires time.Time // when the first one of it does that has not yet; zero for never
}

// names are the names of certificates of one source, in lower case without a dot at the end.
type names struct {
	exact map[string]*tls.Certificate
	wild  map[string]*tls.Certificate // by what stands behind "*."
}

// Open reads the files. A pair of Pairs must be good; of Dir's pairs those that are not are told, and left out.
func Open(c Config) (*Source, error) {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Source{config: c, told: map[string]string{}}
	s.table.Store(new(table))
	s.tickets.Store(ownTickets(c.Now()))
	for _, pair := range c.Pairs {
		opened, err := certfile.Open(pair.Cert, pair.Key)
		if err != nil {
			return nil, err
		}
		if err := hasNames(current(opened)); err != nil {
			return nil, nameFault(pair, err)
		}
		s.files = append(s.files, &file{pair, true, opened, current(opened)})
	}
	if c.Dir != "" {
		if _, err := pairsOf(c.Dir); err != nil {
			return nil, err
		}
	}
	s.Reload()
	return s, nil
}

// Certificate returns the certificate for a client: of the name that it asks for, else of the first service, else the first of the files
// if it asks for none. It is made for tls.Config.GetCertificate. The error is ErrNone when nobody has one.
func (s *Source) Certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	t, name := s.table.Load(), canonical(hello.ServerName)
	if c := t.find(name); c != nil {
		return c, nil
	}
	if s.config.First != nil && (name == "" || s.config.IsService == nil || !s.config.IsService(name)) {
		if c := t.find(canonical(s.config.First())); c != nil {
			return c, nil
		}
	}
	if name == "" && len(t.held) > 0 && t.held[0].source == "file" { // as for a client that only knows an address
		return t.held[0].Certificate, nil
	}
	if s.config.Own == nil {
		return nil, ErrNone
	}
	return s.config.Own(hello)
}

// find returns the certificate of a name in lower case, or nil.
func (t *table) find(name string) *tls.Certificate {
	if name == "" {
		return nil
	}
	_, above, _ := strings.Cut(name, ".")
	for i := range t.layers {
		if c := t.layers[i].exact[name]; c != nil {
			return c
		}
		if c := t.layers[i].wild[above]; c != nil && above != "" { // a star stands for one label (RFC 9525 section 6.3)
			return c
		}
	}
	return nil
}

// canonical returns a name in lower case without a dot at the end.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Run looks at the files, and renews the source's own keys of tickets, until ctx ends, whose error it returns.
func (s *Source) Run(ctx context.Context) error {
	look := time.NewTicker(lookInterval)
	defer look.Stop()
	for {
		select {
		case <-look.C:
			s.Reload()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Reload looks at the files, as Run does every ten seconds. Files that are broken leave in use what they were before; that is told once for
// each fault, and counted each time.
func (s *Source) Reload() {
	s.mu.Lock()
	defer s.mu.Unlock()
	changed := s.readFolder()
	for _, f := range s.files {
		_, err := f.opened.Reload()
		if err == nil {
			err = nameFault(f.Pair, hasNames(current(f.opened)))
		}
		if s.tell(f.Cert, err); err == nil && f.used != current(f.opened) {
			f.used, changed = current(f.opened), true
			s.config.Log.Info("certificate reloaded", "file", f.Cert, "valid_until", f.used.Leaf.NotAfter)
		}
	}
	now := s.config.Now()
	if t := s.table.Load(); changed || len(t.held) == 0 || !t.expires.IsZero() && now.After(t.expires) {
		s.renew(now)
	}
	s.renewOwnTickets(now)
}

// tell logs a fault, once, and counts it; nil is that there is none any more.
func (s *Source) tell(of string, err error) {
	if err == nil {
		delete(s.told, of)
		return
	}
	s.failures.Add(1)
	if text := err.Error(); s.told[of] != text {
		s.told[of] = text
		s.config.Log.Error("a new certificate is not used, what was there before is kept", "error", err)
	}
}

// renew makes the table anew. Certificates that have expired stand behind all others: a client that looks refuses them.
func (s *Source) renew(now time.Time) {
	t := &table{}
	for _, f := range s.files {
		t.held = append(t.held, &held{f.used, "file", f.Cert})
	}
	t.held = append(t.held, s.issued...)
	layers := map[string]names{}
	order := []string{"file", "acme", "expired file", "expired acme"}
	for _, layer := range order {
		layers[layer] = names{map[string]*tls.Certificate{}, map[string]*tls.Certificate{}}
	}
	for _, h := range t.held {
		layer := h.source
		if ends := h.Leaf.NotAfter; now.After(ends) {
			layer = "expired " + layer
			s.config.Log.Error("a certificate has expired", "names", h.Leaf.DNSNames, "from", h.from, "valid_until", ends)
		} else if t.expires.IsZero() || ends.Before(t.expires) {
			t.expires = ends
		}
		layers[layer].add(h.Certificate)
	}
	for _, layer := range order {
		t.layers = append(t.layers, layers[layer])
	}
	s.table.Store(t)
}

// add adds a certificate under its names, as far as they are not taken.
func (n names) add(c *tls.Certificate) {
	for _, name := range c.Leaf.DNSNames {
		in, name := n.exact, canonical(name)
		if above, star := strings.CutPrefix(name, "*."); star {
			in, name = n.wild, above
		}
		if in[name] == nil {
			in[name] = c
		}
	}
}

// hasNames reports why a certificate could never be chosen.
func hasNames(c *tls.Certificate) error {
	if c.Leaf == nil || len(c.Leaf.DNSNames) == 0 {
		return errors.New("has no DNS name among its subject alternative names, by which it would be chosen")
	}
	return nil
}

// current returns the certificate of files as it is now.
func current(f *certfile.File) *tls.Certificate {
	c, _ := f.Certificate(nil) // never an error
	return c
}

// Listed is a certificate that is given out.
type Listed struct {
	Names    []string  // for which it is valid
	Source   string    // file or acme
	From     string    // path of the file, or service
	NotAfter time.Time // when it expires
}

// List lists the certificates, but for Own's.
func (s *Source) List() []Listed {
	var list []Listed
	for _, h := range s.table.Load().held {
		list = append(list, Listed{h.Leaf.DNSNames, h.source, h.from, h.Leaf.NotAfter})
	}
	return list
}
