// Package ca is a certificate authority whose key lies in a file: that of a deployment, which issues what nodes, operators,
// control planes and etcd know each other by, and that of the example world (package devca). It decides nothing: whoever calls
// says who gets a certificate of what kind.
//
//	authority, err := ca.Create("/etc/isochrone/ca", "Isochrone CA", time.Now())
//	cert, err := authority.Issue(ca.Request{Kind: ca.PoP, Name: "sin1", Public: key}, time.Now())
package ca

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// lifetime is that of the CA's own certificate.
const lifetime = 10 * 365 * 24 * time.Hour

// Names of a CA's files in its folder.
const (
	certFile = "ca.pem"
	keyFile  = "ca-key.pem"
)

// CA is a certificate authority. It may be used concurrently.
type CA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey // nil: it issues nothing
}

// New makes a CA whose certificate is valid from an hour before now, for ten years. It is in no file.
func New(name string, now time.Time) (*CA, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: name},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(lifetime),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &CA{cert, key}, nil
}

// Create makes a CA in a folder, which it makes too. The error is fs.ErrExist when the folder has one: its key would be lost.
func Create(dir, name string, now time.Time) (*CA, error) {
	ca, err := New(name, now)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	text, err := EncodeKey(ca.key)
	if err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, keyFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	if _, err := file.Write(text); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return nil, err
	}
	return ca, os.WriteFile(Path(dir), ca.PEM(), 0o644)
}

// Path returns where the certificate of the CA in a folder is.
func Path(dir string) string { return filepath.Join(dir, certFile) }

// Open reads the CA of a folder. The error is fs.ErrNotExist where there is none.
func Open(dir string) (*CA, error) {
	ca, err := open(dir)
	if err != nil {
		return nil, fmt.Errorf("read the CA: %w", err)
	}
	return ca, nil
}

func open(dir string) (*CA, error) {
	der, err := readPEM(Path(dir), "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	keyPath := filepath.Join(dir, keyFile)
	if info, err := os.Stat(keyPath); err == nil && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s has mode %04o, and so others can read it: want 0600 (chmod 600 %[1]s)", keyPath, info.Mode().Perm())
	}
	text, err := os.ReadFile(keyPath)
	if err != nil {
		return nil, err
	}
	key, err := ParseKey(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", keyPath, err)
	case !key.PublicKey.Equal(cert.PublicKey):
		return nil, fmt.Errorf("%s is not the key of %s", keyFile, certFile)
	}
	return &CA{cert, key}, nil
}

// OpenCertificate reads the certificate of a CA whose key is elsewhere: it tells who is who, and issues nothing.
func OpenCertificate(path string) (*CA, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, fmt.Errorf("read the CA's certificate: %w", err)
	}
	return ParseCertificate(der)
}

// ParseCertificate takes the certificate of a CA, in DER, as OpenCertificate does.
func ParseCertificate(der []byte) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("%q is not the certificate of a CA", cert.Subject.CommonName)
	}
	return &CA{cert: cert}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s has no %s in PEM", path, kind)
	}
	return block.Bytes, nil
}

// Exists reports whether a folder has a CA, be it a broken one.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, keyFile))
	return !errors.Is(err, fs.ErrNotExist)
}

// Certificate returns the CA's own.
func (ca *CA) Certificate() *x509.Certificate { return ca.cert }

// PEM returns the CA's certificate.
func (ca *CA) PEM() []byte { return EncodeCertificate(ca.cert.Raw) }

// Pool returns a pool with the CA alone.
func (ca *CA) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	return pool
}

// Hash returns the SHA-256 of a certificate, in lower-case hex.
func Hash(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// EncodeCertificate writes certificates in PEM, one behind the other.
func EncodeCertificate(ders ...[]byte) []byte {
	var text []byte
	for _, der := range ders {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}

// EncodeKey writes a private key in PEM.
func EncodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// serial returns a serial number of 127 random bits.
func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return n
}
