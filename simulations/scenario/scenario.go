package scenario

import (
	"net/netip"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// Scenario is one world, what happens in it, and what must hold of it.
type Scenario struct {
	Name     string       `yaml:"scenario"`           // the file's, in lower case with hyphens
	Summary  string       `yaml:"summary"`            // one sentence
	About    string       `yaml:"about,omitempty"`    // paragraphs for the report: what it shows, what it leaves out
	Scales   []Scale      `yaml:"scales"`             // the engines that run it, one or more
	Duration Duration     `yaml:"duration,omitempty"` // of virtual time; 0 is one question and one post of each client
	Step     Duration     `yaml:"step,omitempty"`     // of the flow level, and of series; default 1m
	Seeds    []uint64     `yaml:"seeds,omitempty"`    // default [1]; several give confidence intervals
	World    World        `yaml:"world"`
	Variants []Variant    `yaml:"variants,omitempty"` // of the world, to compare; none: the world as it is
	Policies []PolicyName `yaml:"policies,omitempty"` // to compare; default [ours]
	Timeline []Event      `yaml:"timeline,omitempty"` // in the order of time
	Claims   []Claim      `yaml:"claims,omitempty"`   // figures of others, which the report shows beside ours
	Asserts  []Assertion  `yaml:"assert,omitempty"`
	Short    *Short       `yaml:"short,omitempty"` // how it is cut for CI
}

// Short changes a scenario for a quick run: zero values leave it as it is. Assertions hold for both, but for those that are marked.
type Short struct {
	Clients  int      `yaml:"clients,omitempty"`
	PoPs     int      `yaml:"pops,omitempty"`
	Duration Duration `yaml:"duration,omitempty"`
	Seeds    []uint64 `yaml:"seeds,omitempty"`
}

// Variant is a world that differs from the scenario's in something. Engines know nothing of variants: they are given a scenario with the
// variant's world, and the run gets the variant's name.
type Variant struct {
	Name  string    `yaml:"name"`  // lower case with hyphens
	World yaml.Node `yaml:"world"` // keys of World, which replace those of the scenario's, deep
	whole *World    `yaml:"-"`     // the scenario's world with these
}

// Scale is the engine that runs a scenario.
type Scale string

// The scales.
const (
	Packet   Scale = "packet"
	Flow     Scale = "flow"
	Analytic Scale = "analytic"
	Placing  Scale = "placement" // where PoPs save most, of the places of World.PoPs.Sites
)

// Scales are all of them.
var Scales = []Scale{Packet, Flow, Analytic, Placing}

// PolicyName is a way to steer clients.
type PolicyName string

// The policies. All but Ours are baselines, which the engines have themselves.
const (
	Ours      PolicyName = "ours"      // router.Decide with the topology's policy, health and spill
	Nearest   PolicyName = "nearest"   // router.Decide without spill
	Random    PolicyName = "random"    // any PoP that is well
	Country   PolicyName = "country"   // the PoP that a map of countries names
	Distance  PolicyName = "distance"  // the nearest by great circle
	Anycast   PolicyName = "anycast"   // the catchment
	FastRoute PolicyName = "fastroute" // the catchment, shed in layers by each PoP alone (FastRoute, NSDI 2015)
	Oracle    PolicyName = "oracle"    // the least true RTT that capacities allow
)

// World is what there is.
type World struct {
	Topology *topology.Topology `yaml:"-"`                  // of TopologyFile, or of what the others say
	File     string             `yaml:"topology,omitempty"` // an operator's topology; path relative to the scenario's file
	PoPs     *PoPs              `yaml:"pops,omitempty"`     // instead of a file
	Clusters *Clusters          `yaml:"clusters,omitempty"`
	Policy   *topology.Policy   `yaml:"policy,omitempty"`  // of the world's one service
	Answers  int                `yaml:"answers,omitempty"` // how many PoPs its answers name, 1..4; 0 is as the topology says, or 1
	TTL      Duration           `yaml:"ttl,omitempty"`     // of its answers; 0 is as the topology says, or 20s
	Scopes   Scopes             `yaml:"scopes,omitempty"`  // of answers to questions with a client subnet; default ours
	Geo      GeoKind            `yaml:"geo,omitempty"`     // what the geo database of our servers is like; default city
	Clients  Clients            `yaml:"clients"`
	Network  Network            `yaml:"network,omitempty"`
}

// Scopes is how the scope of an answer with a client subnet (RFC 7871) is chosen.
type Scopes string

// The ways to choose scopes.
const (
	ScopesOurs  Scopes = "ours"  // the widest that is right for the answer given
	ScopesEcho  Scopes = "echo"  // that of the question
	ScopesMerge Scopes = "merge" // networks with equal first three choices merged, as gdnsd does
)

// GeoKind is what a geo database is like. The router sees the world through it; package world says how each errs.
type GeoKind string

// The kinds of geo database.
const (
	GeoCity    GeoKind = "city"    // knows cities, and errs as commercial ones do
	GeoCountry GeoKind = "country" // knows countries alone, and errs sometimes
	GeoExact   GeoKind = "exact"   // knows all metros
)

// PoPs says where a world's PoPs are, by IATA codes of the built-in places, or how many are chosen among these, one after the other
// that which lowers the mean RTT of the clients most.
type PoPs struct {
	At       []string           `yaml:"at,omitempty,flow"`
	Count    int                `yaml:"count,omitempty"`      // 1..500; above the number of places each has several
	Capacity float64            `yaml:"capacity,omitempty"`   // of all together, as a multiple of the mean demand; 0 is without bound
	Sites    []string           `yaml:"sites,omitempty,flow"` // IATA codes among which Count are chosen; default: all built-in places
	Shares   map[string]float64 `yaml:"shares,omitempty"`     // of that capacity; others share the rest by the demand nearest to them
}

// Clusters says where a world's clusters are.
type Clusters struct {
	At []string `yaml:"at,flow"`
}

// Clients are the blockchain nodes of a world.
type Clients struct {
	Count     int       `yaml:"count"`               // 1..100,000,000; of the packet level 1..10,000
	Near      []Weight  `yaml:"near,omitempty"`      // places with weights; none: the metros of the world's nodes
	Rate      float64   `yaml:"rate,omitempty"`      // posts a second of each, on the mean over a day; default 0.02
	Body      int       `yaml:"body,omitempty"`      // bytes of a post, default 1000
	Diurnal   float64   `yaml:"diurnal,omitempty"`   // amplitude of the daily curve, 0..1: rate × (1 + diurnal × cos of the hours from 20:00 local solar time)
	Access    []Access  `yaml:"access,omitempty"`    // lines, with their parts; default: as the metros' hosted shares say, the rest fibre, cable and DSL
	Resolvers Resolvers `yaml:"resolvers,omitempty"` // who ask for them
	Fresh     float64   `yaml:"fresh,omitempty"`     // part of posts on a new connection, 0..1, default 0.1
}

// Weight is a place, by its IATA code or as "lat,lon,CC", with the clients' part there.
type Weight struct {
	Place  string  `yaml:"place"`
	Weight float64 `yaml:"weight"`
}

// Access is a kind of line, and the part of clients that have it.
type Access struct {
	Line string  `yaml:"line"` // datacentre, fibre, cable, dsl
	Part float64 `yaml:"part"`
}

// Resolvers says through whom clients ask. The parts are of clients and add up to at most 1; the rest asks its provider's resolver in its own metro.
type Resolvers struct {
	Own    float64  `yaml:"own,omitempty"`     // a resolver of its own, at its own address
	Public float64  `yaml:"public,omitempty"`  // a public resolver: its nearest site of PublicAt, which may be far
	ECS    float64  `yaml:"ecs,omitempty"`     // a public resolver that sends the client's subnet
	At     []string `yaml:"at,omitempty,flow"` // sites of public resolvers; default: twelve large exchanges
	Farm   int      `yaml:"farm,omitempty"`    // machines behind one address of a public resolver, each with a cache of its own; default 1
}

// Network is what carries packets. Zero values are the defaults, which RTT_MODEL.md of the docs tells.
type Network struct {
	Matrix    string              `yaml:"matrix,omitempty"`    // CSV of from,to,rtt_ms by names of PoPs, clusters, metros or IATA codes; in place of the model and of detours where it has a pair
	Measured  *Matrix             `yaml:"-"`                   // what that file says
	Spread    *float64            `yaml:"spread,omitempty"`    // standard deviation, in the logarithm, of a factor for each network and PoP; default 0.11
	Detours   *float64            `yaml:"detours,omitempty"`   // part of pairs of network and PoP that take a detour nobody can foresee, 0..1; default 0.03
	Jitter    *bool               `yaml:"jitter,omitempty"`    // default true: as measured on long paths
	Loss      float64             `yaml:"loss,omitempty"`      // of packets, each way, 0..0.5
	Reorder   float64             `yaml:"reorder,omitempty"`   // of packets that come after their successor, 0..0.5
	Bandwidth float64             `yaml:"bandwidth,omitempty"` // bits a second of a client's line; 0 is without bound
	MTU       int                 `yaml:"mtu,omitempty"`       // 1280..9000; default 1500
	RTT       map[string]Duration `yaml:"rtt,omitempty"`       // of single links, such as "sin,iad", by the names of a matrix; above all else, and without spread
	Catchment Catchment           `yaml:"catchment,omitempty"` // where BGP carries packets to VIPs
}

// Catchment says how BGP-like routing errs.
type Catchment struct {
	Far float64 `yaml:"far,omitempty"` // part of clients whose catchment is 25 ms or more off their best; default 0.2 (Calder et al., IMC 2015)
}

// Event is something that happens. Exactly one of the fields below At and For is given.
type Event struct {
	At  Duration `yaml:"at"`            // from the beginning
	For Duration `yaml:"for,omitempty"` // after which it is undone; 0 is for good

	Lose      []string  `yaml:"lose,omitempty,flow"` // PoPs that die; "largest" is the one with most clients then
	BrownOut  *BrownOut `yaml:"brown_out,omitempty"`
	Drain     []string  `yaml:"drain,omitempty,flow"` // by operators
	Flap      *Flap     `yaml:"flap,omitempty"`
	Crowd     *Crowd    `yaml:"crowd,omitempty"`
	Partition []string  `yaml:"partition,omitempty,flow"` // PoPs, clusters or continents that are cut off from all others; etcd is in the first cluster
	Flip      *Flip     `yaml:"flip,omitempty"`
	Edit      string    `yaml:"edit,omitempty"` // YAML that is merged into the topology
	Upgrade   *Upgrade  `yaml:"rolling_upgrade,omitempty"`
	EtcdAway  bool      `yaml:"etcd_away,omitempty"`
}

// BrownOut slows a PoP, or cuts what it can do.
type BrownOut struct {
	PoP      string   `yaml:"pop"`
	Delay    Duration `yaml:"delay,omitempty"`    // added to what it does
	Loss     float64  `yaml:"loss,omitempty"`     // of packets, added
	Capacity float64  `yaml:"capacity,omitempty"` // part that is left, 0..1; 0 leaves all
}

// Flap is a PoP that dies and comes back again and again.
type Flap struct {
	PoP  string   `yaml:"pop"`
	Up   Duration `yaml:"up"`
	Down Duration `yaml:"down"`
}

// Crowd multiplies the rate of clients near a place.
type Crowd struct {
	Near   string   `yaml:"near"`   // IATA code
	Within Duration `yaml:"within"` // of RTT
	Factor float64  `yaml:"factor"` // 1..1000
	Ramp   Duration `yaml:"ramp,omitempty"`
}

// Flip moves the catchment of a part of the clients to another PoP, while it lasts.
type Flip struct {
	Part float64 `yaml:"part"` // of the clients
}

// Upgrade restarts all PoPs, some at a time.
type Upgrade struct {
	AtOnce int      `yaml:"at_once"`
	Pause  Duration `yaml:"pause"` // between groups
	Away   Duration `yaml:"away"`  // of a PoP, with drain and hand-over before
}

// Claim is a figure of somebody else.
type Claim struct {
	What   string `yaml:"what"`
	Figure string `yaml:"figure"` // name of ours that stands beside it
	Value  string `yaml:"value"`  // as it was claimed, such as "50 ms"
	Source string `yaml:"source"`
}

// Assertion is what must hold, as "FIGURE OP BOUND": figures by the names of Run.Figures, with variant, scale and policy before it where there are
// several of these, in this order ("flow/ours/rtt.p99 <= 80 ms", "ours/rtt.mean <= 1.03 * oracle/rtt.mean", "packet/ours/rtt.p50 ~ flow/ours/rtt.p50 within 2 %").
type Assertion struct {
	That string `yaml:"that" json:"that"`
	Why  string `yaml:"why,omitempty" json:"why,omitempty"`
	Full bool   `yaml:"full,omitempty" json:"full,omitempty"` // it is not held against the short form
}

// Duration is a time in YAML, such as 90s or 24h.
type Duration = topology.Duration

// Now is the moment at which a world begins, by all clocks in it: midnight UTC of 2000-01-01, as synctest has it.
var Now = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Prefix returns the prefix of a world's client network with a number, counted from 0: 100.64.0.0/10 and above are not used; networks are /24 in 20.0.0.0/6 upwards.
func Prefix(network int) netip.Prefix {
	n := uint32(network)<<8 + 20<<24
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), 0}), 24)
}
