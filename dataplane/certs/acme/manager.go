package acme

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"sync"
	"time"

	"filippo.io/age"
	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/isochrone/isochrone/topology/sealed"
	"github.com/isochrone/isochrone/topology/store"
)

// Prefix begins the names of the sealed secrets with which PoPs get certificates; the service follows.
const Prefix = "acme."

const (
	namesInterval = time.Second      // between two looks at which names there are
	lookInterval  = 10 * time.Minute // between two looks at a certificate
	firstPause    = 5 * time.Second  // after a failure that certmagic does not repeat, such as that etcd is away; it grows to lookInterval
	author        = "leader"         // in the audit
)

// Config says what a manager needs.
type Config struct {
	Client     *clientv3.Client
	Root       string         // such as /isochrone/
	Directory  string         // URL of the ACME server
	Email      string         // that the CA may write to; may be empty
	Binding    *Binding       // nil for none
	Roots      *x509.CertPool // that the ACME server's own certificate is verified by; nil stands for the system's
	Identities []age.Identity // of the control planes' role
	Recipients []string       // of the role of PoPs (age1…)

	// Names lists the services; nil before they are known.
	Names func() []string
	// Seen returns when all DNS nodes have what the store has at a revision; nil: nobody waits.
	Seen func(ctx context.Context, revision int64) error
	Log  *slog.Logger // nil: nothing is told
}

// Binding binds the account at the ACME server to one that its CA knows already (RFC 8555 section 7.3.4).
type Binding struct {
	KeyID string
	HMAC  []byte // a secret
}

// Manager gets and renews certificates. It is safe for concurrent use.
type Manager struct {
	config  Config
	storage *Storage
	store   *store.Store

	mu       sync.Mutex
	states   map[string]State
	failures uint64
}

// State is how it stands with the certificate of a service.
type State struct {
	Name     string
	NotAfter time.Time // zero: there is none yet
	Failure  string    // why it could not be got or renewed last; empty when it could
	Failed   time.Time // when that was
}

// New returns a manager, which does nothing until it runs.
func New(c Config) *Manager {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Manager{
		config: c, storage: &Storage{Client: c.Client, Root: c.Root, Identities: c.Identities}, store: store.New(c.Client, c.Root),
		states: map[string]State{},
	}
}

// States returns how it stands with each name, while this process runs the manager.
func (m *Manager) States() []State {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []State
	for _, s := range m.states {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b State) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// Run gets certificates for all names and renews them, until ctx ends, whose error it returns.
func (m *Manager) Run(ctx context.Context) error {
	cfg, stop := m.certmagic()
	defer stop()
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer m.forget(nil)
	keepers := map[string]context.CancelFunc{}
	look := time.NewTicker(namesInterval)
	defer look.Stop()
	for {
		if names := m.config.Names(); names != nil {
			for name, end := range keepers {
				if !slices.Contains(names, name) {
					end()
					delete(keepers, name)
				}
			}
			for _, name := range names {
				if keepers[name] == nil {
					keeping, end := context.WithCancel(ctx)
					keepers[name] = end
					running.Go(func() { m.keep(keeping, cfg, name) })
				}
			}
			m.forget(names)
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// certmagic returns the configuration of certmagic, and what ends it.
func (m *Manager) certmagic() (*certmagic.Config, func()) {
	var cfg *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{ // which certmagic needs, and we leave empty
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return cfg, nil }, Logger: zap.NewNop(),
	})
	cfg = certmagic.New(cache, certmagic.Config{
		Storage: m.storage, RenewalWindowRatio: 1 - renewAt, OnEvent: m.event, Logger: zap.NewNop(),
		DisableARI: true, DisableStorageCheck: true, OCSP: certmagic.OCSPConfig{DisableStapling: true},
	})
	var binding *acme.EAB
	if b := m.config.Binding; b != nil {
		binding = &acme.EAB{KeyID: b.KeyID, MACKey: base64.RawURLEncoding.EncodeToString(b.HMAC)}
	}
	cfg.Issuers = []certmagic.Issuer{certmagic.NewACMEIssuer(cfg, certmagic.ACMEIssuer{
		CA: m.config.Directory, TestCA: m.config.Directory, Email: m.config.Email, ExternalAccount: binding, Agreed: true, TrustedRoots: m.config.Roots, Logger: zap.NewNop(),
		DNS01Solver:          &solver{store: m.store, seen: m.config.Seen, revisions: map[string]int64{}},
		DisableHTTPChallenge: true, DisableTLSALPNChallenge: true,
	})}
	return cfg, cache.Stop
}

// event takes what certmagic tells. It must not wait.
func (m *Manager) event(_ context.Context, event string, data map[string]any) error {
	name, _ := data["identifier"].(string)
	switch event {
	case "cert_failed":
		err, _ := data["error"].(error)
		m.failed(name, err)
	case "cert_obtained":
		m.config.Log.Info("certificate issued", "name", name, "renewal", data["renewal"])
	}
	return nil
}

func (m *Manager) failed(name string, err error) {
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	m.config.Log.Error("a certificate could not be got, and it is tried again", "name", name, "error", err)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failures++
	s := m.states[name]
	s.Name, s.Failure, s.Failed = name, err.Error(), time.Now()
	m.states[name] = s
}

// forget forgets all but some names.
func (m *Manager) forget(but []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.states {
		if !slices.Contains(but, name) {
			delete(m.states, name)
		}
	}
}

// renewAt is the part of its lifetime at which a certificate is renewed.
const renewAt = 2. / 3

// keep keeps the certificate of a name until ctx ends.
func (m *Manager) keep(ctx context.Context, cfg *certmagic.Config, name string) {
	for pause := firstPause; ; {
		wait, err := m.look(ctx, cfg, name)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			pause = firstPause
		} else {
			m.failed(name, err)
			wait, pause = pause, min(2*pause, lookInterval)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// look gets or renews a certificate if that is due, hands it to PoPs, and returns when to look again. The calls of certmagic go on trying
// until they succeed, with growing pauses.
func (m *Manager) look(ctx context.Context, cfg *certmagic.Config, name string) (time.Duration, error) {
	leaf, bundle, err := m.load(ctx, cfg, name)
	switch due := renewal(leaf); {
	case errors.Is(err, fs.ErrNotExist):
		err = cfg.ObtainCertAsync(ctx, name)
	case err == nil && !time.Now().Before(due):
		if err = m.publish(ctx, name, leaf, bundle); err == nil { // what there is may not have been handed over
			err = cfg.RenewCertAsync(ctx, name, false)
		}
	}
	if err != nil {
		return 0, err
	}
	if leaf, bundle, err = m.load(ctx, cfg, name); err != nil {
		return 0, err
	}
	if err := m.publish(ctx, name, leaf, bundle); err != nil {
		return 0, err
	}
	m.mu.Lock()
	m.states[name] = State{Name: name, NotAfter: leaf.NotAfter}
	m.mu.Unlock()
	return max(100*time.Millisecond, min(time.Until(renewal(leaf)), lookInterval)), nil
}

// renewal returns when a certificate is to be renewed.
func renewal(leaf *x509.Certificate) time.Time {
	if leaf == nil {
		return time.Time{}
	}
	return leaf.NotBefore.Add(time.Duration(renewAt * float64(leaf.NotAfter.Sub(leaf.NotBefore))))
}

// load returns what certmagic has for a name: the leaf, and PEM of chain and key. The error is fs.ErrNotExist when it has nothing.
func (m *Manager) load(ctx context.Context, cfg *certmagic.Config, name string) (*x509.Certificate, []byte, error) {
	issuer := cfg.Issuers[0].IssuerKey()
	chain, err := m.storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, name))
	if err != nil {
		return nil, nil, err
	}
	key, err := m.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, name))
	if err != nil {
		return nil, nil, err
	}
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil, nil, fmt.Errorf("the stored certificate of %s is not PEM", name)
	}
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("the stored certificate of %s: %w", name, err)
	}
	return leaf, slices.Concat(chain, []byte("\n"), key), nil
}

// publish hands a certificate to PoPs, unless they have it. It is sealed for them and for us, who look whether they have it.
func (m *Manager) publish(ctx context.Context, name string, leaf *x509.Certificate, bundle []byte) error {
	recipients := slices.Compact(slices.Sorted(slices.Values(append(sealed.RecipientsOf(m.config.Identities), m.config.Recipients...))))
	stored, base, err := m.store.Sealed(ctx, Prefix+name)
	if err != nil && base == 0 && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if stored != nil && slices.Equal(stored.Recipients, recipients) {
		if has, err := sealed.Open(Prefix+name, stored, m.config.Identities); err == nil && string(has) == string(bundle) {
			return nil
		}
	}
	note := fmt.Sprintf("certificate by ACME from %.100s, valid until %s", leaf.Issuer, leaf.NotAfter.UTC().Format(time.RFC3339))
	s, err := sealed.Seal(Prefix+name, bundle, recipients, note, time.Now())
	if err != nil {
		return err
	}
	_, err = m.store.ReplaceSealed(ctx, Prefix+name, s, base, author)
	return err
}
