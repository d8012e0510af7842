package controlplane

import (
	"context"
	"slices"
)

// roles in the order of what they may do.
var roles = []Role{Viewer, Operator, Admin}

// May reports whether who has the role may do what another one is needed for.
func (r Role) May(needed Role) bool {
	return slices.Index(roles, r) >= slices.Index(roles, needed) && slices.Contains(roles, r)
}

type identityKey struct{}

// WithIdentity returns a context in which an identity is asking.
func WithIdentity(ctx context.Context, who Identity) context.Context {
	return context.WithValue(ctx, identityKey{}, who)
}

// IdentityOf returns who is asking, and false when nobody has said.
func IdentityOf(ctx context.Context) (Identity, bool) {
	who, ok := ctx.Value(identityKey{}).(Identity)
	return who, ok
}

// author is who is asking, for history and audit.
func author(ctx context.Context) string {
	if who, ok := IdentityOf(ctx); ok {
		return who.Name
	}
	return "unknown"
}
