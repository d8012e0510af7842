package topology

import (
	"net/netip"
	"strings"
	"time"
)

// Topology is everything that operators describe for good. The maps are keyed by name.
type Topology struct {
	Zones    map[string]*Zone    `yaml:"zones,omitempty" json:"zones,omitempty"`
	Services map[string]*Service `yaml:"services,omitempty" json:"services,omitempty"`
	PoPs     map[string]*PoP     `yaml:"pops,omitempty" json:"pops,omitempty"`
	Clusters map[string]*Cluster `yaml:"clusters,omitempty" json:"clusters,omitempty"`
}

// State is what an operator wants of a PoP or cluster.
type State string

// The states. A draining object gets no new clients and finishes what it has; a disabled one is treated as absent.
const (
	Active   State = "active"
	Draining State = "draining"
	Disabled State = "disabled"
)

// Location is a place on the earth, in degrees WGS 84.
type Location struct {
	LatDeg  float64 `yaml:"lat" json:"lat"`                       // -90..90, north is positive
	LonDeg  float64 `yaml:"lon" json:"lon"`                       // -180..180, east is positive
	Country string  `yaml:"country" json:"country"`               // ISO 3166-1 alpha-2, upper case
	City    string  `yaml:"city,omitempty" json:"city,omitempty"` // for people
}

// Zone is a DNS zone that Isochrone answers for with authority. Its name has no trailing dot.
type Zone struct {
	Schema      int                     `yaml:"schema" json:"schema"`
	Nameservers map[string][]netip.Addr `yaml:"nameservers" json:"nameservers"`             // host name (fully qualified, no trailing dot) → its addresses
	Hostmaster  string                  `yaml:"hostmaster" json:"hostmaster"`               // SOA RNAME as a domain name, such as hostmaster.example.net
	TTL         Duration                `yaml:"ttl" json:"ttl"`                             // of NS and glue; default 1h
	NegativeTTL Duration                `yaml:"negative_ttl" json:"negative_ttl"`           // SOA MINIMUM (RFC 2308); default 1m
	Records     []string                `yaml:"records,omitempty" json:"records,omitempty"` // lines of a zone file: see ParseRecord

	read *contents // what Records say, if it has been found out; see Zone.contents
}

// Service is one intake hostname with its steering policy and its intake policy. Its name is the host name, without a
// trailing dot, and lies in one of the zones.
type Service struct {
	Schema   int            `yaml:"schema" json:"schema"`
	PoPs     []string       `yaml:"pops,omitempty" json:"pops,omitempty"`         // the PoPs that offer the service; none means all
	Clusters []string       `yaml:"clusters,omitempty" json:"clusters,omitempty"` // the clusters that do its work; none means all
	Steering Steering       `yaml:"steering" json:"steering"`
	Intake   Intake         `yaml:"intake" json:"intake"`
	Health   *ServiceHealth `yaml:"health,omitempty" json:"health,omitempty"` // how PoPs are probed for it; none: by a whole intake
}

// ECSUse says whether a service's answers depend on the client subnet that a resolver sends (RFC 7871).
type ECSUse string

// The ways to treat a client subnet.
const (
	UseECS    ECSUse = "use"
	IgnoreECS ECSUse = "ignore" // choose by the resolver's address
)

// WhenAllDown says what is answered when no PoP of a service is well: open, empty, or pool:NAME for a pool of the service.
type WhenAllDown string

// The answers when all are down.
const (
	FailOpen  WhenAllDown = "open"  // answer as if all were well; operators' decisions still hold
	FailEmpty WhenAllDown = "empty" // answer NODATA
)

// Pool returns the name of the pool that is answered, and false if it is none.
func (w WhenAllDown) Pool() (string, bool) { return strings.CutPrefix(string(w), "pool:") }

// Steering is how a service's clients are sent to PoPs.
type Steering struct {
	TTL         Duration            `yaml:"ttl" json:"ttl"`                         // of steered answers; default 20s
	Answers     int                 `yaml:"answers" json:"answers"`                 // how many PoPs an A or AAAA answer names, 1..4; default 1
	ECS         ECSUse              `yaml:"ecs" json:"ecs"`                         // default use
	WhenAllDown WhenAllDown         `yaml:"when_all_down" json:"when_all_down"`     // default open
	Panic       int                 `yaml:"panic,omitempty" json:"panic,omitempty"` // percent: while fewer of the service's PoPs are well, verdicts are disregarded; 0..100, default 0
	Pools       map[string][]string `yaml:"pools,omitempty" json:"pools,omitempty"` // PoPs in order, for when_all_down
	Policy      `yaml:",inline"`
	Canary      *Canary `yaml:"canary,omitempty" json:"canary,omitempty"`
	Spill       *Spill  `yaml:"spill,omitempty" json:"spill,omitempty"` // none: as the defaults say
}

// Ack says what a 202 of the intake promises.
type Ack string

// What a 202 promises.
const (
	AckMemory  Ack = "memory"  // received by the PoP: lost if its process ends before a cluster has it
	AckSpool   Ack = "spool"   // on the PoP's disk, synced
	AckCluster Ack = "cluster" // acknowledged by a cluster
)

// Idempotency says whether clients must send an Idempotency-Key.
type Idempotency string

// Whether an Idempotency-Key is needed.
const (
	IdempotencyOptional Idempotency = "optional"
	IdempotencyRequired Idempotency = "required" // which lets clients send in 0-RTT (RFC 8470)
)

// Intake is what a service's PoPs accept.
type Intake struct {
	Ack            Ack         `yaml:"ack" json:"ack"`                                     // default spool
	MaxBodyBytes   int64       `yaml:"max_body_bytes" json:"max_body_bytes"`               // 1..16777216; default 65536
	ContentTypes   []string    `yaml:"content_types,flow" json:"content_types"`            // media types, such as application/json or application/*+json; default these two
	RequiredFields []string    `yaml:"required_fields" json:"required_fields"`             // of the JSON object; default hash, sender, amount, or none with json_schema or json_rpc
	MaxDepth       int         `yaml:"max_depth" json:"max_depth"`                         // of nested objects and arrays, 1..512; default 32
	JSONSchema     string      `yaml:"json_schema,omitempty" json:"json_schema,omitempty"` // a JSON Schema (2020-12) in JSON; refers to nothing outside
	JSONRPC        *JSONRPC    `yaml:"json_rpc,omitempty" json:"json_rpc,omitempty"`
	Signature      *Signature  `yaml:"signature,omitempty" json:"signature,omitempty"`
	IdempotencyKey Idempotency `yaml:"idempotency_key" json:"idempotency_key"`         // default optional
	DeadAfter      Duration    `yaml:"dead_after" json:"dead_after"`                   // the age at which what no cluster has taken becomes a dead letter: 1m..720h; default 72h
	Elsewhere      []Elsewhere `yaml:"elsewhere,omitempty" json:"elsewhere,omitempty"` // paths of the host that belong to clusters
}

// JSONRPC says that payloads are JSON-RPC 2.0 requests.
type JSONRPC struct {
	Methods  []string `yaml:"methods,omitempty,flow" json:"methods,omitempty"` // that are taken; none means all
	MaxBatch int      `yaml:"max_batch" json:"max_batch"`                      // requests of a batch, 0..1000; 0 takes no batches, the default
}

// Signature says that payloads are signed, as webhooks are: HMAC-SHA256, in lower-case hex, of the timestamp as it was sent, a full stop and
// the raw bytes of the payload. The key is the sealed secret webhook-hmac.SERVICE.
type Signature struct {
	Header    string   `yaml:"header" json:"header"`       // that has the signature, after "sha256=" or alone; default X-Signature
	Timestamp string   `yaml:"timestamp" json:"timestamp"` // header that has the time of signing, in Unix seconds; default X-Timestamp
	Tolerance Duration `yaml:"tolerance" json:"tolerance"` // by which the time may differ from ours, 1s..1h; default 5m
}

// Elsewhere is a path that PoPs do not serve: WebSocket subscriptions, long streams, heavy work. Clients are told the URL of the nearest
// cluster that is open to them (Cluster.Public) with To in place of Path.
type Elsewhere struct {
	Path string `yaml:"path" json:"path"` // /ws, or /stream/* with all that is below
	To   string `yaml:"to" json:"to"`     // path at the cluster; default the path as it was asked for
}

// PoP is a point of presence: a place where clients are received.
type PoP struct {
	Schema      int            `yaml:"schema" json:"schema"`
	Location    Location       `yaml:"location" json:"location"`
	Addresses   []netip.Addr   `yaml:"addresses,flow" json:"addresses"`                      // unicast, IPv4 and IPv6
	VIPs        []netip.Addr   `yaml:"vips,omitempty,flow" json:"vips,omitempty"`            // anycast, which other PoPs may have too
	Announces   []netip.Prefix `yaml:"announces,omitempty,flow" json:"announces,omitempty"`  // by BGP, to the peers of BGP
	BGP         *BGP           `yaml:"bgp,omitempty" json:"bgp,omitempty"`                   // nil: the PoP announces nothing by itself
	Port        uint16         `yaml:"port" json:"port"`                                     // of the intake, UDP and TCP; default 443
	CapacityRPS int            `yaml:"capacity_rps,omitempty" json:"capacity_rps,omitempty"` // requests a second; 0 means not stated
	State       State          `yaml:"state" json:"state"`                                   // default active
	SlowStart   *Duration      `yaml:"slow_start,omitempty" json:"slow_start,omitempty"`     // over which its clients come back after it was down, 0s..1h; none for DefaultSlowStart
	ReceiptKeys []string       `yaml:"receipt_keys,omitempty" json:"receipt_keys,omitempty"` // Ed25519 public keys that its receipts are signed with, in unpadded base64url; old ones stay for old receipts
}

// DefaultSlowStart is over what time a PoP's clients come back to it after it was down.
const DefaultSlowStart = time.Minute

// ComesBack returns over what time the PoP's clients come back to it after it was down.
func (p *PoP) ComesBack() time.Duration {
	if p.SlowStart != nil {
		return time.Duration(*p.SlowStart)
	}
	return DefaultSlowStart
}

// Cluster is a regional cluster: it does the business logic for the envelopes that PoPs forward.
type Cluster struct {
	Schema      int            `yaml:"schema" json:"schema"`
	Location    Location       `yaml:"location" json:"location"`
	Endpoints   []string       `yaml:"endpoints" json:"endpoints"` // base URLs, http or https
	CapacityRPS int            `yaml:"capacity_rps,omitempty" json:"capacity_rps,omitempty"`
	MaxInFlight int            `yaml:"max_in_flight" json:"max_in_flight"`       // envelopes that one PoP has on the way to one endpoint, 1..10000; default 256
	Public      string         `yaml:"public,omitempty" json:"public,omitempty"` // base URL at which clients may reach the cluster itself; none if they may not
	State       State          `yaml:"state" json:"state"`                       // default active
	Health      *ClusterHealth `yaml:"health,omitempty" json:"health,omitempty"` // how it is probed; none: by GET /healthz
}

// Snapshot is a consistent reading of the store. All that it holds is immutable.
type Snapshot struct {
	Revision   int64                 // of the store; a later snapshot of one store has a higher one
	Topology   *Topology             // the last good topology, never nil
	Good       int64                 // the revision at which Topology was read; lower than Revision when what came later is invalid or about something else
	Faults     []Fault               // why the newest topology is not in force; empty when it is
	TooOld     bool                  // that is because of a schema that is newer than this program knows
	Warnings   []Fault               // what is likely not meant of the topology and the overrides in force
	Overrides  map[string]*Override  // the valid ones, by name, expired ones included
	Keys       *KeySet               // the valid ones
	Secrets    map[string]*Sealed    // the valid ones, by name
	Signing    map[string]*Signing   // by zone: of each the last valid one that was read
	Signed     int64                 // the revision at which Signing last changed
	Challenges map[string]*Challenge // the valid ones of ACME, by name; the very map of the last snapshot unless they have changed
	Ignored    []Fault               // overrides, keys, secrets and signing that are invalid, each ignored by itself

	// Hashes of 64 hexadecimal digits, which are the same in all nodes that have the same in force, however they came by it. Nodes of
	// some kinds do not follow keys, or signing.
	Hash        string // of topology and overrides, expired ones too
	SigningHash string
	KeysHash    string
}
