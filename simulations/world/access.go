package world

import "github.com/isochrone/isochrone/simulations/scenario"

// Line is a kind of access line, by its number in scenario.Lines.
type Line uint8

// The kinds of line.
const (
	Datacentre Line = iota
	Fibre
	Cable
	DSL
)

// String returns the name of the kind.
func (l Line) String() string { return scenario.Lines[l] }

// homes are the parts of the lines of clients that are in no data centre, unless the scenario says otherwise: an assumption.
var homes = []scenario.Access{{Line: "fibre", Part: 0.5}, {Line: "cable", Part: 0.3}, {Line: "dsl", Part: 0.2}}

// quantiles are those of round trips over idle lines to a near server, in µs: at 5, 10, 25, 50, 75, 90 and 95 % (FCC, Measuring Broadband
// America, 2011 to 2023, minimum of each test). The way to that server is in them.
var quantiles = [...][7]uint32{
	Fibre: {2000, 2400, 3600, 7200, 12000, 16800, 23200},
	Cable: {5400, 6800, 9000, 12300, 17800, 24500, 29800},
	DSL:   {8100, 11000, 16800, 23900, 33800, 44900, 53300},
}

// ranks are those of the quantiles, in 1/65536.
var ranks = [7]uint32{3277, 6554, 16384, 32768, 49152, 58982, 62259}

// lineJitter is by how much the mean of a test is above its minimum, in µs; medians of the same tests.
var lineJitter = [...]uint32{Fibre: 2500, Cable: 4500, DSL: 2900}

// accessOf draws the round trip over a line. What is beyond the measured quantiles is taken to be as they are.
func accessOf(line Line, bits uint64) uint32 {
	if line == Datacentre {
		return 0
	}
	q, u := &quantiles[line], uint32(bits>>48)
	if u <= ranks[0] {
		return q[0]
	}
	for i := 1; i < len(ranks); i++ {
		if u <= ranks[i] {
			return q[i-1] + uint32(uint64(q[i]-q[i-1])*uint64(u-ranks[i-1])/uint64(ranks[i]-ranks[i-1]))
		}
	}
	return q[len(q)-1]
}

// addLines gives each network its line.
func (w *World) addLines() {
	lines := w.Spec.Clients.Access
	if len(lines) == 0 {
		lines = homes
	}
	var until [DSL + 1]float64
	sum := 0.0
	for _, a := range lines {
		for line := Fibre; line <= DSL; line++ {
			if a.Line == line.String() {
				until[line] += a.Part
				sum += a.Part
			}
		}
	}
	for i := range w.Networks {
		n := &w.Networks[i]
		if w.Providers[n.Provider].Hosted {
			continue
		}
		u, part := draw(w.Seed, forLine, uint64(i)), 0.0
		n.Line = DSL
		for line := Fibre; line < DSL; line++ {
			if part += until[line] / sum; below(u, part) {
				n.Line = line
				break
			}
		}
		n.AccessUS = accessOf(n.Line, draw(w.Seed, forAccess, uint64(i)))
	}
}
