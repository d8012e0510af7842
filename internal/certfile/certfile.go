// Package certfile serves a certificate and its key from two files in PEM, and follows the files when they are replaced, as an
// ACME client does. It issues nothing.
package certfile

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

const (
	interval = 10 * time.Second // between two looks at the files
	mostRead = 1 << 20          // octets of a file; chains have some thousand
	others   = fs.FileMode(0o007)
)

// Errors of a pair of files.
var (
	ErrExposed = errors.New("the key may be read or written by everybody")
	ErrExpired = errors.New("the certificate has expired")
)

// File is a certificate and its key. It is safe for concurrent use.
type File struct {
	certPath, keyPath string
	current           atomic.Pointer[tls.Certificate]

	mu        sync.Mutex // of Reload
	cert, key fs.FileInfo
}

// Open reads a certificate, with its chain behind it, and its key. An expired one is taken, since many clients of DNS over TLS do
// not look (RFC 7858 section 4.1), and a server that does not start helps none; Run complains of it.
func Open(certPath, keyPath string) (*File, error) {
	f := &File{certPath: certPath, keyPath: keyPath}
	pair, err := f.read()
	if err != nil {
		return nil, err
	}
	f.use(pair)
	return f, nil
}

// Certificate returns the certificate of now. It is made for tls.Config.GetCertificate.
func (f *File) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.current.Load(), nil
}

// Reload reads the files if one of them is another than the one in use, by time, size or identity. The certificate in use stays
// when the new one cannot be read, is not of its key, or has expired, until a later Reload finds better: so one file may be
// replaced after the other.
func (f *File) Reload() (changed bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if same(f.certPath, f.cert) && same(f.keyPath, f.key) {
		return false, nil
	}
	pair, err := f.read()
	if err != nil {
		return false, err
	}
	if expired(pair.Certificate) {
		return false, fmt.Errorf("%s: %w on %s", f.certPath, ErrExpired, pair.Leaf.NotAfter.Format(time.DateOnly))
	}
	f.use(pair)
	return true, nil
}

// Run looks at the files every ten seconds until ctx ends. It logs each change, and each fault once.
func (f *File) Run(ctx context.Context, log *slog.Logger) {
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	told, toldExpired := "", false
	for {
		changed, err := f.Reload()
		switch {
		case changed:
			log.Info("certificate reloaded", "file", f.certPath, "valid_until", f.current.Load().Leaf.NotAfter)
			told, toldExpired = "", false
		case err == nil:
			told = ""
		case err.Error() != told:
			told = err.Error()
			log.Error("new certificate is not used, the old one is kept", "error", err)
		}
		if now := f.current.Load(); !toldExpired && expired(*now) {
			toldExpired = true
			log.Error("the certificate in use has expired", "file", f.certPath, "valid_until", now.Leaf.NotAfter)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func expired(c tls.Certificate) bool { return time.Now().After(c.Leaf.NotAfter) }

// pair is a certificate with what its files were when it was read.
type pair struct {
	tls.Certificate
	cert, key fs.FileInfo
}

func (f *File) use(p *pair) {
	f.cert, f.key = p.cert, p.key
	f.current.Store(&p.Certificate)
}

func (f *File) read() (*pair, error) {
	certText, cert, err := readFile(f.certPath, 0)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	keyText, key, err := readFile(f.keyPath, others)
	if err != nil {
		return nil, fmt.Errorf("read the certificate's key: %w", err)
	}
	made, err := tls.X509KeyPair(certText, keyText) // which also tells whether the key is that of the certificate
	if err != nil {
		return nil, fmt.Errorf("certificate %s with key %s: %w", f.certPath, f.keyPath, err)
	}
	return &pair{made, cert, key}, nil
}

// readFile reads a file that must not have some bits in its mode. What is told of it is of the same file that was read, whatever
// is put in its place meanwhile.
func readFile(path string, forbidden fs.FileMode) ([]byte, fs.FileInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	if mode := info.Mode().Perm(); mode&forbidden != 0 && runtime.GOOS != "windows" { // where the mode says nothing of who may read
		return nil, nil, fmt.Errorf("%s: %w: its mode is %04o, and 0600 or 0640 would be right", path, ErrExposed, mode)
	}
	if info.Size() > mostRead {
		return nil, nil, fmt.Errorf("%s has %d octets: a file of certificates or of a key has %d at most", path, info.Size(), mostRead)
	}
	text, err := io.ReadAll(io.LimitReader(file, mostRead))
	return text, info, err
}

// same tells whether a path leads to the file that was read.
func same(path string, read fs.FileInfo) bool {
	now, err := os.Stat(path)
	return err == nil && os.SameFile(now, read) && now.ModTime().Equal(read.ModTime()) && now.Size() == read.Size()
}
