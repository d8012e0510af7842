package topology

// Warnings tells what is likely not meant, though it is valid.
func (t *Topology) Warnings() []Fault { return nil }
