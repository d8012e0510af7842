package health

// Assign returns the vantages that probe a target, in the order of their turns: neighbours in it are of different regions where that can
// be. It is the same for equal sets of vantages. Each region with at least three vantages gives three; there are at least k in all, if
// there are so many, and an odd number. The target itself is left out. Few targets move when a vantage comes or goes (rendezvous hashing:
// Thaler and Ravishankar, IEEE/ACM Transactions on Networking 6(1), 1998).
func Assign(t Target, vantages []Vantage, k int) []Vantage { panic("to come") }
