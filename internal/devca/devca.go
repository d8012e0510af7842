// Package devca is the certificate authority of the example world: it makes itself where it is missing, and issues certificates
// for whatever host it is asked for. It must not be trusted by anything but the example world's clients; package ca, on which it
// stands, is the authority of a deployment.
package devca

import (
	"crypto/tls"
	"fmt"
	"sync"
	"time"

	"github.com/isochrone/isochrone/internal/ca"
)

// leafLifetime is that of hosts' certificates.
const leafLifetime = 30 * 24 * time.Hour

// caName is the common name of the CA's own certificate.
const caName = "Isochrone development CA"

// CA is a certificate authority with the certificates that it has issued. It may be used concurrently.
type CA struct {
	*ca.CA

	mu     sync.Mutex
	leaves map[string]*tls.Certificate
}

// New makes a CA whose certificate is valid from an hour before now.
func New(now time.Time) (*CA, error) { return wrap(ca.New(caName, now)) }

func wrap(authority *ca.CA, err error) (*CA, error) {
	if err != nil {
		return nil, err
	}
	return &CA{CA: authority, leaves: map[string]*tls.Certificate{}}, nil
}

// Path returns where the certificate of the CA in a folder is.
func Path(dir string) string { return ca.Path(dir) }

// Load reads the CA of a folder, and makes one where there is none.
func Load(dir string) (*CA, error) {
	if !ca.Exists(dir) {
		return wrap(ca.Create(dir, caName, time.Now()))
	}
	made, err := wrap(ca.Open(dir))
	if err != nil {
		return nil, fmt.Errorf("the development CA: %w (removing ca.pem and ca-key.pem from %s makes a new one)", err, dir)
	}
	return made, nil
}

// Certificate returns a certificate for a host name or an IP address, valid for at least half of its lifetime from now. The
// caller decides which names are served: each one costs memory.
func (c *CA) Certificate(name string, now time.Time) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known := c.leaves[name]; known != nil && now.Add(leafLifetime/2).Before(known.Leaf.NotAfter) {
		return known, nil
	}
	key, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	leaf, err := c.Issue(ca.Request{Kind: ca.Host, Name: name, Hosts: []string{name}, Public: &key.PublicKey, Lifetime: leafLifetime}, now)
	if err != nil {
		return nil, err
	}
	made := &tls.Certificate{Certificate: [][]byte{leaf.Raw, c.CA.Certificate().Raw}, PrivateKey: key, Leaf: leaf}
	c.leaves[name] = made
	return made, nil
}
