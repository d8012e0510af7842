package topology

// Reading is a document of another kind, such as a scenario of simulations, that was read as strictly as a topology is: no unknown keys,
// no key twice, no anchors, and all faults at once, with their lines.
type Reading struct{ d decoder }

// Read reads a document of YAML or JSON into target, a pointer to a struct whose fields are named by yaml tags; a field tagged "-" is not
// read, and a field that is a yaml.Node takes what stands there as it is. What the document does not say stays as it is in target. Faults tells what is wrong.
func Read(document []byte, target any) *Reading {
	var r Reading
	r.d.decode(document, "", target)
	return &r
}

// Faults returns the faults of reading, and those that were found by checking what was read, each with its line.
func (r *Reading) Faults(checked []Fault) []Fault { return r.d.all(checked) }

// Check fills in the policy's defaults and returns what is wrong with it by itself; the paths of faults begin with path.
func (p *Policy) Check(path string) []Fault {
	c := &checker{path: path}
	p.fillDefaults()
	c.policy("", p)
	return c.faults
}
