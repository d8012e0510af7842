package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ErrPermission is returned when etcd does not let its user do what is asked.
var ErrPermission = errors.New("etcd does not permit it")

// rootUser may do all in etcd; etcd demands that there is one before it authenticates anybody.
const rootUser = "root"

// User is one who asks etcd: a node, an operator or a control plane. Without a password the common name of its certificate says
// who it is.
type User struct {
	Role     Role
	Name     string
	Password string
}

// Setup is what etcd's authentication shall be. Roles are those of the table.
type Setup struct {
	Users        []User
	RootPassword string       // of a root that is made now; empty: it is known by its certificate only
	DryRun       bool         // only tell
	Tell         func(string) // what is done, a line at a time; nothing is told of what is as it shall be
}

// SetUp makes roles and users, those that are missing, and then has etcd authenticate everybody. Roles that differ from the table are
// made to agree with it; users keep what they have beyond. It may be repeated. The error is ErrPermission when authentication is
// on and the client's user is not root.
func SetUp(ctx context.Context, client *clientv3.Client, root string, s Setup) error {
	g := &guard{client: client, root: New(client, root).root, dry: s.DryRun, tell: s.Tell}
	for _, r := range Roles {
		if err := g.role(ctx, string(r), permissions(g.root, r)); err != nil {
			return err
		}
	}
	if err := g.role(ctx, rootUser, nil); err != nil {
		return err
	}
	if err := g.user(ctx, rootUser, s.RootPassword, rootUser); err != nil {
		return err
	}
	for _, u := range s.Users {
		if err := g.add(ctx, u); err != nil {
			return err
		}
	}
	if on, err := client.AuthStatus(ctx); err == nil && on.Enabled {
		return nil
	} else if err != nil && status.Code(err) != codes.Unimplemented { // before etcd 3.5; to enable what is enabled changes nothing
		return authError("ask whether authentication is on", err)
	}
	return g.do("turn authentication on", func() error {
		_, err := client.AuthEnable(ctx)
		return err
	})
}

// AddUser makes the user of a node, operator or control plane in etcd, with the role of a node's own keys where it is one. It may
// be repeated. The error is ErrPermission when the client's user is not root, and nil without doing anything when etcd has no
// roles because it authenticates nobody.
func AddUser(ctx context.Context, client *clientv3.Client, root string, u User) error {
	g := &guard{client: client, root: New(client, root).root, tell: func(string) {}}
	if _, err := client.RoleGet(ctx, string(u.Role)); errors.Is(err, rpctypes.ErrRoleNotFound) {
		return nil
	} else if err != nil {
		return authError("read role "+string(u.Role), err)
	}
	return g.add(ctx, u)
}

// RemoveUser takes a user and its own role out of etcd. What is not there is no error; ErrPermission is as in AddUser.
func RemoveUser(ctx context.Context, client *clientv3.Client, r Role, name string) error {
	user := UserName(r, name)
	if _, err := client.UserDelete(ctx, user); err != nil && !errors.Is(err, rpctypes.ErrUserNotFound) {
		return authError("delete user "+user, err)
	}
	if _, err := client.RoleDelete(ctx, user); err != nil && !errors.Is(err, rpctypes.ErrRoleNotFound) {
		return authError("delete role "+user, err)
	}
	return nil
}

// guard makes roles and users in etcd.
type guard struct {
	client *clientv3.Client
	root   string
	dry    bool
	tell   func(string)
}

// do tells what is done and does it, unless it shall only be told.
func (g *guard) do(what string, work func() error) error {
	if !g.dry {
		if err := work(); err != nil {
			return authError(what, err)
		}
	}
	g.tell(what)
	return nil
}

func authError(what string, err error) error {
	if errors.Is(err, rpctypes.ErrPermissionDenied) || errors.Is(err, rpctypes.ErrUserEmpty) {
		return fmt.Errorf("%s: %w: authentication is on, and only root may", what, ErrPermission)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func (g *guard) add(ctx context.Context, u User) error {
	user := UserName(u.Role, u.Name)
	roles := []string{string(u.Role)}
	if u.Role.IsNode() {
		if err := g.role(ctx, user, ownPermissions(g.root, u.Role, u.Name)); err != nil {
			return err
		}
		roles = append(roles, user)
	}
	return g.user(ctx, user, u.Password, roles...)
}

// role makes a role whose permissions below the root are these. What it may do elsewhere is left alone: several deployments can
// share one etcd and its roles.
func (g *guard) role(ctx context.Context, name string, want []permission) error {
	there, err := g.client.RoleGet(ctx, name)
	var have []permission
	switch {
	case errors.Is(err, rpctypes.ErrRoleNotFound):
		if err := g.do("add role "+name, func() error {
			_, err := g.client.RoleAdd(ctx, name)
			return err
		}); err != nil {
			return err
		}
	case err != nil:
		return authError("read role "+name, err)
	default:
		for _, p := range there.Perm {
			have = append(have, permission{string(p.Key), string(p.RangeEnd), clientv3.PermissionType(p.PermType)})
		}
	}
	if name == rootUser {
		return nil
	}
	for _, p := range have {
		if slices.ContainsFunc(want, func(w permission) bool { return w.key == p.key && w.end == p.end }) || !g.ours(p) {
			continue
		}
		if err := g.do(fmt.Sprintf("role %s: revoke %v", name, p), func() error {
			_, err := g.client.RoleRevokePermission(ctx, name, p.key, p.end)
			return err
		}); err != nil {
			return err
		}
	}
	for _, p := range want {
		if slices.Contains(have, p) {
			continue
		}
		if err := g.do(fmt.Sprintf("role %s: grant %v", name, p), func() error {
			_, err := g.client.RoleGrantPermission(ctx, name, p.key, p.end, p.kind)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// ours reports whether a permission reaches below the root.
func (g *guard) ours(p permission) bool {
	switch p.end {
	case "":
		return p.key >= g.root && p.key < clientv3.GetPrefixRangeEnd(g.root)
	case "\x00": // to the end of all keys
		return p.key < clientv3.GetPrefixRangeEnd(g.root)
	}
	return p.key < clientv3.GetPrefixRangeEnd(g.root) && p.end > g.root
}

func (g *guard) user(ctx context.Context, name, password string, roles ...string) error {
	there, err := g.client.UserGet(ctx, name)
	var have []string
	switch {
	case errors.Is(err, rpctypes.ErrUserNotFound):
		how := "known by its certificate"
		if password != "" {
			how = "with a password"
		}
		if err := g.do(fmt.Sprintf("add user %s, %s", name, how), func() error {
			_, err := g.client.UserAddWithOptions(ctx, name, password, &clientv3.UserAddOptions{NoPassword: password == ""})
			return err
		}); err != nil {
			return err
		}
	case err != nil:
		return authError("read user "+name, err)
	default:
		have = there.Roles
	}
	for _, role := range roles {
		if slices.Contains(have, role) {
			continue
		}
		if err := g.do(fmt.Sprintf("user %s: grant role %s", name, role), func() error {
			_, err := g.client.UserGrantRole(ctx, name, role)
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}
