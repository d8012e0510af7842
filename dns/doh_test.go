package dns

import (
	"crypto/tls"
	"time"

	"github.com/isochrone/isochrone/internal/devca"
)

// certOf returns certificates of a CA for 127.0.0.1.
func certOf(ca *devca.CA) certFunc {
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Certificate("127.0.0.1", time.Now()) }
}
