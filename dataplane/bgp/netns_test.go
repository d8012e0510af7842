package bgp

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// twoNamespaces makes two network namespaces with a cable between them, and returns the words to run a program in each.
func twoNamespaces(t *testing.T) (left, right []string) {
	t.Helper()
	ip := need(t, "ip")[0]
	if os.Getuid() != 0 {
		t.Skip("network namespaces are for root")
	}
	name := fmt.Sprintf("iso%d", rand.IntN(1_000_000))
	run := func(words ...string) {
		t.Helper()
		if out, err := exec.Command(ip, words...).CombinedOutput(); err != nil {
			t.Skipf("this machine has no network namespaces: ip %s: %v: %s", strings.Join(words, " "), err, out)
		}
	}
	for _, end := range []string{"l", "r"} {
		run("netns", "add", name+end)
		t.Cleanup(func() { _ = exec.Command(ip, "netns", "del", name+end).Run() }) // with the cable
	}
	run("link", "add", name+"l", "netns", name+"l", "type", "veth", "peer", "name", name+"r", "netns", name+"r")
	for i, end := range []string{"l", "r"} {
		ns := []string{"-n", name + end}
		run(append(ns, "addr", "add", fmt.Sprintf("10.9.0.%d/24", i+1), "dev", name+end)...)
		run(append(ns, "addr", "add", fmt.Sprintf("2001:db8:9::%d/64", i+1), "dev", name+end, "nodad")...)
		run(append(ns, "link", "set", name+end, "up")...)
		run(append(ns, "link", "set", "lo", "up")...)
	}
	in := func(end string) []string { return []string{ip, "netns", "exec", name + end} }
	return in("l"), in("r")
}

// TestPasswordsAndGTSM has a speaker and a router on two ends of a cable: sessions over IPv4 and IPv6, one of which the router opens, with
// passwords and packets that must come from the neighbour. With another password there is no session, nor with packets that might come from
// anywhere.
func TestPasswordsAndGTSM(t *testing.T) {
	t.Parallel()
	need(t, "bird", "birdc")
	left, right := twoNamespaces(t)
	const password = "correct horse battery"
	config := `
router id 10.9.0.1;
log stderr all;
protocol device {}
template bgp pop {
	local as 64500; hold time 3; keepalive time 1; connect delay time 1; connect retry time 1; error wait time 1, 1;
	ipv4 { import all; export none; };
	ipv6 { import all; export none; };
}
protocol bgp v4 from pop { local 10.9.0.1 as 64500; neighbor 10.9.0.2 port 1790 as 64512; password "` + password + `"; ttl security on; passive; }
protocol bgp v6 from pop { local 2001:db8:9::1 as 64500; neighbor 2001:db8:9::2 port 1790 as 64512; password "` + password + `"; ttl security on; }
`
	router := startBIRD(t, config, left...)
	first := orders{
		File: `
asn: 64512
announces: [198.18.53.0/24, "2001:db8:53::/48"]
rise: 1s
peers:
  four: {address: 10.9.0.1, asn: 64500, md5: true, gtsm: 1, hold_time: 3s}
  six: {address: "2001:db8:9::1", local_address: "2001:db8:9::2", asn: 64500, md5: true, gtsm: 1, hold_time: 3s, passive: true, port: 1790}
`,
		Own: []netip.Addr{netip.MustParseAddr("10.9.0.2")}, Password: password,
		Service: Check{OK: true}, Verdict: Check{OK: true}, Known: true,
	}
	p := startSpeaker(t, "p", first, right...)
	up := func() bool { return p.established() && router.uses(vip4, "v4") && router.uses(vip6, "v6") }
	until(t, "both sessions are up", up)
	if details := router.ask("show route all " + vip6); !strings.Contains(details, "BGP.next_hop: 2001:db8:9::2") {
		t.Errorf("the IPv6 route:\n%s", details)
	}

	wrong := first
	wrong.Password = "another one"
	p.tell(wrong)
	until(t, "another password ends both sessions", func() bool { return len(router.via(vip4))+len(router.via(vip6)) == 0 && !p.established() })
	none := first
	none.Password = ""
	p.tell(none)
	until(t, "no password, and so no session", func() bool {
		s := p.now().Sessions
		return len(router.via(vip4)) == 0 && len(s) == 2 && s[0].State == "down" && strings.Contains(s[0].Reason, "there is no password for it")
	})

	p.tell(first)
	until(t, "both sessions are up again", up)

	router.configure(strings.ReplaceAll(config, "ttl security on", "multihop 64")) // packets that might come from anywhere
	until(t, "the routes are gone", func() bool { return len(router.via(vip4))+len(router.via(vip6)) == 0 })
	until(t, "the router has tried, or waits", func() bool {
		return strings.Contains(router.ask("show protocols v4"), "Passive") && !p.established()
	})
	if via := append(router.via(vip4), router.via(vip6)...); len(via) > 0 {
		t.Errorf("routes from %v without a sure neighbour: %+v", via, p.now().Sessions)
	}
	if log := p.log.String(); strings.Contains(log, password) || strings.Contains(log, wrong.Password) {
		t.Errorf("a password is logged:\n%s", log)
	}
}
