package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/internal/etcdclient"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/internal/statedir"
)

// storeRoot is where everything stands in etcd, unless --etcd-prefix says otherwise.
const storeRoot = "/isochrone/"

// etcdFlags say where etcd is and who is asking.
type etcdFlags struct {
	endpoints          []string
	prefix             string
	cert, key, ca      string
	user, passwordFile string
}

func (f *etcdFlags) register(flags *pflag.FlagSet) {
	flags.StringSliceVar(&f.endpoints, "etcd", nil, "`URLs` of etcd (default: as up.json in --dir says)")
	flags.StringVar(&f.prefix, "etcd-prefix", storeRoot, "`key` below which everything stands in etcd")
	flags.StringVar(&f.cert, "etcd-cert", "", "client certificate `file` for etcd (PEM)")
	flags.StringVar(&f.key, "etcd-key", "", "private key `file` of --etcd-cert (PEM)")
	flags.StringVar(&f.ca, "etcd-ca", "", "`file` of the CAs that issue etcd's certificate (PEM; default: those of the system)")
	flags.StringVar(&f.user, "etcd-user", "", "`name` of the user in etcd")
	flags.StringVar(&f.passwordFile, "etcd-password-file", "", "`file` with the password of --etcd-user, of mode 0600")
}

func (f *etcdFlags) check() error {
	var faults []error
	if (f.cert == "") != (f.key == "") {
		faults = append(faults, errors.New("etcd-cert and etcd-key: want both or none"))
	}
	if (f.user == "") != (f.passwordFile == "") {
		faults = append(faults, errors.New("etcd-user and etcd-password-file: want both or none"))
	}
	if !strings.HasPrefix(f.prefix, "/") {
		faults = append(faults, fmt.Errorf("etcd-prefix: %q does not begin with a slash: want such as %s", f.prefix, storeRoot))
	}
	for _, endpoint := range f.endpoints {
		if !strings.HasPrefix(endpoint, "http://") && !strings.HasPrefix(endpoint, "https://") {
			faults = append(faults, fmt.Errorf("etcd: %q is not a URL such as https://192.0.2.10:2379", endpoint))
		}
	}
	return errors.Join(faults...)
}

// connect returns a client. It may ask etcd for a token; that and the files may fail now and be good later.
func (f *etcdFlags) connect(ctx context.Context, dir string) (*clientv3.Client, error) {
	config := clientv3.Config{Context: ctx, Endpoints: f.endpoints, Username: f.user}
	if len(f.endpoints) == 0 {
		up, err := statedir.ReadUp(dir)
		if err != nil {
			return nil, fmt.Errorf("no etcd is named: %w, or name its URLs with --etcd", err)
		}
		config.Endpoints = []string{up.Etcd}
	}
	var err error
	if config.TLS, err = f.tls(); err != nil {
		return nil, err
	}
	if f.passwordFile != "" {
		password, err := privatefile.Read(f.passwordFile, maxSecretFile)
		if err != nil {
			return nil, fmt.Errorf("etcd-password-file: %w", err)
		}
		config.Password = strings.TrimSpace(string(password))
	}
	return etcdclient.Connect(config)
}

// tls returns nil when nothing is said of certificates: those of the system are trusted then.
func (f *etcdFlags) tls() (*tls.Config, error) {
	if f.ca == "" && f.cert == "" {
		return nil, nil
	}
	config := &tls.Config{}
	if f.ca != "" {
		text, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("etcd-ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("etcd-ca: %s has no certificate in PEM", f.ca)
		}
	}
	if f.cert != "" {
		if _, err := tls.LoadX509KeyPair(f.cert, f.key); err != nil {
			return nil, fmt.Errorf("etcd-cert: %w", err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			renewed, err := tls.LoadX509KeyPair(f.cert, f.key) // it may have been renewed
			return &renewed, err
		}
	}
	return config, nil
}
