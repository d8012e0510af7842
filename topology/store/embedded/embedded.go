// Package embedded runs etcd inside the process, for one machine: a real server with one member, which etcdctl and other
// clients reach as any other.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// startTimeout bounds how long the server may take until it answers.
const startTimeout = 30 * time.Second

// Config says where the server keeps its data and listens.
type Config struct {
	Dir    string // for its data and its log, etcd.log; made where it is missing
	Listen string // host:port for clients; port 0 takes a free one
	TLS    *TLS   // nil: in clear
	Quota  int64  // bytes that its database may have; 0 stands for 2 GiB
}

// TLS has the server speak TLS and know its clients by their certificates.
type TLS struct {
	Cert, Key string // files in PEM of the server's own certificate and its key
	ClientCA  string // file in PEM of the CAs of clients; each must show a certificate
}

// Etcd is a running server.
type Etcd struct {
	server   *embed.Etcd
	endpoint string
	log      *os.File
	close    sync.Once
}

// Start starts a server and waits until it answers. A taken port is an error that wraps syscall.EADDRINUSE. The folder must
// not be in use by another server.
func Start(ctx context.Context, c Config) (*Etcd, error) { return startFree(ctx, c, freeAddress) }

// startFree starts a server at an address that choose returns for that of the configuration.
func startFree(ctx context.Context, c Config, choose func(string) (string, error)) (*Etcd, error) {
	_, port, _ := net.SplitHostPort(c.Listen)
	for try := 1; ; try++ {
		listen, err := choose(c.Listen)
		if err != nil {
			return nil, fmt.Errorf("start etcd: %w", err)
		}
		e, err := start(ctx, c, listen)
		if port == "0" && errors.Is(err, syscall.EADDRINUSE) && try < maxTries {
			continue // another process has taken the port that was free
		}
		return e, err
	}
}

// maxTries bounds how many free ports are chosen, one after the other.
const maxTries = 10

// start starts a server at an address.
func start(ctx context.Context, c Config, listen string) (*Etcd, error) {
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	log, err := os.OpenFile(filepath.Join(c.Dir, "etcd.log"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start etcd: %w", err)
	}
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	logger := zap.New(zapcore.NewCore(encoder, zapcore.AddSync(log), zapcore.WarnLevel))

	client := url.URL{Scheme: "http", Host: listen}
	config := embed.NewConfig()
	if c.TLS != nil {
		client.Scheme = "https"
		config.ClientTLSInfo = transport.TLSInfo{
			CertFile: c.TLS.Cert, KeyFile: c.TLS.Key, TrustedCAFile: c.TLS.ClientCA, ClientCertAuth: true,
		}
	}
	config.Name = "isochrone"
	config.Dir = filepath.Join(c.Dir, "data")
	config.ListenClientUrls, config.AdvertiseClientUrls = []url.URL{client}, []url.URL{client}
	peer := url.URL{Scheme: "http", Host: "127.0.0.1:0"} // a lone member has no peers
	config.ListenPeerUrls, config.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	config.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)
	config.AutoCompactionMode, config.AutoCompactionRetention = "revision", "100000"
	config.QuotaBackendBytes = cmp.Or(c.Quota, 2<<30)
	config.TickMs, config.ElectionMs = 10, 100 // alone, it need not wait for others before it elects itself
	server, err := embed.StartEtcd(config)
	if err != nil {
		log.Close()
		return nil, fmt.Errorf("start etcd on %s: %w", listen, err)
	}
	e := &Etcd{server: server, endpoint: client.String(), log: log}
	select {
	case <-server.Server.ReadyNotify():
		return e, nil
	case err = <-server.Err():
	case <-time.After(startTimeout):
		err = errors.New("it does not become ready")
	case <-ctx.Done():
		err = ctx.Err()
	}
	e.Close()
	return nil, fmt.Errorf("start etcd on %s: %w; its log is %s", listen, err, log.Name())
}

// freeAddress checks that an address is free, and chooses a port where it has none.
func freeAddress(address string) (string, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// Endpoint returns the URL that clients use.
func (e *Etcd) Endpoint() string { return e.endpoint }

// Close ends the server and waits until all of it has ended. It may be called more than once.
func (e *Etcd) Close() {
	e.close.Do(func() {
		e.server.Close()
		e.log.Close()
	})
}
