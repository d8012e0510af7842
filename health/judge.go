package health

import "time"

// Inputs are all that verdicts depend on.
type Inputs struct {
	Reports  []*Report // of the vantages that are alive, and of this node; at most one of each
	Targets  []Target  // that there are
	Vantages []Vantage // that there are, alive or not: one of several never decides alone
	Previous Verdicts  // they stay where the reports say nothing
	Now      time.Time
	Alone    bool // nobody else is heard: the report of this node decides, unless most of the world is dead in it (local view)
}

// Doubt says why the word of a vantage does not count.
type Doubt struct {
	Vantage      string `json:"vantage"`
	Failing      int    `json:"failing"`      // targets that it says are down
	Contradicted int    `json:"contradicted"` // of them, by most of the others
	Of           int    `json:"of"`           // targets that it speaks of
}

// Judgement is what Judge found.
type Judgement struct {
	Verdicts Verdicts
	Doubted  []Doubt // by name of vantage
}

// Judge reaches the verdicts. It has no memory: what it returns depends on its arguments alone, and not on the order of reports.
func Judge(in Inputs) Judgement { panic("to come") }
