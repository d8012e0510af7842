package scenario

import (
	"fmt"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/topology"
)

// Vary returns the scenario with the world of one of its variants, and without variants. It panics for a name that it does not have.
func (s *Scenario) Vary(name string) *Scenario {
	i := slices.IndexFunc(s.Variants, func(v Variant) bool { return v.Name == name })
	if i < 0 {
		panic("scenario " + s.Name + " has no variant " + name)
	}
	varied := *s
	varied.World, varied.Variants = *s.Variants[i].whole, nil
	return &varied
}

// variants checks the variants' names.
func (c *checker) variants(s *Scenario) {
	for i := range s.Variants {
		v, path := &s.Variants[i], fmt.Sprintf("variants[%d]", i)
		if !nameForm.MatchString(v.Name) {
			c.fault(path+".name", "%q is not a name: want lower-case letters, digits and hyphens, at most 63", v.Name)
		}
		if slices.Contains(Scales, Scale(v.Name)) || slices.Contains(PolicyNames, PolicyName(v.Name)) {
			c.fault(path+".name", "%s is the name of a scale or a policy already", v.Name)
		}
		if slices.ContainsFunc(s.Variants[:i], func(o Variant) bool { return o.Name == v.Name }) {
			c.fault(path+".name", "%v stands here twice", v.Name)
		}
	}
}

// readVariants makes the worlds of variants, each from the document with what the variant says put in place, by read. Faults are told with
// the variant's name.
func (s *Scenario) readVariants(document []byte, read func(*Scenario) []topology.Fault) []topology.Fault {
	c := &checker{}
	for i := range s.Variants {
		v, path := &s.Variants[i], fmt.Sprintf("variants[%d]", i)
		varied := Defaults()
		text, err := withWorld(document, &v.World)
		if err != nil {
			c.fault(path+".world", "%v", err)
			continue
		}
		faults := topology.Read(text, varied).Faults(nil)
		if len(faults) == 0 {
			check := &checker{}
			check.world(&varied.World)
			faults = check.faults
		}
		if len(faults) == 0 {
			faults = read(varied)
		}
		for _, f := range faults {
			c.fault(path+"."+f.Path, "%s", f.Message)
		}
		v.whole = &varied.World
	}
	return c.faults
}

// withWorld returns a scenario's document whose world has been changed by a variant's, and which has no variants.
func withWorld(document []byte, change *yaml.Node) ([]byte, error) {
	var root yaml.Node
	if err := yaml.Unmarshal(document, &root); err != nil {
		return nil, err
	}
	if len(root.Content) != 1 || root.Content[0].Kind != yaml.MappingNode {
		return nil, fmt.Errorf("the scenario is no mapping")
	}
	top := root.Content[0]
	for i := 0; i+1 < len(top.Content); i += 2 {
		switch top.Content[i].Value {
		case "world":
			top.Content[i+1] = merged(top.Content[i+1], change)
		case "variants", "assert", "short", "claims":
			top.Content = slices.Delete(top.Content, i, i+2)
			i -= 2
		}
	}
	return yaml.Marshal(&root)
}

// merged returns a mapping with the keys of another put in place of its own, deep. What is no mapping is replaced as a whole.
func merged(base, change *yaml.Node) *yaml.Node {
	if base.Kind != yaml.MappingNode || change.Kind != yaml.MappingNode {
		return change
	}
	result := *base
	result.Content = slices.Clone(base.Content)
	for i := 0; i+1 < len(change.Content); i += 2 {
		at := -1
		for k := 0; k+1 < len(result.Content); k += 2 {
			if result.Content[k].Value == change.Content[i].Value {
				at = k
			}
		}
		if at < 0 {
			result.Content = append(result.Content, change.Content[i], change.Content[i+1])
		} else {
			result.Content[at+1] = merged(result.Content[at+1], change.Content[i+1])
		}
	}
	return &result
}
