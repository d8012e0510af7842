package router

import (
	"encoding/binary"
	"net/netip"
)

// Ask is what Decide is asked, as one of a batch.
type Ask struct {
	Service ServiceID
	Family  Family
	Client  netip.Prefix
}

// maxBatch is how many questions DecideAll takes on at once.
const maxBatch = 32

// DecideAll decides a batch of questions by one view, each as Decide does, into answers, which is as long. A question's reads of the
// table depend on each other, and mostly miss the processor's caches; here the same read is made for all questions before the
// next one, so that the waits overlap. It allocates nothing.
func DecideAll(v *View, asks []Ask, answers []Answer) {
	for len(asks) > 0 {
		n := min(len(asks), maxBatch)
		v.decideBatch(asks[:n], answers[:n])
		asks, answers = asks[n:], answers[n:]
	}
}

// lookup is a question on its way through the table.
type lookup struct {
	addr    uint32
	block   uint32
	origin  uint32
	simple  bool // for quickAt: the others are decided one by one
	ranking *ranking
}

// decideBatch decides a batch. What it returns depends on all that is read ahead, so that the compiler leaves nothing of it out.
//
//go:noinline
func (v *View) decideBatch(asks []Ask, answers []Answer) (touched uint32) {
	var lookups [maxBatch]lookup
	s := v.Table.v4
	for i := range asks {
		l, client := &lookups[i], asks[i].Client.Addr()
		l.ranking = v.Table.services[asks[i].Service].rankings[asks[i].Family]
		if l.simple = client.Is4() && l.ranking != nil && v.isQuick(asks[i].Service, asks[i].Family); !l.simple {
			continue
		}
		octets := client.As4()
		l.addr = binary.BigEndian.Uint32(octets[:])
		chunk := l.addr >> chunkBits4
		touched += s.index[chunk] + s.index[chunk+1]
	}
	for i := range asks {
		if l := &lookups[i]; l.simple {
			chunk := l.addr >> chunkBits4
			touched += uint32(s.within[(s.index[chunk]+s.index[chunk+1]-1)/2])
		}
	}
	for i := range asks {
		if l := &lookups[i]; l.simple {
			l.block = uint32(s.find4(l.addr))
		}
	}
	for i := range asks {
		if l := &lookups[i]; l.simple {
			l.origin = s.origin[l.block]
			touched += uint32(l.ranking.reach4.first[l.block])
		}
	}
	for i := range asks {
		if l := &lookups[i]; l.simple {
			touched += uint32(l.ranking.briefs[l.origin])
		}
	}
	for i := range asks {
		l, ask := &lookups[i], &asks[i]
		if l.simple {
			if a, ok := v.quickAt(ask.Service, ask.Family, int(l.block)); ok {
				answers[i] = a
				continue
			}
		}
		answers[i] = Decide(v, ask.Service, ask.Family, ask.Client, nil)
	}
	return touched
}
