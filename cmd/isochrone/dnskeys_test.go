package main

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// keyDesk runs the commands about keys on a store of their own.
type keyDesk struct {
	t      *testing.T
	dir    string
	etcd   string
	client *clientv3.Client
}

func newKeyDesk(t *testing.T) *keyDesk {
	t.Helper()
	etcd, client := startEtcd(t)
	zone := &topology.Zone{
		Schema: 1, Nameservers: map[string][]netip.Addr{"ns1.example.net": {netip.MustParseAddr("192.0.2.53")}}, Hostmaster: "host.example.net",
	}
	put := map[topology.Ref]topology.Object{{Kind: topology.Zones, Name: "example.net"}: zone, {Kind: topology.Zones, Name: "example.org"}: zone}
	for r, o := range put {
		parsed, faults := topology.ParseObject(r, topology.MarshalValue(o))
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		put[r] = parsed
	}
	if _, err := store.New(client, storeRoot).Apply(t.Context(), store.Change{Put: put}); err != nil {
		t.Fatal(err)
	}
	return &keyDesk{t, t.TempDir(), etcd.Endpoint(), client}
}

// try runs a command and returns what it prints and its error.
func (d *keyDesk) try(line string) (string, error) {
	root := &cobra.Command{Use: "isochrone", SilenceUsage: true, SilenceErrors: true}
	group := newGroup("dns", "", newDNSKeyCommands()...)
	root.AddCommand(group)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(append(strings.Fields("dns "+line), "--dir", d.dir, "--etcd", d.etcd))
	err := root.ExecuteContext(d.t.Context())
	return out.String(), err
}

// run runs a command whose output matches the wanted patterns, in their order.
func (d *keyDesk) run(line string, want ...string) string {
	d.t.Helper()
	out, err := d.try(line)
	if err != nil {
		d.t.Fatalf("%s: %v", line, err)
	}
	if !regexp.MustCompile("(?s)" + strings.Join(want, ".*")).MatchString(out) {
		d.t.Errorf("%s: got\n%s\nwant %q", line, out, want)
	}
	d.t.Logf("$ isochrone dns %s\n%s", line, out)
	return out
}

// refuse runs a command that fails and says why.
func (d *keyDesk) refuse(line string, want ...string) {
	d.t.Helper()
	out, err := d.try(line)
	if err == nil {
		d.t.Errorf("%s: got\n%s\nwant an error", line, out)
		return
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			d.t.Errorf("%s: got %v, want %q in it", line, err, w)
		}
	}
	d.t.Logf("$ isochrone dns %s\n%s%v", line, out, err)
}

func (d *keyDesk) files() []string {
	files, err := filepath.Glob(filepath.Join(d.dir, "dnssec-keys", "*"))
	if err != nil {
		d.t.Fatal(err)
	}
	return files
}

func TestKeygen(t *testing.T) {
	t.Parallel()
	d := newKeyDesk(t)
	d.refuse("keygen example.com", "the topology has no zone example.com", "example.net, example.org")
	d.refuse("keygen example.net --algorithm rsa", "--algorithm", "ecdsa or ed25519")
	d.refuse("keygen example.net --role csk", "--role", "ksk, zsk or both")
	d.refuse("keygen example.net --role zsk", "has 0 ksks of zone example.net")
	d.refuse("ds example.net", "zone example.net is not signed", `"isochrone dns keygen example.net"`)
	d.refuse("keys example.com", "no zone example.com")
	if files := d.files(); len(files) > 0 {
		t.Errorf("refused commands left %q", files)
	}
	out := d.run("keygen Example.NET.", "Zone example.net is signed", "KSK", "ZSK", "dnssec-keys/Kexample.net.\\+013\\+\\d{5}.private",
		"example.net. IN DS \\d+ 13 2 [0-9A-F]{64}\n$")
	if files := d.files(); len(files) != 4 {
		t.Errorf("got the files %q, want two of each key", files)
	}
	if ds := d.run("ds example.net"); !strings.HasSuffix(out, ds) || strings.Count(ds, "\n") != 1 {
		t.Errorf("got %s, want the one that keygen has shown", ds)
	}
	d.refuse("keygen example.net", "signed already", "roll example.net zsk")
	if _, err := d.client.Put(t.Context(), storeRoot+"dnssec/example.org", "schema: 1\nkeys: []\n"); err != nil {
		t.Fatal(err)
	}
	d.run("keygen example.org --algorithm ed25519", "example.org. IN DS \\d+ 15 2")
	d.run("keys", "ZONE +ROLE +TAG +ALGORITHM +STATE +SINCE +PRIVATE KEY HERE", "example.net +ksk +\\d+ +ecdsa +active +\\S+ +yes",
		"example.net +zsk", "example.org +ksk +\\d+ +ed25519", "example.org +zsk")
	if out := d.run("keys example.org --keys /nowhere", "example.org +ksk +\\d+ +ed25519 +active +\\S+ +no"); strings.Contains(out, "example.net") {
		t.Errorf("keys of a zone has another zone:\n%s", out)
	}
	if err := os.Chmod(d.files()[1], 0o644); err != nil {
		t.Fatal(err)
	}
	d.run("keys", "has mode 0644", "chmod 600", "example.net +ksk +\\d+ +ecdsa +active +\\S+ +\\?")
	if _, err := d.client.Put(t.Context(), storeRoot+"dnssec/example.net", "schema: 1\nkeys: [{tag: 1}]\n"); err != nil {
		t.Fatal(err)
	}
	d.run("keys", "invalid, and so not in force: .*dnssec.example.net.keys\\[0\\]", "example.org")
	d.refuse("roll example.net --next", "dnssec.example.net.keys[0]")
}

func TestKeygenGoesOnWithAKey(t *testing.T) {
	t.Parallel()
	d := newKeyDesk(t)
	before := d.run("keygen example.net")
	d.refuse("unsign example.net", "stays signed", "--yes")
	d.run("unsign example.net --yes", "unsigned")
	d.refuse("ds example.net", "not signed")
	after := d.run("keygen example.net --role zsk", "Zone example.net is signed")
	if ds := d.run("ds example.net"); !strings.HasSuffix(before, ds) || !strings.HasSuffix(after, ds) {
		t.Errorf("the KSK is another: %s", ds)
	}
	if files := d.files(); len(files) != 6 {
		t.Errorf("got the files %q, want those of three keys", files)
	}
}

func TestRollZSK(t *testing.T) {
	t.Parallel()
	d := newKeyDesk(t)
	d.refuse("roll example.net zsk", "not signed")
	d.run("keygen example.net")
	ds := d.run("ds example.net")
	d.run("roll example.net", "No key roll is in progress")
	d.refuse("roll example.net --next", "no key roll is in progress", `"isochrone dns roll example.net zsk"`)
	d.refuse("roll example.net csk", "want zsk or ksk")
	d.refuse("roll example.net zsk --next", "want either")
	d.refuse("roll example.net --force", "add --next")
	d.run("roll example.net zsk", "The new ZSK \\d+ is published", "not before", "Copy to", "Kexample.net.*private", "roll example.net --next")
	d.refuse("roll example.net ksk", "in progress already")
	if files := d.files(); len(files) != 6 {
		t.Errorf("got the files %q, want those of three keys", files)
	}
	d.run("keys example.net", "zsk +\\d+ +ecdsa +active", "zsk +\\d+ +ecdsa +published", "example.net: The new ZSK")
	d.refuse("roll example.net --next", "too early", "wait until")
	d.run("roll example.net --next --force", "The new ZSK \\d+ signs", "Next, not before")
	d.run("keys example.net", "zsk +\\d+ +ecdsa +retired", "zsk +\\d+ +ecdsa +active")
	d.run("roll example.net --next --force", "The roll of the zsk is done")
	if out := d.run("keys"); strings.Count(out, "\n") != 3 || d.run("ds example.net") != ds {
		t.Errorf("after the roll there are\n%s", out)
	}
}

func TestRollKSK(t *testing.T) {
	t.Parallel()
	d := newKeyDesk(t)
	d.run("keygen example.net --algorithm ed25519")
	old := d.run("ds example.net")
	d.run("roll example.net ksk", "The new KSK \\d+ signs the DNSKEY records beside the old one", "Copy to")
	if got := d.run("ds example.net"); got != old {
		t.Errorf("got %s, want the DS records of before", got)
	}
	d.run("roll example.net", "The new KSK")
	d.run("roll example.net --next --force", "The parent is to replace", "Give the parent", "IN DS \\d+ 15 2", "--next --ds-seen")
	fresh := d.run("ds example.net")
	if fresh == old || strings.Count(fresh, "\n") != 1 {
		t.Errorf("got %s, want the DS records of the new key alone", fresh)
	}
	d.refuse("roll example.net --next --force", "not confirmed", "--ds-seen")
	d.run("roll example.net --next --ds-seen --ds-ttl 1h", "The parent has the DS records of the new KSK")
	d.refuse("roll example.net --next", "too early", "1h0m")
	d.run("roll example.net --next --force", "The roll of the ksk is done")
	if got := d.run("ds example.net"); got != fresh {
		t.Errorf("got %s, want %s", got, fresh)
	}
}

func TestRollPreparedKSK(t *testing.T) {
	t.Parallel()
	d := newKeyDesk(t)
	d.run("keygen example.net")
	before := d.run("keys")
	d.refuse("roll example.net --prepare", "add zsk or ksk")
	d.refuse("roll example.net ksk --key 1 --prepare", "want either")
	out := d.run("roll example.net ksk --prepare", "The new KSK \\d+ is made, and not in use", "Copy to", "--key \\d+")
	if got := d.run("keys"); got != before {
		t.Errorf("a prepared key is in use:\n%s", got)
	}
	tag := regexp.MustCompile(`--key (\d+)`).FindStringSubmatch(out)[1]
	d.refuse("roll example.net zsk --key "+tag, "no zsk "+tag)
	if out := d.run("roll example.net ksk --key "+tag, "The new KSK "+tag+" signs", "--next"); strings.Contains(out, "Copy") {
		t.Errorf("what was copied is to be copied:\n%s", out)
	}
	if files := d.files(); len(files) != 6 {
		t.Errorf("got the files %q, want those of three keys", files)
	}
}
