package main

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/controlplane/leader"
	"github.com/isochrone/isochrone/dataplane/certs/acme"
	"github.com/isochrone/isochrone/dataplane/certs/rotation"
	"github.com/isochrone/isochrone/dataplane/peer"
	"github.com/isochrone/isochrone/health/probekey"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/topology/sealed"
)

// issueFlags say what the leader does for PoPs' certificates and session tickets.
type issueFlags struct {
	directory, email, root string
	eabKeyID, eabHMACFile  string   // external account binding
	recipients             []string // of the role of PoPs
	dnsRecipients          []string // of the role of DNS nodes
}

func (f *issueFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.directory, "acme-directory", "", "`URL` of an ACME server's directory: the leader gets certificates of all services there, by DNS-01")
	flags.StringVar(&f.email, "acme-email", "", "`address` that the CA of --acme-directory may write to")
	flags.StringVar(&f.root, "acme-ca-root", "", "`file` of the CA that the ACME server's own certificate is of (PEM; default: those of the system)")
	flags.StringVar(&f.eabKeyID, "acme-eab-key-id", "", "`id` of the key with which the account at --acme-directory is bound to one that the CA knows")
	flags.StringVar(&f.eabHMACFile, "acme-eab-hmac-file", "", "`file` with that key, of mode 0600: in base64url, as the CA gives it")
}

// check checks what belongs together. The key file is that of the role.
func (f *issueFlags) check(secretKey string) error {
	var faults []error
	if (f.eabKeyID == "") != (f.eabHMACFile == "") {
		faults = append(faults, errors.New("acme-eab-key-id: want acme-eab-hmac-file too, and the other way round"))
	}
	if f.directory == "" && (f.email != "" || f.root != "" || f.eabKeyID != "") {
		faults = append(faults, errors.New("acme-directory: acme-email, acme-ca-root and acme-eab-key-id are for it: want such as https://acme-v02.api.letsencrypt.org/directory"))
	}
	if f.directory != "" && !strings.HasPrefix(f.directory, "https://") {
		faults = append(faults, fmt.Errorf("acme-directory: %q is not a URL such as https://acme-v02.api.letsencrypt.org/directory", f.directory))
	}
	if f.directory != "" && secretKey == "" {
		faults = append(faults, errors.New("acme-directory: keys of certificates are kept sealed: name the key file of this role with secret-key"))
	}
	if len(f.dnsRecipients) > 0 && secretKey == "" {
		faults = append(faults, errors.New("dns-recipient: want secret-key too, the key file of this role, to open what is sealed for DNS nodes and for it"))
	}
	if len(f.recipients) > 0 && secretKey == "" {
		faults = append(faults, errors.New("pop-recipient: want secret-key too, the key file of this role, to open what is sealed for PoPs and for it"))
	}
	if len(f.recipients) > 0 {
		if _, err := sealed.Seal("check", []byte{1}, f.recipients, "", time.Now()); err != nil {
			faults = append(faults, fmt.Errorf("pop-recipient: %w", err))
		}
	}
	if len(f.dnsRecipients) > 0 {
		if _, err := sealed.Seal("check", []byte{1}, f.dnsRecipients, "", time.Now()); err != nil {
			faults = append(faults, fmt.Errorf("dns-recipient: %w", err))
		}
	}
	return errors.Join(faults...)
}

// roots returns the CA of --acme-ca-root; nil stands for those of the system.
func (f *issueFlags) roots() (*x509.CertPool, error) {
	if f.root == "" {
		return nil, nil
	}
	text, err := os.ReadFile(f.root)
	if err != nil {
		return nil, fmt.Errorf("acme-ca-root: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("acme-ca-root: %s has no certificate in PEM", f.root)
	}
	return pool, nil
}

// binding returns what binds the account to one that the CA knows; nil for nothing. Errors do not repeat the key.
func (f *issueFlags) binding() (*acme.Binding, error) {
	if f.eabHMACFile == "" {
		return nil, nil
	}
	text, err := privatefile.Read(f.eabHMACFile, 1<<10)
	if err != nil {
		return nil, fmt.Errorf("acme-eab-hmac-file: %w", err)
	}
	key, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(string(text)), "="))
	if err != nil || len(key) == 0 {
		return nil, fmt.Errorf("acme-eab-hmac-file: %s has no key in base64url", f.eabHMACFile)
	}
	return &acme.Binding{KeyID: f.eabKeyID, HMAC: key}, nil
}

// issue adds the leader's tasks for certificates and session tickets. Without identities there are none.
func (c *controlParts) issue(f *issueFlags, identities []age.Identity, n *node) error {
	if len(identities) == 0 {
		return nil
	}
	roles := slices.Concat(f.recipients, f.dnsRecipients)
	c.tasks = append(c.tasks,
		leader.Task{Name: "rotate keys of session tickets", Run: rotation.New(c.store, identities, f.recipients, c.log).Run},
		leader.Task{Name: "secret of calls between PoPs", Run: peer.NewKeeper(c.store, identities, f.recipients, c.log).Run},
		leader.Task{Name: "key of probes", Run: probekey.NewKeeper(c.store, identities, roles, c.log).Run})
	if f.directory == "" {
		return nil
	}
	roots, err := f.roots()
	if err != nil {
		return err
	}
	binding, err := f.binding()
	if err != nil {
		return err
	}
	c.acme = acme.New(acme.Config{
		Client: c.etcd, Root: c.root, Directory: f.directory, Email: f.email, Roots: roots, Binding: binding, Identities: identities, Recipients: f.recipients, Log: c.log,
		Names: func() []string {
			if snap := n.Snapshot(); snap != nil {
				return slices.Sorted(maps.Keys(snap.Topology.Services))
			}
			return nil
		},
		Seen: func(ctx context.Context, revision int64) error { return c.seen(ctx, n, revision) },
	})
	c.tasks = append(c.tasks, leader.Task{Name: "certificates by ACME", Run: c.acme.Run})
	return nil
}

// seenInterval is how often is looked what DNS nodes have read. A node tells it every few seconds.
const seenInterval = 100 * time.Millisecond

// seen returns when all DNS nodes, this one if it is one, have read the store up to a revision.
func (c *controlParts) seen(ctx context.Context, n *node, revision int64) error {
	look := time.NewTicker(seenInterval)
	defer look.Stop()
	for {
		behind := n.Snapshot().Revision < revision
		if nodes := c.nodes.Load(); nodes != nil {
			for name, other := range *nodes {
				behind = behind || name != c.name && (other.Kind == "dns" || other.Kind == "up") && other.Revision < revision
			}
		}
		select {
		case <-look.C: // once more when all have, so that what they have read is in force
			if !behind {
				return nil
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ownRoleKey returns the path of the key file of "isochrone up", which is all roles at once. It makes the file where it is missing.
func ownRoleKey(dir stateDir) (string, error) {
	path := dir.path("secrets.key")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return path, err
	}
	identity, recipient, err := sealed.GenerateIdentity()
	if err != nil {
		return "", err
	}
	return path, privatefile.Write(path, fmt.Appendf(nil, "# role: up\n# recipient: %s\n%s\n", recipient, identity))
}
