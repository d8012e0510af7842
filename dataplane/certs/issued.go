package certs

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
)

// Issued takes the certificates that ACME has got, by service: PEM of the certificate, its chain, and its private key, in one text. It
// takes the place of what it was given before. One that is broken leaves in use what the service had before.
func (s *Source) Issued(texts map[string][]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var next []*held
	for _, service := range slices.Sorted(maps.Keys(texts)) {
		c, err := parseBundle(texts[service])
		if err != nil {
			err = fmt.Errorf("the certificate of %s that ACME got: %w", service, err)
		}
		s.tell("acme "+service, err)
		before := slices.IndexFunc(s.issued, func(h *held) bool { return h.from == service })
		switch {
		case err == nil && before >= 0 && bytes.Equal(s.issued[before].Certificate.Certificate[0], c.Certificate[0]):
			next = append(next, s.issued[before])
		case err == nil:
			next = append(next, &held{c, "acme", service})
			s.config.Log.Info("certificate taken", "service", service, "valid_until", c.Leaf.NotAfter)
		case before >= 0:
			next = append(next, s.issued[before])
		}
	}
	s.issued = next
	s.renew(s.config.Now())
}

// parseBundle reads PEM of a certificate, its chain and its key. An error tells nothing of the key.
func parseBundle(text []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	return &c, hasNames(&c)
}
