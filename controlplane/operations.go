package controlplane

import (
	"context"
	"encoding/json"
	"net/netip"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// Operations is all that people and programs can do with an Isochrone. Service does it at the store, Client asks a control plane to do
// it, and each endpoint of the HTTP API is one of these methods. Lists are in the order of names, histories the newest first.
//
// Errors are told apart by errors.Is: ErrInvalid (a *topology.InvalidError has the faults), ErrNotFound, ErrConflict, ErrTooLarge,
// ErrNotReady, ErrUnauthorized, ErrForbidden, ErrLimited.
type Operations interface {
	// What is.
	Status(context.Context) (*Status, error)
	Explain(context.Context, ExplainRequest) (*router.Trace, error)
	Coloured(context.Context, ColouredRequest) (*Coloured, error)
	Nodes(context.Context) ([]NodeStatus, error)
	Safe(context.Context, SafeRequest) (*Safety, error)

	// The topology.
	Topology(context.Context) (*Stored, error)
	Object(context.Context, topology.Ref) (*StoredObject, error)
	Apply(context.Context, ApplyRequest) (*Applied, error)
	History(context.Context, Page) (*HistoryPage, error)
	At(ctx context.Context, revision int64) (*Stored, error)
	Diff(context.Context, DiffRequest) (*Difference, error)
	Rollback(context.Context, RollbackRequest) (*Applied, error)
	Doctor(context.Context) (*Diagnosis, error)

	// Overrides, keys, sealed secrets, tokens.
	Overrides(context.Context) ([]OverrideStatus, error)
	PutOverride(ctx context.Context, name string, o *topology.Override) (revision int64, err error)
	DeleteOverride(ctx context.Context, name string) (revision int64, err error)
	Keys(context.Context, Page) (*KeyPage, error)
	CreateKey(context.Context, KeyRequest) (*NewKey, error)
	RotateKey(ctx context.Context, id string, overlap time.Duration) (*NewKey, error)
	RevokeKey(ctx context.Context, id string) error
	Secrets(context.Context) ([]SecretStatus, error)
	PutSecret(ctx context.Context, name string, s *topology.Sealed) error
	DeleteSecret(ctx context.Context, name string) error
	Tokens(context.Context) ([]TokenStatus, error)
	CreateToken(context.Context, TokenRequest) (*NewToken, error)
	RevokeToken(ctx context.Context, id string) error
	Audit(context.Context, Page) (*AuditPage, error)

	// Nodes come and go.
	Invite(context.Context, InviteRequest) (*Invitation, error)
	Expel(ctx context.Context, kind, name string) (*Expelled, error)

	// Whoami tells who is asking.
	Whoami(context.Context) (*Identity, error)
	// Events calls take with what has changed, as it changes, until ctx ends or take returns an error, which it returns.
	Events(ctx context.Context, take func(Event) error) error
}

// Role says what a token may do: each may do what those before it may.
type Role string

// The roles.
const (
	Viewer   Role = "viewer"   // reads all but secrets, which nobody reads
	Operator Role = "operator" // edits topology, overrides and keys
	Admin    Role = "admin"    // makes tokens, seals secrets, invites nodes
)

// Identity is who is asking.
type Identity struct {
	Name string `json:"name"` // for history and audit
	Role Role   `json:"role"`
}

// Page asks for a part of a list: at most Limit items (1..1000, 0 stands for 100), those that follow what the page before named as Next.
type Page struct {
	Limit int
	After string
}

// Stored is the topology as it is stored, or as it was.
type Stored struct {
	Revision int64              `json:"revision"` // at which it was read; of a past one, that of the edit that made it
	Topology *topology.Topology `json:"topology"` // objects that cannot be read are left out
	Faults   []topology.Fault   `json:"faults"`   // why it is not in force; empty when it is
	Warnings []topology.Fault   `json:"warnings"` // what is likely not meant, though it is in force
}

// StoredObject is one object.
type StoredObject struct {
	Revision int64           `json:"revision"` // at which it was last changed: its entity tag
	Text     string          `json:"text"`     // as it is stored, which may be no valid object
	Value    topology.Object `json:"value"`    // nil when it is not valid
}

// ApplyRequest is an edit of the topology.
type ApplyRequest struct {
	Document      string   `json:"document"`                 // YAML or JSON, with the objects to put
	Delete        []string `json:"delete,omitempty"`         // objects, such as pops/sin1
	Replace       bool     `json:"replace,omitempty"`        // delete all objects that the document does not have
	Base          int64    `json:"base,omitempty"`           // the revision that the edit was made on; 0: whatever is stored
	Message       string   `json:"message,omitempty"`        // why, for the history
	DryRun        bool     `json:"dry_run,omitempty"`        // only tell what it would do
	RevertInvalid bool     `json:"revert_invalid,omitempty"` // take back, in the same transaction, the edits that made the stored topology invalid
}

// Applied is what an edit did, or would do.
type Applied struct {
	Revision int64            `json:"revision"` // 0 for a dry run
	Changes  []ObjectChange   `json:"changes"`
	Effect   []Effect         `json:"effect"` // by service; empty when it could not be foreseen
	Warnings []topology.Fault `json:"warnings"`
}

// ObjectChange is what differs of one object.
type ObjectChange struct {
	Object string        `json:"object"` // such as pops/sin1
	Kind   string        `json:"kind"`   // added, changed, removed
	Fields []FieldChange `json:"fields,omitempty"`
}

// FieldChange is what differs of one field. Values are in JSON; that of a missing field is null.
type FieldChange struct {
	Path string          `json:"path"` // such as location.lat
	From json.RawMessage `json:"from"`
	To   json.RawMessage `json:"to"`
}

// Effect is what an edit does to the clients of a service, as whatif foresees it for a sample of the world's clients.
type Effect struct {
	Service    string     `json:"service"`
	Family     string     `json:"family"`   // A or AAAA
	Moved      float64    `json:"moved"`    // share of clients that are answered otherwise, 0..1
	Unserved   float64    `json:"unserved"` // share that gets no answer afterwards
	Moves      []Move     `json:"moves"`    // the largest first, at most 20
	P50MS      [2]float64 `json:"p50_ms"`   // expected round-trip time, before and after
	P95MS      [2]float64 `json:"p95_ms"`
	Overloaded []string   `json:"overloaded"` // PoPs that would have more than their capacity
}

// Move is a share of clients that goes from one PoP to another; no name stands for no answer.
type Move struct {
	From  string  `json:"from"`
	To    string  `json:"to"`
	Share float64 `json:"share"`
}

// HistoryEntry is one edit of the topology.
type HistoryEntry struct {
	Revision int64          `json:"revision"`
	Time     time.Time      `json:"time"`
	Author   string         `json:"author"` // "outside" for an edit by other means
	Message  string         `json:"message,omitempty"`
	Changes  []ObjectChange `json:"changes"`
	Valid    bool           `json:"valid"` // it left a valid topology
}

// HistoryPage is a part of the history.
type HistoryPage struct {
	Entries []HistoryEntry `json:"entries"`
	Next    string         `json:"next,omitempty"`
}

// DiffRequest asks what differs between two revisions; 0 stands for what is stored now.
type DiffRequest struct {
	From, To int64
	Effect   bool // foresee it, too
}

// Difference is what differs between two revisions.
type Difference struct {
	From    int64          `json:"from"`
	To      int64          `json:"to"`
	Changes []ObjectChange `json:"changes"`
	Text    string         `json:"text"` // a unified diff of the canonical YAML
	Effect  []Effect       `json:"effect,omitempty"`
}

// RollbackRequest asks to make the topology what it was at a revision.
type RollbackRequest struct {
	Revision int64  `json:"revision"`
	Base     int64  `json:"base,omitempty"` // as in ApplyRequest
	Message  string `json:"message,omitempty"`
	DryRun   bool   `json:"dry_run,omitempty"`
}

// Diagnosis says what is wrong with the stored topology, and which edits did it.
type Diagnosis struct {
	Revision int64            `json:"revision"`
	Valid    bool             `json:"valid"`
	Faults   []topology.Fault `json:"faults"`
	Warnings []topology.Fault `json:"warnings"`
	Ignored  []topology.Fault `json:"ignored"`            // overrides, keys and others without effect
	LastGood int64            `json:"last_good"`          // the newest revision with a valid topology, 0 when the history has none
	Culprits []HistoryEntry   `json:"culprits,omitempty"` // the edits since, the oldest first
	Notes    []string         `json:"notes,omitempty"`    // what else explains it, each a sentence
}

// SafeRequest asks whether a PoP or a cluster can be drained.
type SafeRequest struct{ PoP, Cluster string }

// Safety is the answer.
type Safety struct {
	Safe    bool     `json:"safe"`
	Because []string `json:"because"` // the reasons, each a sentence
	Effect  []Effect `json:"effect"`
}

// ColouredRequest asks for a map of the world.
type ColouredRequest struct{ Service, Family, By string } // By is "pop" or "rtt"

// Coloured is the world in cells: who would be answered which PoP, and how far it is.
type Coloured struct {
	Revision int64    `json:"revision"` // of the view; a later event may ask for a new map
	PoPs     []string `json:"pops"`
	StepDeg  float64  `json:"step_deg"` // height and width of a cell
	Rows     []Row    `json:"rows"`     // from north to south
}

// Row is the land of one latitude, in runs of equal cells from west to east.
type Row struct {
	LatDeg float64      `json:"lat"`  // of the centre
	Runs   [][4]float64 `json:"runs"` // first longitude, number of cells, index in PoPs (-1: no answer), expected round-trip time in ms
}

// NodeStatus is a process of Isochrone that is alive.
type NodeStatus struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"` // dns, pop, control, up
	Version  string    `json:"version"`
	Schema   int       `json:"schema"` // the newest that it knows
	Started  time.Time `json:"started"`
	Revision int64     `json:"revision"`          // of the store, as far as it has read
	Good     int64     `json:"topology_revision"` // in force there
	Hash     string    `json:"hash"`              // of all that is in force there
	Behind   bool      `json:"behind"`            // another topology is in force there than here
	Leader   bool      `json:"leader"`
}

// KeyStatus is an API key without its secret, and without the hash of it.
type KeyStatus struct {
	ID             string         `json:"id"`
	Services       []string       `json:"services,omitempty"` // none means all
	From           []netip.Prefix `json:"from,omitempty"`     // none means anywhere
	QuotaPerMinute int64          `json:"quota_per_minute"`
	Probe          bool           `json:"probe,omitempty"`
	Note           string         `json:"note,omitempty"`
	Created        time.Time      `json:"created"`
	Expires        time.Time      `json:"expires,omitzero"`        // zero: never
	PreviousUntil  time.Time      `json:"previous_until,omitzero"` // until when the key that this one replaces is good; zero: there is none
	Expired        bool           `json:"expired"`
	Warnings       []string       `json:"warnings,omitempty"` // what is likely not meant, each a sentence
}

// KeyPage is a part of the keys.
type KeyPage struct {
	Keys []KeyStatus `json:"keys"`
	Next string      `json:"next,omitempty"`
}

// KeyRequest asks for a new API key. Zero values stand for the defaults: all services, 1000 a minute, no end, from anywhere.
type KeyRequest struct {
	Services       []string  `json:"services,omitempty"`
	QuotaPerMinute int64     `json:"quota_per_minute,omitempty"`
	Expires        time.Time `json:"expires,omitzero"`
	From           []string  `json:"from,omitempty"` // prefixes
	Note           string    `json:"note,omitempty"`
	Probe          bool      `json:"probe,omitempty"`
}

// NewKey is a key with its secret, which is shown this once.
type NewKey struct {
	KeyStatus
	Secret string `json:"key"`
}

// SecretStatus is a sealed secret, without its contents.
type SecretStatus struct {
	Name string `json:"name"`
	*topology.Sealed
}

// TokenStatus is a token of the control API, without its secret.
type TokenStatus struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // whose it is
	Role    Role      `json:"role"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires,omitzero"`
	Expired bool      `json:"expired"`
}

// TokenRequest asks for a new token of the control API.
type TokenRequest struct {
	Name    string    `json:"name"`
	Role    Role      `json:"role"`
	Expires time.Time `json:"expires,omitzero"`
}

// NewToken is a token with its secret, which is shown this once.
type NewToken struct {
	TokenStatus
	Secret string `json:"token"`
}

// AuditEntry is one write, whatever it was about.
type AuditEntry struct {
	Revision int64     `json:"revision"`
	Time     time.Time `json:"time"`
	Author   string    `json:"author"`
	Action   string    `json:"action"` // apply, put, delete, rollback, …
	Objects  []string  `json:"objects"`
}

// AuditPage is a part of the audit log.
type AuditPage struct {
	Entries []AuditEntry `json:"entries"`
	Next    string       `json:"next,omitempty"`
}

// Event says that something has changed.
type Event struct {
	ID   string          `json:"-"`    // to go on after, when a stream breaks
	Kind string          `json:"kind"` // status, topology, overrides, nodes, history
	Data json.RawMessage `json:"data"` // of status, the whole Status; of others, the revision
}
