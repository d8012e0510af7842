package health

// Doubt says why the word of a vantage does not count: it says of most of its targets that they are down, and most of the others who see
// them say the contrary. A vantage that has lost its own way to the world is like that.
type Doubt struct {
	Vantage      string `json:"vantage"`
	Failing      int    `json:"failing"`      // targets that it says are down
	Contradicted int    `json:"contradicted"` // of them, by most of the others, and at least two
	Of           int    `json:"of"`           // targets that it says something of
}

// leastDoubted is how many targets a vantage must say are down before it is doubted.
const leastDoubted = 3

// doubt compares what a vantage says with what the others say. That of others who are doubted themselves counts: where all agree that
// most is dead, it is dead. A vantage that is alone, with nobody to contradict it, is not
// believed when all of its world is dead: then it is more likely that it has lost its way.
func doubt(r *Report, ballots map[Target]*ballot, alone bool) (Doubt, bool) {
	d := Doubt{Vantage: r.Name}
	for i := range r.Statements {
		s := &r.Statements[i]
		b := ballots[s.Target]
		if b == nil || b.self == r || s.Status != Up && s.Status != Down {
			continue
		}
		d.Of++
		if s.Status == Up {
			continue
		}
		d.Failing++
		if b.up >= 2 && 2*b.up > b.up+b.down-1 {
			d.Contradicted++
		}
	}
	if alone {
		return d, d.Failing >= leastDoubted && d.Failing == d.Of
	}
	return d, d.Failing >= leastDoubted && 2*d.Failing > d.Of && 2*d.Contradicted > d.Failing
}
