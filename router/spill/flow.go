package spill

// parts are what PoPs get of a cell, in the cell's order.
type parts []part

type part struct {
	hop    int
	weight float64 // of the cell's
}

// spread appends what each PoP gets of a cell, when one PoP is lost, or none (-1). A row has the share of each PoP; nil stands for all ones. A cell goes
// to the first PoP that takes it, by independent draws; who is taken by none goes to the first that is well.
func (c *Cell) spread(row []float64, lost int, into parts) parts {
	if c.Answers > 1 {
		return c.spreadMany(row, lost, into)
	}
	first, left := -1, 1.0
	begin := len(into)
	for i, h := range c.Hops {
		if h.PoP == lost {
			continue
		}
		if first < 0 {
			first = i
		}
		take := c.takes(row, i)
		if take == 0 {
			continue
		}
		into = append(into, part{i, left * take * c.Weight})
		if left *= 1 - take; left < 1e-12 {
			return into
		}
	}
	if first >= 0 {
		into = into.add(begin, first, left*c.Weight)
	}
	return into
}

// meet adds what PoPs take of the cell, without those whom nobody takes, and returns these.
func (c *Cell) meet(row []float64, lost int, into []float64) (left float64) {
	if c.Answers > 1 {
		for _, p := range c.spreadMany(row, lost, nil) {
			into[c.Hops[p.hop].PoP] += p.weight
		}
		return 0
	}
	left = c.Weight
	for i, h := range c.Hops {
		if h.PoP == lost {
			continue
		}
		take := left * c.takes(row, i)
		into[h.PoP] += take
		if left -= take; left <= 0 {
			return 0
		}
	}
	return left
}

// takes returns the chance that a hop takes the cell.
func (c *Cell) takes(row []float64, hop int) float64 {
	h := &c.Hops[hop]
	share := h.limit()
	if row != nil {
		share = min(share, row[h.PoP])
	}
	if c.Draws == nil || share <= 0 || share >= 1 {
		return share
	}
	if c.Draws[hop] < share {
		return 1
	}
	return 0
}

// add gives a hop more, which may have something already.
func (p parts) add(begin, hop int, weight float64) parts {
	for i := begin; i < len(p); i++ {
		if p[i].hop == hop {
			p[i].weight += weight
			return p
		}
	}
	return append(p, part{hop, weight})
}

// spreadMany is spread for answers of several PoPs: all that take the cell, up to so many, get equal parts.
func (c *Cell) spreadMany(row []float64, lost int, into parts) parts {
	chance := make([]float64, c.Answers+1) // that so many have taken it
	chance[0] = 1
	most := 0
	first := -1
	begin := len(into)
	for i, h := range c.Hops {
		if h.PoP == lost {
			continue
		}
		if first < 0 {
			first = i
		}
		most++
		take := c.takes(row, i)
		if take == 0 {
			continue
		}
		open := 0.0
		for k := c.Answers - 1; k >= 0; k-- {
			moved := chance[k] * take
			open += moved
			chance[k], chance[k+1] = chance[k]-moved, chance[k+1]+moved
		}
		into = append(into, part{i, open * c.Weight})
		if 1-chance[c.Answers] < 1e-12 {
			break
		}
	}
	// Who was taken by fewer gets larger parts of them. That is rare; they are made so in proportion.
	sum := 0.0
	for _, p := range into[begin:] {
		sum += p.weight
	}
	if sum > 0 && chance[0] < 1-1e-12 {
		scale := c.Weight * (1 - chance[0]) / sum
		for i := begin; i < len(into); i++ {
			into[i].weight *= scale
		}
	}
	if left := chance[0]; left > 1e-12 && first >= 0 {
		n := min(c.Answers, most)
		for i, h := range c.Hops {
			if h.PoP != lost && n > 0 {
				into = into.add(begin, i, left*c.Weight/float64(min(c.Answers, most)))
				n--
			}
		}
	}
	return into
}
