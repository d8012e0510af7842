package main

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/router"
	"github.com/isochrone/isochrone/router/spill"
	"github.com/isochrone/isochrone/topology/store"
)

// sharesFile is where in its folder a node keeps the shares that were in force last.
const sharesFile = "last-shares"

// spilling has the shares of PoPs near capacity, of a node that decides. The zero value is of one that does not, and disregards them.
type spilling struct {
	live *router.Live // nil for who decides nothing
	kept chan []byte  // the newest record, to be kept; empty for none
}

// decides has a node put shares in force: at first those that were in force last.
func (n *node) decides(live *router.Live) {
	n.shares.live, n.shares.kept = live, make(chan []byte, 1)
	text, err := os.ReadFile(n.sharesPath())
	if err != nil || len(text) == 0 {
		return
	}
	s, err := spill.Decode(text)
	if err != nil {
		n.log.Warn("the shares of PoPs that were in force last cannot be read, and PoPs take all of their clients", "file", n.sharesPath(), "error", err)
		return
	}
	live.Spill(s, time.Now())
}

func (n *node) sharesPath() string {
	return strings.TrimSuffix(n.lastGood, "last-good.yaml") + sharesFile
}

// hearShares puts in force what the store tells. A record that cannot be read leaves the shares as they are.
func (n *node) hearShares(u store.Update) {
	if n.shares.live == nil {
		return
	}
	text, told := u.Put[controlplane.SharesKey]
	if !told {
		gone := u.Whole
		for _, key := range u.Delete {
			gone = gone || key == controlplane.SharesKey
		}
		if !gone {
			return
		}
	}
	var s router.Spill
	if told {
		var err error
		if s, err = spill.Decode(text); err != nil {
			n.log.Warn("shares of PoPs cannot be read, and stay as they are", "key", controlplane.SharesKey, "error", err)
			return
		}
	}
	n.shares.live.Spill(s, time.Now())
	select {
	case <-n.shares.kept: // which is not the newest any more
	default:
	}
	n.shares.kept <- text
}

// keepShares keeps the shares in force on disk, until ctx ends.
func (n *node) keepShares(ctx context.Context) {
	if n.shares.live == nil {
		return
	}
	save := func(text []byte) {
		if err := privatefile.Write(n.sharesPath(), text); err != nil {
			n.log.Warn("the shares of PoPs cannot be kept on disk", "file", n.sharesPath(), "error", err)
		}
	}
	for {
		select {
		case text := <-n.shares.kept:
			save(text)
		case <-ctx.Done():
			select {
			case text := <-n.shares.kept:
				save(text)
			default:
			}
			return
		}
	}
}
