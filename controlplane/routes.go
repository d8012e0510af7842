package controlplane

import (
	"context"
	"fmt"
	"time"

	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/topology"
)

// The requests of routes that are not those of Operations as they stand.
type (
	explainParams struct {
		Service string   `query:"service" doc:"host name of the service"`
		Client  string   `query:"client" doc:"address or prefix of the client"`
		Family  string   `query:"family" doc:"A (default), AAAA or HTTPS"`
		If      []string `query:"if" doc:"what would be, such as: pop sin1 down"`
	}
	mapParams struct {
		Service string `query:"service" doc:"host name of the service; the first one by default"`
		Family  string `query:"family" doc:"A (default), AAAA or HTTPS"`
		By      string `query:"by" doc:"pop (default) or rtt"`
	}
	safeParams struct {
		PoP     string `query:"pop"`
		Cluster string `query:"cluster"`
	}
	pageParams struct {
		Limit int    `query:"limit" doc:"1..1000, 100 by default"`
		After string `query:"after" doc:"what the page before named as next"`
	}
	objectParams struct {
		Kind string `path:"kind" doc:"zones, services, pops or clusters"`
		Name string `path:"name"`
	}
	putObjectParams struct {
		Kind    string `path:"kind" doc:"zones, services, pops or clusters"`
		Name    string `path:"name"`
		Match   string `header:"If-Match" doc:"the entity tag that the edit was made on"`
		NoMatch string `header:"If-None-Match" doc:"* for an object that must not be there yet"`
		Text    string `body:"text" doc:"the object as YAML or JSON"`
	}
	deleteObjectParams struct {
		Kind  string `path:"kind" doc:"zones, services, pops or clusters"`
		Name  string `path:"name"`
		Match string `header:"If-Match" doc:"the entity tag that the deletion was decided on"`
	}
	revisionParams struct {
		Revision int64 `path:"revision"`
	}
	diffParams struct {
		From   int64 `query:"from" doc:"a revision; 0 stands for what is stored now"`
		To     int64 `query:"to" doc:"a revision; 0 stands for what is stored now"`
		Effect bool  `query:"effect" doc:"foresee what clients would be answered, too"`
	}
	nameParams struct {
		Name string `path:"name"`
	}
	nodeParams struct {
		Kind string `path:"kind" doc:"pop or dns"`
		Name string `path:"name"`
	}
	idParams struct {
		ID string `path:"id"`
	}
	overrideParams struct {
		Name string            `path:"name"`
		Body topology.Override `body:"json"`
	}
	secretParams struct {
		Name string          `path:"name"`
		Body topology.Sealed `body:"json"`
	}
	rotateBody struct {
		Overlap topology.Duration `json:"overlap"` // how long the old key is valid, such as 24h
	}
	rotateParams struct {
		ID   string     `path:"id"`
		Body rotateBody `body:"json"`
	}
	bodyOf[T any] struct {
		Body T `body:"json"`
	}
)

// written is what a route answers that writes one thing.
type written struct {
	Revision int64 `json:"revision"`
}

// routes are all operations but events, which are a stream.
func routes(s *Service) []route {
	return append(append(lookingRoutes(s), topologyRoutes(s)...), credentialRoutes(s)...)
}

func lookingRoutes(s *Service) []route {
	return []route{
		on("GET", "/v1/status", Viewer, "The state of PoPs, clusters and overrides", asking(s.Status)),
		on("GET", "/v1/explain", Viewer, "Which PoP a client is sent to, and why", func(ctx context.Context, p explainParams) (*router.Trace, error) {
			return s.Explain(ctx, ExplainRequest(p))
		}),
		on("GET", "/v1/map", Viewer, "The world's land by PoP or round-trip time", func(ctx context.Context, p mapParams) (*Coloured, error) {
			return s.Coloured(ctx, ColouredRequest(p))
		}),
		on("GET", "/v1/nodes", Viewer, "The processes that are alive", asking(s.Nodes)),
		on("GET", "/v1/safe", Viewer, "Whether a PoP or a cluster can be drained, and because", func(ctx context.Context, p safeParams) (*Safety, error) {
			return s.Safe(ctx, SafeRequest(p))
		}),
		on("GET", "/v1/whoami", Viewer, "Who is asking", asking(s.Whoami)),
		on("GET", "/v1/audit", Viewer, "All writes, the newest first", func(ctx context.Context, p pageParams) (*AuditPage, error) {
			return s.Audit(ctx, Page(p))
		}),
	}
}

func topologyRoutes(s *Service) []route {
	return []route{
		on("GET", "/v1/topology", Viewer, "The topology as it is stored", asking(s.Topology)),
		on("GET", "/v1/topology/{kind}/{name}", Viewer, "One object", func(ctx context.Context, p objectParams) (*StoredObject, error) {
			return s.Object(ctx, topology.Ref{Kind: topology.Kind(p.Kind), Name: p.Name})
		}),
		on("PUT", "/v1/topology/{kind}/{name}", Operator, "Put one object", s.putObject),
		on("DELETE", "/v1/topology/{kind}/{name}", Operator, "Delete one object", s.deleteObject),
		on("POST", "/v1/changes", Operator, "Put and delete objects, all or none, or tell what that would do", func(ctx context.Context, p bodyOf[ApplyRequest]) (*Applied, error) {
			return s.Apply(ctx, p.Body)
		}),
		on("GET", "/v1/history", Viewer, "The edits of the topology, the newest first", func(ctx context.Context, p pageParams) (*HistoryPage, error) {
			return s.History(ctx, Page(p))
		}),
		on("GET", "/v1/history/{revision}", Viewer, "The topology as it was", func(ctx context.Context, p revisionParams) (*Stored, error) {
			return s.At(ctx, p.Revision)
		}),
		on("GET", "/v1/diff", Viewer, "What differs between two revisions", func(ctx context.Context, p diffParams) (*Difference, error) {
			return s.Diff(ctx, DiffRequest(p))
		}),
		on("POST", "/v1/rollback", Operator, "Make the topology what it was", func(ctx context.Context, p bodyOf[RollbackRequest]) (*Applied, error) {
			return s.Rollback(ctx, p.Body)
		}),
		on("GET", "/v1/doctor", Viewer, "What is wrong with the stored topology, and who did it", asking(s.Doctor)),
		on("GET", "/v1/overrides", Viewer, "The overrides", asking(s.Overrides)),
		on("PUT", "/v1/overrides/{name}", Operator, "Put an override", func(ctx context.Context, p overrideParams) (written, error) {
			revision, err := s.PutOverride(ctx, p.Name, &p.Body)
			return written{revision}, err
		}),
		on("DELETE", "/v1/overrides/{name}", Operator, "End an override", func(ctx context.Context, p nameParams) (written, error) {
			revision, err := s.DeleteOverride(ctx, p.Name)
			return written{revision}, err
		}),
	}
}

func credentialRoutes(s *Service) []route {
	return []route{
		on("GET", "/v1/keys", Viewer, "The API keys, without their secrets", func(ctx context.Context, p pageParams) (*KeyPage, error) {
			return s.Keys(ctx, Page(p))
		}),
		on("POST", "/v1/keys", Operator, "Make an API key", func(ctx context.Context, p bodyOf[KeyRequest]) (*NewKey, error) {
			return s.CreateKey(ctx, p.Body)
		}),
		on("POST", "/v1/keys/{id}/rotate", Operator, "Make a key in place of another, which stays valid for a while", func(ctx context.Context, p rotateParams) (*NewKey, error) {
			return s.RotateKey(ctx, p.ID, time.Duration(p.Body.Overlap))
		}),
		on("DELETE", "/v1/keys/{id}", Operator, "Revoke an API key", func(ctx context.Context, p idParams) (none, error) {
			return none{}, s.RevokeKey(ctx, p.ID)
		}),
		on("GET", "/v1/secrets", Viewer, "The sealed secrets, as they are sealed", asking(s.Secrets)),
		on("PUT", "/v1/secrets/{name}", Admin, "Put a sealed secret", func(ctx context.Context, p secretParams) (none, error) {
			return none{}, s.PutSecret(ctx, p.Name, &p.Body)
		}),
		on("DELETE", "/v1/secrets/{name}", Admin, "Delete a sealed secret", func(ctx context.Context, p nameParams) (none, error) {
			return none{}, s.DeleteSecret(ctx, p.Name)
		}),
		on("GET", "/v1/tokens", Admin, "The tokens of this API, without their secrets", asking(s.Tokens)),
		on("POST", "/v1/tokens", Admin, "Make a token", func(ctx context.Context, p bodyOf[TokenRequest]) (*NewToken, error) {
			return s.CreateToken(ctx, p.Body)
		}),
		on("POST", "/v1/invitations", Admin, "Make a one-time token by which a machine joins as a node", func(ctx context.Context, p bodyOf[InviteRequest]) (*Invitation, error) {
			return s.Invite(ctx, p.Body)
		}),
		on("DELETE", "/v1/nodes/{kind}/{name}", Admin, "Turn a node out", func(ctx context.Context, p nodeParams) (*Expelled, error) {
			return s.Expel(ctx, p.Kind, p.Name)
		}),
		on("DELETE", "/v1/tokens/{id}", Admin, "Revoke a token", func(ctx context.Context, p idParams) (none, error) {
			return none{}, s.RevokeToken(ctx, p.ID)
		}),
	}
}

// ref returns the object that a path names.
func ref(kind, name string) (topology.Ref, error) {
	r, err := topology.ParseRef(kind + "/" + name)
	if err != nil {
		return r, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return r, nil
}
