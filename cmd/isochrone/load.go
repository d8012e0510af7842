package main

import (
	"math"
	"time"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/topology/store"
)

// loads tells how busy the PoPs are that run here. Figures are rounded, so that the record of a node does not change for nothing.
func (n *node) loads() map[string]store.PoPLoad {
	var loads map[string]store.PoPLoad
	n.running.Range(func(name, value any) bool {
		pop := value.(*dataplane.PoP)
		if pop.Draining() {
			return true
		}
		l := pop.Load()
		if loads == nil {
			loads = map[string]store.PoPLoad{}
		}
		loads[name.(string)] = store.PoPLoad{
			Requests: rounded(l.RequestsPerSecond), Shed: rounded(l.ShedPerSecond), Capacity: rounded(l.CapacityPerSecond),
			CPU: math.Round(l.CPU*20) / 20, QueueDelay: rounded(float64(l.QueueDelay) / float64(time.Millisecond)),
		}
		return true
	})
	return loads
}

// rounded keeps two digits of a figure.
func rounded(x float64) float64 {
	if x <= 0 || math.IsInf(x, 0) || math.IsNaN(x) {
		return 0
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-1)
	return math.Round(x/unit) * unit
}
