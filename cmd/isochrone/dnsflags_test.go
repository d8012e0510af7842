package main

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
)

// TestDocumentedFlags holds the example and the page to the flags that there are.
func TestDocumentedFlags(t *testing.T) {
	f, flags := new(dnsFlags), pflag.NewFlagSet("dns", pflag.ContinueOnError)
	f.register(flags)
	f.config = "../../deploy/dns.yaml"
	if err := f.complete(flags); err != nil {
		t.Error(err)
	}
	page, err := os.ReadFile("../../docs/dns-node.md")
	if err != nil {
		t.Fatal(err)
	}
	flags.VisitAll(func(flag *pflag.Flag) {
		if !strings.Contains(string(page), "| `"+flag.Name+"` ") {
			t.Errorf("docs/dns-node.md has no row of %s", flag.Name)
		}
	})
	for line := range strings.SplitSeq(string(page), "\n") {
		name, ok := strings.CutPrefix(line, "| `")
		if name, _, _ = strings.Cut(name, "`"); ok && !strings.HasPrefix(name, "isochrone_") && flags.Lookup(name) == nil {
			t.Errorf("docs/dns-node.md has a row of %s, which is no flag", name)
		}
	}
}

func TestExpand(t *testing.T) {
	one := netip.MustParseAddrPort("192.0.2.1:53")
	got, err := expand([]netip.AddrPort{one, one, netip.MustParseAddrPort("0.0.0.0:53")})
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range got {
		if at.Addr().IsUnspecified() || !at.Addr().Is4() || at.Port() != 53 {
			t.Errorf("got %v", at)
		}
	}
	if !slices.Contains(got, netip.MustParseAddrPort("127.0.0.1:53")) || !slices.IsSortedFunc(got, netip.AddrPort.Compare) {
		t.Errorf("got %v", got)
	}
	if n := len(slices.Compact(slices.Clone(got))); n != len(got) {
		t.Errorf("got one twice: %v", got)
	}
}

func TestNeedRestart(t *testing.T) {
	read := func(args ...string) *dnsFlags {
		f, flags := new(dnsFlags), pflag.NewFlagSet("dns", pflag.ContinueOnError)
		f.register(flags)
		if err := flags.Parse(append(args, "--dir", "/state")); err != nil {
			t.Fatal(err)
		}
		if err := f.complete(flags); err != nil {
			t.Fatal(err)
		}
		return f
	}
	before := read("--listen", "192.0.2.1:53", "--nsid", "a")
	after := read("--listen", "192.0.2.1:53,192.0.2.2:53", "--nsid", "b", "--etcd", "http://192.0.2.3:2379", "--rate-limit", "5")
	if diff := cmp.Diff([]string{"etcd", "listen"}, before.needRestart(after)); diff != "" {
		t.Error(diff)
	}
	if names := after.needRestart(after); len(names) > 0 {
		t.Errorf("got %v", names)
	}
}
