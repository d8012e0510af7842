package simulations

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
)

// city is where a node stands. It can post to US-East, where a cluster is beside the PoP, or to the PoP of its own city, which
// forwards to the regional cluster.
type city struct {
	name         string
	direct, near Path
}

// way is one of the ways of a city.
type way struct {
	name string
	path Path
}

func (c *city) ways() []way { return []way{{"direct", c.direct}, {"by PoP", c.near}} }

// cities are those of a course on edge intake, from which this design comes. It gives 150 ms from Singapore and 100 ms from
// Frankfurt to US-East, "total round trip 300 ms+"; with a PoP, Singapore 5 ms and 40 ms to the AP cluster, Frankfurt 5 ms
// and 20 ms to the EU cluster, "total round trip 50 ms"; nearest PoP under 10 ms, PoP to regional cluster under 30 ms. It does
// not say whether these are round trips or one-way delays.
var cities = []city{
	{"Singapore", Path{"sin", "iad", "iad"}, Path{"node", "sin", "hkg"}},
	{"Frankfurt", Path{"fra", "iad", "iad"}, Path{"node", "fra", "lon"}},
}

// claimedRTTs are the course's figures for the links, read as round trips.
func claimedRTTs() RTTs {
	return RTTs{
		{"sin", "iad"}: ms(150), {"node", "sin"}: ms(5), {"sin", "hkg"}: ms(40),
		{"fra", "iad"}: ms(100), {"node", "fra"}: ms(5), {"fra", "lon"}: ms(20),
	}
}

// measuredRTTs are medians of the 30 days to 2026-07-30 between the Azure regions Southeast Asia, Germany West Central, East
// US, East Asia and UK South (Microsoft, "Azure network round-trip latency statistics", CC BY 4.0), and 5 ms between a node
// and a PoP in its city.
func measuredRTTs() RTTs {
	return RTTs{
		{"sin", "iad"}: ms(224), {"node", "sin"}: ms(5), {"sin", "hkg"}: ms(36),
		{"fra", "iad"}: ms(94), {"node", "fra"}: ms(5), {"fra", "lon"}: ms(16.5),
	}
}

// reading is what a claimed figure of a link means.
type reading string

const (
	roundTrips reading = "round trips"
	oneWay     reading = "one-way delays"
)

// claim is something that the course says of a city, and how to find it in what was measured there.
type claim struct {
	city    string // empty: of each
	text    string
	ofLinks bool // so that it has a reading
	figure  func(*cityFigures) float64
	name    string // of the figure
	holds   func(got float64) bool
}

// cityFigures are the measured times of one city, in milliseconds.
type cityFigures struct {
	direct, near struct{ fresh, warm figures }
}

type figures struct{ to202, acknowledged, loop float64 }

// The links' round trips follow from what was measured on an open connection.
func (c *cityFigures) far() float64      { return c.direct.warm.to202 }
func (c *cityFigures) popLink() float64  { return c.near.warm.to202 }
func (c *cityFigures) regional() float64 { return round(c.near.warm.loop - c.near.warm.to202) }

// The figures that claims are about.
var claims = []claim{
	{"Singapore", "node to US-East 150 ms", true, (*cityFigures).far, "direct link", about(150)},
	{"Frankfurt", "node to US-East 100 ms", true, (*cityFigures).far, "direct link", about(100)},
	{"", "node to PoP 5 ms", true, (*cityFigures).popLink, "link to the PoP", about(5)},
	{"", "nearest PoP under 10 ms", true, (*cityFigures).popLink, "link to the PoP", under(10)},
	{"Singapore", "PoP to AP cluster 40 ms", true, (*cityFigures).regional, "link to the cluster", about(40)},
	{"Frankfurt", "PoP to EU cluster 20 ms", true, (*cityFigures).regional, "link to the cluster", about(20)},
	{"", "PoP to regional cluster under 30 ms", true, (*cityFigures).regional, "link to the cluster", under(30)},
	{"", "direct: total round trip 300 ms+", false, func(c *cityFigures) float64 { return c.direct.fresh.loop }, "direct, fresh, loop", atLeast(300)},
	{"", "direct: total round trip 300 ms+", false, func(c *cityFigures) float64 { return c.direct.warm.loop }, "direct, warm, loop", atLeast(300)},
	{"", "by PoP: total round trip 50 ms", false, func(c *cityFigures) float64 { return c.near.fresh.loop }, "by PoP, fresh, loop", about(50)},
	{"", "by PoP: total round trip 50 ms", false, func(c *cityFigures) float64 { return c.near.warm.loop }, "by PoP, warm, loop", about(50)},
}

// about reports whether a figure is within 10 % of another.
func about(want float64) func(float64) bool {
	return func(got float64) bool { return round(max(got-want, want-got)) <= round(want/10) }
}

func atLeast(want float64) func(float64) bool { return func(got float64) bool { return got >= want } }
func under(want float64) func(float64) bool   { return func(got float64) bool { return got < want } }

// SingaporeFrankfurt compares posting from two cities to US-East with posting to a PoP nearby, over links of the claimed and
// of measured round-trip times. Links in changed replace measured ones. The error says what could not be run; what came out
// wrong is in Report.Failures.
func SingaporeFrankfurt(changed RTTs) (*Report, error) { return compared(changed, spreadClients) }

// compared holds a report against the golden one. Without clients it has no spread.
func compared(changed RTTs, clients int) (*Report, error) {
	report, err := singaporeFrankfurt(changed, MeasureIntake)
	if err != nil {
		return nil, err
	}
	measured, err := measuredWith(changed)
	if err != nil {
		return nil, err
	}
	if clients > 0 {
		if report.Spread, err = spread(measured, clients, MeasureMany); err != nil {
			return nil, err
		}
		report.checkSpread()
	}
	var golden Report
	if err := json.Unmarshal(singaporeFrankfurtGolden, &golden); err != nil {
		return nil, fmt.Errorf("read the golden figures: %w", err)
	}
	report.compare(&golden, len(changed) == 0)
	return report, nil
}

//go:embed singapore_frankfurt.golden.json
var singaporeFrankfurtGolden []byte

// measureFunc is MeasureIntake, or that with a fault in a test.
type measureFunc func(RTTs, Path, Transport) (fresh, warm Times, err error)

func singaporeFrankfurt(changed RTTs, measure measureFunc) (*Report, error) {
	claimed, doubled := claimedRTTs(), claimedRTTs()
	for link, rtt := range doubled {
		doubled[link] = 2 * rtt
	}
	measured, err := measuredWith(changed)
	if err != nil {
		return nil, err
	}
	report := &Report{Scenario: "singapore-frankfurt", Tables: make([]Table, 3)}
	var running errgroup.Group
	for i, of := range []struct {
		title    string
		rtts     RTTs
		readings []reading
	}{
		{"links as claimed, read as round trips", claimed, []reading{roundTrips}},
		{"links as claimed, read as one-way delays", doubled, []reading{oneWay}},
		{"links as measured between cloud regions", measured, []reading{roundTrips, oneWay}},
	} {
		running.Go(func() (err error) {
			report.Tables[i], err = compareCities(of.title, of.rtts, of.readings, measure)
			return err
		})
	}
	if err := running.Wait(); err != nil {
		return nil, err
	}
	report.checkAnalytic()
	return report, nil
}

// measuredWith returns the measured links, with others in their place.
func measuredWith(changed RTTs) (RTTs, error) {
	measured := measuredRTTs()
	for link, rtt := range changed {
		known := slices.Collect(measured.Links())
		i := slices.IndexFunc(known, func(l Link) bool { return l == link || l == Link{link[1], link[0]} })
		if i < 0 {
			return nil, fmt.Errorf("link %v is not in this scenario; it has %v", link, known)
		}
		measured[known[i]] = rtt
	}
	return measured, nil
}

// compareCities makes one table.
func compareCities(title string, rtts RTTs, readings []reading, measure measureFunc) (Table, error) {
	table := Table{Title: title}
	for link := range rtts.Links() {
		table.Links = append(table.Links, LinkRTT{link.String(), inMS(rtts[link])})
	}
	for _, c := range cities {
		var measured cityFigures
		for _, way := range []struct {
			name string
			path Path
			to   *struct{ fresh, warm figures }
		}{{"direct", c.direct, &measured.direct}, {"by PoP", c.near, &measured.near}} {
			for _, over := range []Transport{QUIC, TCP} {
				fresh, warm, err := measure(rtts, way.path, over)
				if err != nil {
					return table, fmt.Errorf("%s, %s: %s over %s: %w", title, c.name, way.name, over, err)
				}
				if over == QUIC {
					way.to.fresh, way.to.warm = figuresOf(fresh), figuresOf(warm)
				}
				table.Rows = append(table.Rows, rows(c.name, way.name, rtts, way.path, over, figuresOf(fresh), figuresOf(warm))...)
			}
		}
		table.Claims = append(table.Claims, judge(c.name, &measured, readings)...)
	}
	return table, nil
}

// rows returns what was measured on one way, beside the arithmetic of the links: with p and c the round trips from client to
// PoP and from PoP to cluster, a QUIC handshake takes p and one of TCP with TLS 1.3 takes 2p; a request is at the PoP half of p
// later, its answer at the client after p.
func rows(city, way string, rtts RTTs, path Path, over Transport, fresh, warm figures) []Row {
	p, _ := rtts.Between(path.Client, path.PoP)
	c, _ := rtts.Between(path.PoP, path.Cluster)
	row := func(connection string, handshake time.Duration, measured figures) Row {
		return Row{
			City: city, Way: way, PMS: inMS(p), CMS: inMS(c), Transport: string(over), Connection: connection,
			To202:        Figure{measured.to202, inMS(handshake + p)},
			Acknowledged: Figure{measured.acknowledged, inMS(handshake + p/2 + c)},
			Loop:         Figure{measured.loop, inMS(handshake + p + c)},
		}
	}
	handshake := p
	if over == TCP {
		handshake = 2 * p
	}
	return []Row{row("fresh", handshake, fresh), row("warm", 0, warm)}
}

// judge holds the claims of a city against what was measured.
func judge(city string, measured *cityFigures, readings []reading) []Claim {
	var judged []Claim
	for _, c := range claims {
		if c.city != "" && c.city != city {
			continue
		}
		figure := c.figure(measured)
		if !c.ofLinks {
			judged = append(judged, Claim{City: city, Claim: c.text, Figure: c.name, MS: figure, Holds: c.holds(figure)})
			continue
		}
		for _, r := range readings {
			read, name := figure, c.name+", round trip"
			if r == oneWay {
				read, name = round(figure/2), c.name+", one way"
			}
			judged = append(judged, Claim{City: city, Claim: c.text, Figure: name, MS: read, Holds: c.holds(read)})
		}
	}
	return judged
}

func figuresOf(t Times) figures { return figures{inMS(t.To202), inMS(t.Acknowledged), inMS(t.Loop)} }
