package topology

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Kind is a kind of topology object, as it stands in documents and in etcd keys.
type Kind string

// The kinds of object, in the order in which a document has them.
const (
	Zones    Kind = "zones"
	Services Kind = "services"
	PoPs     Kind = "pops"
	Clusters Kind = "clusters"
)

// Ref names an object of a topology.
type Ref struct {
	Kind Kind
	Name string
}

// String returns kind and name, such as pops/sin1.
func (r Ref) String() string { return string(r.Kind) + "/" + r.Name }

// path is the object's path in faults.
func (r Ref) path() string { return string(r.Kind) + "." + r.Name }

// ParseRef reads what String returns.
func ParseRef(text string) (Ref, error) {
	kind, name, ok := strings.Cut(text, "/")
	r := Ref{Kind(kind), name}
	if !ok || name == "" || !slices.Contains([]Kind{Zones, Services, PoPs, Clusters}, r.Kind) {
		return Ref{}, fmt.Errorf("%q names no object: want pops/NAME, clusters/NAME, services/NAME or zones/NAME", text)
	}
	return r, nil
}

// Object is a *Zone, *Service, *PoP or *Cluster.
type Object interface{ fillDefaults() }

// Refs returns the names of all objects, in document order.
func (t *Topology) Refs() []Ref {
	var refs []Ref
	add := func(kind Kind, names []string) {
		for _, name := range names {
			refs = append(refs, Ref{kind, name})
		}
	}
	add(Zones, slices.Sorted(maps.Keys(t.Zones)))
	add(Services, slices.Sorted(maps.Keys(t.Services)))
	add(PoPs, slices.Sorted(maps.Keys(t.PoPs)))
	add(Clusters, slices.Sorted(maps.Keys(t.Clusters)))
	return refs
}

// Object returns the object of a name, or nil.
func (t *Topology) Object(r Ref) Object {
	switch r.Kind {
	case Zones:
		if o := t.Zones[r.Name]; o != nil {
			return o
		}
	case Services:
		if o := t.Services[r.Name]; o != nil {
			return o
		}
	case PoPs:
		if o := t.PoPs[r.Name]; o != nil {
			return o
		}
	case Clusters:
		if o := t.Clusters[r.Name]; o != nil {
			return o
		}
	}
	return nil
}

// put adds or replaces an object.
func (t *Topology) put(r Ref, o Object) {
	switch o := o.(type) {
	case *Zone:
		if t.Zones == nil {
			t.Zones = map[string]*Zone{}
		}
		t.Zones[r.Name] = o
	case *Service:
		if t.Services == nil {
			t.Services = map[string]*Service{}
		}
		t.Services[r.Name] = o
	case *PoP:
		if t.PoPs == nil {
			t.PoPs = map[string]*PoP{}
		}
		t.PoPs[r.Name] = o
	case *Cluster:
		if t.Clusters == nil {
			t.Clusters = map[string]*Cluster{}
		}
		t.Clusters[r.Name] = o
	}
}

// document is a whole topology as it is written.
type document struct {
	Schema   int `yaml:"schema"`
	Topology `yaml:",inline"`
}

// Parse reads a whole document, or one with some of the objects. It fills in defaults and checks each object by itself;
// Validate checks how they fit together. The error is an *InvalidError that tells all faults.
func Parse(text []byte) (*Topology, error) {
	var doc struct {
		Schema   int                 `yaml:"schema"`
		Zones    map[string]*Zone    `yaml:"zones"`
		Services map[string]*Service `yaml:"services"`
		PoPs     map[string]*PoP     `yaml:"pops"`
		Clusters map[string]*Cluster `yaml:"clusters"`
	}
	var d decoder
	d.decode(text, "", &doc)
	if IsTooNew(doc.Schema) {
		return nil, &InvalidError{d.locate(checkSchema("schema", doc.Schema))}
	}
	t := &Topology{Zones: doc.Zones, Services: doc.Services, PoPs: doc.PoPs, Clusters: doc.Clusters}
	var faults []Fault
	if len(d.faults) == 0 || doc.Schema != 0 {
		faults = checkSchema("schema", doc.Schema)
	}
	for _, r := range t.Refs() {
		o := t.Object(r)
		inheritSchema(o, doc.Schema)
		o.fillDefaults()
		faults = append(faults, checkObject(r, o)...)
	}
	if faults = d.all(faults); len(faults) > 0 {
		return nil, &InvalidError{faults}
	}
	return t, nil
}

// inheritSchema gives an object that stands in a document the document's schema.
func inheritSchema(o Object, schema int) {
	switch o := o.(type) {
	case *Zone:
		o.Schema = max(o.Schema, schema)
	case *Service:
		o.Schema = max(o.Schema, schema)
	case *PoP:
		o.Schema = max(o.Schema, schema)
	case *Cluster:
		o.Schema = max(o.Schema, schema)
	}
}

// ParseObject reads one object, as it is the value of an etcd key. It fills in defaults and checks the object by itself.
func ParseObject(r Ref, text []byte) (Object, []Fault) {
	o, faults := parseObject(r, text)
	if len(faults) > 0 {
		return nil, faults
	}
	return o, nil
}

// parseObject returns the object with its faults: one whose schema is too new has its schema.
func parseObject(r Ref, text []byte) (Object, []Fault) {
	var o Object
	switch r.Kind {
	case Zones:
		o = new(Zone)
	case Services:
		o = new(Service)
	case PoPs:
		o = new(PoP)
	case Clusters:
		o = new(Cluster)
	default:
		return nil, []Fault{{Path: r.path(), Message: "no such kind of object"}}
	}
	var d decoder
	d.decode(text, r.path(), o)
	o.fillDefaults()
	return o, d.all(checkObject(r, o))
}

// Marshal returns the canonical YAML of a whole topology.
func (t *Topology) Marshal() []byte { return canonical(document{FirstSchema, *t}) }

// MarshalJSON returns the topology in the form of Marshal, as JSON.
func (t *Topology) MarshalJSON() ([]byte, error) {
	type plain Topology
	return json.Marshal(struct {
		Schema int `json:"schema"`
		*plain
	}{FirstSchema, (*plain)(t)})
}

// MarshalValue returns the canonical YAML of an object, an override or a key, as it is stored.
func MarshalValue(value any) []byte { return canonical(value) }

func canonical(value any) []byte {
	var text bytes.Buffer
	encoder := yaml.NewEncoder(&text)
	encoder.SetIndent(2)
	if err := encoder.Encode(value); err != nil {
		panic("topology: " + err.Error()) // only types of this package come here
	}
	return text.Bytes()
}

func (z *Zone) fillDefaults() {
	if z.TTL == 0 {
		z.TTL = Duration(time.Hour)
	}
	if z.NegativeTTL == 0 {
		z.NegativeTTL = Duration(time.Minute)
	}
}

func (s *Service) fillDefaults() {
	if len(s.PoPs) == 0 { // an empty list is none, which means all
		s.PoPs = nil
	}
	if len(s.Clusters) == 0 {
		s.Clusters = nil
	}
	if s.Steering.TTL == 0 {
		s.Steering.TTL = Duration(20 * time.Second)
	}
	if s.Steering.Answers == 0 {
		s.Steering.Answers = 1
	}
	if s.Steering.ECS == "" {
		s.Steering.ECS = UseECS
	}
	if s.Steering.WhenAllDown == "" {
		s.Steering.WhenAllDown = FailOpen
	}
	s.Steering.Policy.fillDefaults()
	if s.Steering.Canary != nil {
		s.Steering.Canary.Policy.fillDefaults()
	}
	s.Intake.fillDefaults()
	if s.Health != nil {
		s.Health.fillDefaults()
	}
}

func (p *Policy) fillDefaults() {
	p.Rank = cmp.Or(p.Rank, RankByRTT)
	if p.Anycast != nil {
		p.Anycast.Mode = cmp.Or(p.Anycast.Mode, AnycastAll)
	}
}

func (in *Intake) fillDefaults() {
	if in.Ack == "" {
		in.Ack = AckSpool
	}
	if in.MaxBodyBytes == 0 {
		in.MaxBodyBytes = 64 << 10
	}
	if len(in.ContentTypes) == 0 {
		in.ContentTypes = []string{"application/json", "application/*+json"}
	}
	if in.RequiredFields == nil && in.JSONSchema == "" && in.JSONRPC == nil {
		in.RequiredFields = []string{"hash", "sender", "amount"}
	}
	if in.MaxDepth == 0 {
		in.MaxDepth = 32
	}
	if sig := in.Signature; sig != nil {
		sig.Header, sig.Timestamp = cmp.Or(sig.Header, "X-Signature"), cmp.Or(sig.Timestamp, "X-Timestamp")
		sig.Tolerance = cmp.Or(sig.Tolerance, Duration(5*time.Minute))
	}
	if in.IdempotencyKey == "" {
		in.IdempotencyKey = IdempotencyOptional
	}
	if in.DeadAfter == 0 {
		in.DeadAfter = Duration(72 * time.Hour)
	}
}

func (p *PoP) fillDefaults() {
	if p.Port == 0 {
		p.Port = 443
	}
	if p.State == "" {
		p.State = Active
	}
	if p.BGP != nil {
		p.BGP.fillDefaults()
	}
}

func (c *Cluster) fillDefaults() {
	if c.MaxInFlight == 0 {
		c.MaxInFlight = 256
	}
	if c.State == "" {
		c.State = Active
	}
	if c.Health != nil {
		c.Health.fillDefaults()
	}
}
