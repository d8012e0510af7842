package main

import "fmt"

// vantagesCheck tells whom this node hears as a vantage. One that hears nobody goes by its own eyes, which is no reason not to be used.
func (n *node) vantagesCheck() check {
	c := check{Name: "vantages", OK: true, Value: "this node does not look", Only: shown}
	v := n.looks.now()
	if v == nil {
		return c
	}
	known, heard := len(v.Known()), len(v.Heard())
	switch {
	case v.Alone():
		c.OK, c.Value = false, fmt.Sprintf("local view: none of %d others is heard, verdicts are by the probes of this node alone", known)
	case known == 0:
		c.Value = "there are no others"
	default:
		c.Value = fmt.Sprintf("%d of %d others are heard", heard, known)
	}
	return c
}

// alone reports whether this node hears no other vantage, though there are some.
func (n *node) alone() bool {
	v := n.looks.now()
	return v != nil && v.Alone()
}

// nameCheck tells whether another process has the name of this one.
func (n *node) nameCheck() check {
	c := check{Name: "name", OK: true, Value: n.kind + ":" + n.name, Only: shown}
	if v := n.looks.now(); v != nil && v.Namesake() {
		c.OK, c.Value = false, "another process is "+c.Value+" too: others hear one of them at most"
	}
	return c
}
