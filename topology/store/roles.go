package store

import (
	"fmt"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Access is what a role may do with the keys of a prefix.
type Access uint8

// From nothing to everything. Own is for the keys of a node's own name: all are read, its own is written.
const (
	None Access = iota
	Read
	Own
	Write
)

// String returns the word that docs/control-plane.md has for it.
func (a Access) String() string { return [...]string{"–", "read", "read, own: write", "write"}[a] }

// Role is a role in etcd. Its name in etcd is the same.
type Role string

// The roles, in the order of the table's columns.
const (
	NodeDNS  Role = "node-dns"
	NodePoP  Role = "node-pop"
	Operator Role = "operator"
	Control  Role = "control"
)

// Roles lists all roles.
var Roles = []Role{NodeDNS, NodePoP, Operator, Control}

// PrefixAccess is a line of the table: who may do what below one prefix.
type PrefixAccess struct {
	Prefix string // below the root, such as topology/
	Access map[Role]Access
	Why    string // what decides it, for who reads the table
}

// Table says for each prefix below the root what each role may do there; what it does not name nobody may touch, but root. Write
// includes reading, since nothing here is written blindly: transactions compare before they put. An operator's edit compares over
// all of topology/ and history/ and reads what a snapshot is made of, so an operator reads secrets/ too, which are sealed. A node
// writes its own nodes/, reports/ and announces/KIND:NAME alone, by a role of its own. The control plane writes those of all names,
// because it relays what far nodes report.
func Table() []PrefixAccess {
	row := func(prefix string, dns, pop, operator, control Access, why string) PrefixAccess {
		return PrefixAccess{prefix, map[Role]Access{NodeDNS: dns, NodePoP: pop, Operator: operator, Control: control}, why}
	}
	return []PrefixAccess{
		row("topology/", Read, Read, Write, Write, "nodes follow it; apply writes it"),
		row("overrides/", Read, Read, Write, Write, "nodes follow it; drains and pins are written"),
		row("keys/", None, Read, Write, Write, "only an intake checks API keys"),
		row("secrets/", Read, Read, Read, Write, "sealed; nodes open those of their role, admins seal by the control plane"),
		row("history/", None, None, Write, Write, "each apply leaves an entry"),
		row("audit/", None, None, Write, Write, "each write leaves an entry"),
		row("nodes/", Own, Own, Read, Write, "each node its own; the relay for far ones"),
		row("reports/", Own, Own, Read, Write, "each vantage its own; verdicts are computed from all"),
		row("announces/", Own, Own, Read, Write, "each node says what it announces by BGP; who announces the same leaves enough others"),
		row("shares/", Read, Read, Read, Write, "the leader writes, nodes follow"),
		row("quota/", None, Write, Read, Write, "PoPs grant by compare-and-swap; the relay for far ones"),
		row("tickets/", None, Read, None, Write, "keys of session tickets are for intakes alone"),
		row("acme/", Read, Read, Read, Write, "challenges are answered by nodes"),
		row("dnssec/", Read, Read, Write, Write, "public keys and roll plan"),
		row("rttmap/", Read, Read, Read, Write, "the hash of the current map"),
		row("tokens/", None, None, Write, Write, "hashes of API tokens and join tokens"),
		row("leader/", None, None, Read, Write, "the election of the control planes"),
	}
}

// Of returns what a role may do below the prefix.
func (p PrefixAccess) Of(r Role) Access { return p.Access[r] }

// permission is one range of keys that an etcd role may use.
type permission struct {
	key, end string // end as etcd takes it; empty for the key alone
	kind     clientv3.PermissionType
}

// String tells it as etcdctl would.
func (p permission) String() string {
	kind := map[clientv3.PermissionType]string{
		clientv3.PermissionType(clientv3.PermRead): "read", clientv3.PermissionType(clientv3.PermWrite): "write",
		clientv3.PermissionType(clientv3.PermReadWrite): "readwrite",
	}[p.kind]
	if p.end == "" {
		return fmt.Sprintf("%s %s", kind, p.key)
	}
	return fmt.Sprintf("%s [%s, %s)", kind, p.key, p.end)
}

// permissions returns what the table grants to a role below a root that ends with a slash. Keys of nodes' own are not among it.
func permissions(root string, r Role) []permission {
	var all []permission
	for _, p := range Table() {
		kind := clientv3.PermissionType(clientv3.PermRead)
		switch p.Of(r) {
		case None:
			continue
		case Write:
			kind = clientv3.PermissionType(clientv3.PermReadWrite)
		}
		all = append(all, permission{root + p.Prefix, clientv3.GetPrefixRangeEnd(root + p.Prefix), kind})
	}
	return all
}

// ownPermissions returns what a node may do with the keys of its own name, which is NodeName's: write. It reads them by its kind's
// role.
func ownPermissions(root string, r Role, name string) []permission {
	var all []permission
	for _, p := range Table() {
		if p.Of(r) == Own {
			all = append(all, permission{root + p.Prefix + UserName(r, name), "", clientv3.PermissionType(clientv3.PermWrite)})
		}
	}
	return all
}

// UserName returns the name of a user in etcd, which is the common name of its certificate: the kind and the name, such as
// pop:sin1. It is the name, too, of a node's own role.
func UserName(r Role, name string) string {
	return NodeName(strings.TrimPrefix(string(r), "node-"), name)
}

// ParseUserName takes apart what UserName has made.
func ParseUserName(user string) (Role, string, error) {
	kind, name, ok := strings.Cut(user, ":")
	for _, r := range Roles {
		if ok && name != "" && UserName(r, name) == kind+":"+name {
			return r, name, nil
		}
	}
	return "", "", fmt.Errorf("%q is not the name of a user such as pop:sin1, dns:ns1, operator:alice or control:c1", user)
}

// IsNode reports whether the role is that of nodes, which have keys of their own.
func (r Role) IsNode() bool { return r == NodeDNS || r == NodePoP }

// held are the first releases of etcd that hold a user to its roles in nested transactions and in watches as well, by series.
var held = map[[2]int]int{{3, 5}: 33, {3, 6}: 14, {3, 7}: 1}

// HoldsRoles reports whether an etcd of this version holds users to their roles in all requests. What is no version does not.
func HoldsRoles(version string) bool {
	var major, minor, patch int
	if n, err := fmt.Sscanf(version, "%d.%d.%d", &major, &minor, &patch); n != 3 || err != nil {
		return false
	}
	first, known := held[[2]int{major, minor}]
	return known && patch >= first || major > 3 || major == 3 && minor > 7
}
