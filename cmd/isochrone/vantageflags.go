package main

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/topology"
)

// vantageFlags say how a node takes part in looking at others.
type vantageFlags struct {
	reports string // address and port, none, or empty for the default
	region  string // of a node that the topology does not place
}

// reportsPort is where nodes take each other's reports, unless they are told otherwise.
const reportsPort = 8054

const noReports = "none"

func (f *vantageFlags) register(flags *pflag.FlagSet, placed bool, byDefault string) {
	flags.StringVar(&f.reports, "reports", "", "`address` and port (UDP) where other nodes reach this one with what they see of PoPs, or none (default: "+byDefault+")")
	if !placed {
		flags.StringVar(&f.region, "region", "", "`code` of the continent where this node is ("+strings.Join(topology.Continents, ", ")+"), for verdicts that are of one")
	}
}

// check names what cannot be.
func (f *vantageFlags) check() error {
	if f.reports != "" && f.reports != noReports {
		if at, err := netip.ParseAddrPort(f.reports); err != nil || at.Addr().IsUnspecified() {
			return fmt.Errorf("--reports: %q is not an address and port at which other nodes reach this one, such as 192.0.2.1:%d, and not none", f.reports, reportsPort)
		}
	}
	if f.region != "" && !slices.Contains(topology.Continents, f.region) {
		return fmt.Errorf("--region: %q is not one of %s", f.region, strings.Join(topology.Continents, ", "))
	}
	return nil
}

// apply tells a node, of which these are addresses.
func (f *vantageFlags) apply(n *node, own ...netip.AddrPort) {
	n.where = f.region
	n.onHost = slices.ContainsFunc(own, func(at netip.AddrPort) bool { return at.Addr().IsLoopback() })
	switch f.reports {
	case noReports:
	case "":
		for _, at := range own {
			switch {
			case at.Addr().IsLoopback(): // there may be others on it
				n.reports.at = netip.AddrPortFrom(at.Addr(), 0)
			case !at.Addr().IsUnspecified():
				n.reports.at = netip.AddrPortFrom(at.Addr(), reportsPort)
			default:
				continue
			}
			return
		}
	default:
		n.reports.at = netip.MustParseAddrPort(f.reports) // check has seen it
	}
}
