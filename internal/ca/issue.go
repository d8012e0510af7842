package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"time"
)

// Kind is what a certificate is for. It decides the common name and whether a server or a client may show it.
type Kind string

// The kinds. Those of people and processes have the common name KIND:NAME, which is the name of a user in etcd.
const (
	EtcdServer Kind = "etcd-server" // a member's listener for clients
	EtcdPeer   Kind = "etcd-peer"   // between members; members take no other common name than this kind
	EtcdRoot   Kind = "etcd-root"   // etcd's user root, for isochrone etcd init
	Control    Kind = "control"
	Operator   Kind = "operator"
	PoP        Kind = "pop"
	DNS        Kind = "dns"
	Host       Kind = "host" // a server that is known by its name or address alone
)

// Kinds lists what isochrone ca issue issues.
var Kinds = []Kind{EtcdServer, EtcdPeer, EtcdRoot, Control, Operator, PoP, DNS}

// Lifetimes of certificates.
const (
	NodeLifetime = 90 * 24 * time.Hour  // of those that nodes renew themselves
	longLifetime = 365 * 24 * time.Hour // of those that a person renews
	hostLifetime = 30 * 24 * time.Hour
)

// rules of the kinds.
var rules = map[Kind]struct {
	server, client bool
	lifetime       time.Duration
}{
	EtcdServer: {server: true, client: true, lifetime: longLifetime}, // a member calls its own listener
	EtcdPeer:   {server: true, client: true, lifetime: longLifetime},
	EtcdRoot:   {client: true, lifetime: longLifetime},
	Control:    {server: true, client: true, lifetime: longLifetime},
	Operator:   {client: true, lifetime: longLifetime},
	PoP:        {client: true, lifetime: NodeLifetime},
	DNS:        {client: true, lifetime: NodeLifetime},
	Host:       {server: true, lifetime: hostLifetime},
}

// CommonName returns the common name of a kind's certificate.
func (k Kind) CommonName(name string) string {
	switch k {
	case EtcdServer, EtcdPeer:
		return string(k)
	case EtcdRoot:
		return "root"
	case Host:
		return name
	}
	return string(k) + ":" + name
}

// Request says what certificate is wanted.
type Request struct {
	Kind     Kind
	Name     string           // of the node, person or member
	Hosts    []string         // names and addresses that a server is reached by
	Public   *ecdsa.PublicKey // of the key that stays where it is
	Lifetime time.Duration    // 0 stands for that of the kind
}

// name is what people, machines and PoPs are called.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// CheckName tells what is wrong with the name of a node, a person or a member.
func CheckName(text string) error {
	if !name.MatchString(text) {
		return fmt.Errorf("%.80q is not a name: want 1 to 63 of a-z, 0-9, - and ., such as sin1", text)
	}
	return nil
}

func (r Request) check() error {
	rule, known := rules[r.Kind]
	if !known {
		return fmt.Errorf("kind %q is not one of %v", r.Kind, Kinds)
	}
	var faults []error
	if r.Kind != Host {
		faults = append(faults, CheckName(r.Name))
	}
	if rule.server && len(r.Hosts) == 0 {
		faults = append(faults, fmt.Errorf("a certificate of kind %s needs the names or addresses that its server is reached by", r.Kind))
	}
	if !rule.server && len(r.Hosts) > 0 {
		faults = append(faults, fmt.Errorf("a certificate of kind %s is for a client and has no hosts", r.Kind))
	}
	if r.Public == nil || r.Public.Curve != elliptic.P256() {
		faults = append(faults, errors.New("the key is not an ECDSA key on P-256"))
	}
	if r.Lifetime < 0 {
		faults = append(faults, fmt.Errorf("a lifetime of %v is none", r.Lifetime))
	}
	return errors.Join(faults...)
}

// Issue signs a certificate that is valid from an hour before now, and no longer than the CA's own.
func (ca *CA) Issue(r Request, now time.Time) (*x509.Certificate, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("issue a certificate for %.80q: %w", r.Name, err)
	}
	if ca.key == nil {
		return nil, errors.New("issue a certificate: the CA's key is not here")
	}
	rule := rules[r.Kind]
	if r.Lifetime == 0 {
		r.Lifetime = rule.lifetime
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: r.Kind.CommonName(r.Name)},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(r.Lifetime), KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if template.NotAfter.After(ca.cert.NotAfter) {
		template.NotAfter = ca.cert.NotAfter
	}
	if rule.server {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if rule.client {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	for _, host := range r.Hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, r.Public, ca.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// Verify checks that a certificate is this CA's, valid at a time, and for a client.
func (ca *CA) Verify(cert *x509.Certificate, now time.Time) error {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: ca.Pool(), CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	return err
}

// maxRequest bounds a certificate request: one of a P-256 key has some 400 octets.
const maxRequest = 8 << 10

// NewKey makes the key of a certificate.
func NewKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// ParseKey reads what EncodeKey wrote.
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, errors.New("no PRIVATE KEY in PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, errors.New("not an ECDSA key")
	}
	return key, nil
}

// EncodeRequest makes a request for a certificate of a key (PKCS #10) in PEM. What the certificate will say is decided by who signs
// it.
func EncodeRequest(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ReadRequest reads a request for a certificate that came from elsewhere, and returns its public key. Whoever sent it has shown
// that the private key is theirs; nothing else that it says counts.
func ReadRequest(text []byte) (*ecdsa.PublicKey, error) {
	if len(text) > maxRequest {
		return nil, fmt.Errorf("%d bytes are no certificate request: at most %d are taken", len(text), maxRequest)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || slices.ContainsFunc(rest, func(b byte) bool { return b > ' ' }) {
		return nil, errors.New("want one CERTIFICATE REQUEST in PEM")
	}
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, errors.New("the certificate request cannot be read")
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("the key of the certificate request is not an ECDSA key on P-256")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, errors.New("the certificate request is not signed by its key")
	}
	return key, nil
}
