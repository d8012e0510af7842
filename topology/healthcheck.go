package topology

import (
	"cmp"
	"net/url"
	"strings"
)

// ProbeKind says by what a service's PoPs are probed.
type ProbeKind string

// The kinds of probe. All take the service's certificate; that of tcp takes none.
const (
	ProbeIntake ProbeKind = "intake" // a whole intake over HTTP/3, to its 202
	ProbeHTTP2  ProbeKind = "http2"  // the same over HTTP/2, for networks that let no UDP through
	ProbeHTTPS  ProbeKind = "https"  // a GET of a path
	ProbeTCP    ProbeKind = "tcp"    // a connection, no more
)

// ServiceHealth says how PoPs are probed for a service. A PoP is probed for the first service, by name, that it offers.
type ServiceHealth struct {
	Probe           ProbeKind `yaml:"probe" json:"probe"`                       // default intake
	Path            string    `yaml:"path,omitempty" json:"path,omitempty"`     // of https
	Status          int       `yaml:"status,omitempty" json:"status,omitempty"` // that https must be answered, 200..599; default 200
	CertificateDays int       `yaml:"certificate_days" json:"certificate_days"` // 1..365: a certificate that ends sooner is told of; default 2
}

// ClusterHealth says how a cluster is probed.
type ClusterHealth struct {
	Path    string       `yaml:"path" json:"path"` // below an endpoint, answered 200 by a GET; default /healthz
	JSONRPC *ChainHealth `yaml:"json_rpc,omitempty" json:"json_rpc,omitempty"`
}

// ChainHealth says that a cluster is asked for its view of the chain, by the JSON-RPC methods of Ethereum (net_peerCount, eth_syncing,
// eth_blockNumber).
type ChainHealth struct {
	Path         string `yaml:"path,omitempty" json:"path,omitempty"`           // below an endpoint; default /
	URL          string `yaml:"url,omitempty" json:"url,omitempty"`             // in place of the endpoints
	MinPeers     *int   `yaml:"min_peers,omitempty" json:"min_peers,omitempty"` // 0..10000; none for DefaultMinPeers
	MaxLagBlocks int    `yaml:"max_lag_blocks" json:"max_lag_blocks"`           // 1..1000000: behind the clusters of the same services; default 5
	Syncing      bool   `yaml:"syncing" json:"syncing"`                         // it may be syncing; default false
}

// DefaultMinPeers is how many peers a cluster's chain needs where nothing else is said.
const DefaultMinPeers = 1

// Peers returns how many peers the chain needs.
func (h *ChainHealth) Peers() int {
	if h.MinPeers != nil {
		return *h.MinPeers
	}
	return DefaultMinPeers
}

// URLs returns where a cluster's chain is asked: at one of these.
func (h *ChainHealth) URLs(endpoints []string) []string {
	if h.URL != "" {
		return []string{h.URL}
	}
	var urls []string
	for _, endpoint := range endpoints {
		urls = append(urls, strings.TrimSuffix(endpoint, "/")+h.Path)
	}
	return urls
}

// Probed returns how PoPs are probed for the service.
func (s *Service) Probed() ServiceHealth {
	h := ServiceHealth{}
	if s.Health != nil {
		h = *s.Health
	}
	h.fillDefaults()
	return h
}

// Probed returns how the cluster is probed.
func (cl *Cluster) Probed() ClusterHealth {
	h := ClusterHealth{}
	if cl.Health != nil {
		h = *cl.Health
	}
	h.Path = cmp.Or(h.Path, "/healthz")
	return h
}

func (h *ServiceHealth) fillDefaults() {
	h.Probe = cmp.Or(h.Probe, ProbeIntake)
	h.CertificateDays = cmp.Or(h.CertificateDays, 2)
	if h.Probe == ProbeHTTPS {
		h.Status = cmp.Or(h.Status, 200)
	}
}

func (h *ClusterHealth) fillDefaults() {
	h.Path = cmp.Or(h.Path, "/healthz")
	if rpc := h.JSONRPC; rpc != nil {
		rpc.MaxLagBlocks = cmp.Or(rpc.MaxLagBlocks, 5)
		if rpc.URL == "" {
			rpc.Path = cmp.Or(rpc.Path, "/")
		}
	}
}

func (c *checker) serviceHealth(h *ServiceHealth) {
	oneOf(c, "health.probe", h.Probe, ProbeIntake, ProbeHTTP2, ProbeHTTPS, ProbeTCP)
	within(c, "health.certificate_days", h.CertificateDays, 1, 365)
	switch {
	case h.Probe != ProbeHTTPS && (h.Path != "" || h.Status != 0):
		c.fault("health.path", "path and status are for probe https: a probe of %s has its own", h.Probe)
	case h.Probe == ProbeHTTPS && h.Path == "":
		c.fault("health.path", "is missing: want such as /healthz for probe https")
	case h.Probe == ProbeHTTPS:
		c.healthPath("health.path", h.Path)
		within(c, "health.status", h.Status, 200, 599)
	}
}

func (c *checker) clusterHealth(h *ClusterHealth) {
	c.healthPath("health.path", h.Path)
	rpc := h.JSONRPC
	if rpc == nil {
		return
	}
	if rpc.URL == "" {
		c.healthPath("health.json_rpc.path", rpc.Path)
	} else {
		u, err := url.Parse(rpc.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			c.fault("health.json_rpc.url", "%q is not a URL such as https://node.example.net/rpc", rpc.URL)
		}
		if rpc.Path != "" {
			c.fault("health.json_rpc.path", "is in the url already: want one of them")
		}
	}
	within(c, "health.json_rpc.min_peers", rpc.Peers(), 0, 10_000)
	within(c, "health.json_rpc.max_lag_blocks", rpc.MaxLagBlocks, 1, 1_000_000)
}

// maxHealthPath bounds a path, in octets.
const maxHealthPath = 256

func (c *checker) healthPath(field, path string) {
	if u, err := url.Parse(path); err != nil || !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || u.Fragment != "" || len(path) > maxHealthPath {
		c.fault(field, "%.300q is not a path such as /healthz, of at most %d octets", path, maxHealthPath)
	}
}
