package handover

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"sync"

	"github.com/quic-go/quic-go"
)

// Layout of a connection id: a masked head of the generation and the PoP, and random bits, which the mask is made of.
const (
	headLength   = 4 // generation, 24 bits of PoP
	randomLength = 6
	// Length is that of all connection ids of PoPs, in octets.
	Length = headLength + randomLength
)

// ID is what a connection id says.
type ID struct {
	PoP        uint32 // 24 bits; see PoPNumber
	Generation uint8  // of the PoP's process: each one that takes over has the next
}

// PoPNumber returns the number of a PoP in connection ids: 24 bits of its name's SHA-256.
func PoPNumber(name string) uint32 {
	sum := sha256.Sum256([]byte(name))
	return binary.BigEndian.Uint32(sum[:]) >> 8
}

// IDs makes the connection ids of one process, and reads those of all who have the same key. It is a quic.ConnectionIDGenerator, and
// safe for concurrent use.
type IDs struct {
	own    ID
	mask   cipher.Block
	others func() []*IDs // nil for none
}

// NewIDs returns the ids of a process. The key hides from those who watch which connections belong together (RFC 9000 section
// 5.1); it is not what keeps forged packets out.
func NewIDs(own ID, key [16]byte) *IDs {
	mask, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the length is right
	}
	own.PoP &= 1<<24 - 1
	return &IDs{own: own, mask: mask}
}

// Understand has this process understand ids that others have made with other keys, which it asks for when its own says nothing: while a key
// is rotated, not all have begun with the same one. Only what they read with counts. It must be called before the ids are used.
func (g *IDs) Understand(others func() []*IDs) { g.others = others }

// readings calls f with what an id says by each key, the own one first, until f returns true, and returns whether it did.
func (g *IDs) readings(id [Length]byte, f func(ID) bool) bool {
	if f(g.Decode(id)) {
		return true
	}
	if g.others == nil {
		return false
	}
	for _, other := range g.others() {
		if f(other.Decode(id)) {
			return true
		}
	}
	return false
}

// Own returns what the ids of this process say.
func (g *IDs) Own() ID { return g.own }

// Next returns the ids of the process that takes over.
func (g *IDs) Next() *IDs {
	next := *g
	next.own.Generation++
	return &next
}

// GenerateConnectionID implements quic.ConnectionIDGenerator.
func (g *IDs) GenerateConnectionID() (quic.ConnectionID, error) {
	var id [Length]byte
	rand.Read(id[headLength:])
	binary.BigEndian.PutUint32(id[:], g.head([randomLength]byte(id[headLength:]))^(uint32(g.own.Generation)<<24|g.own.PoP))
	return quic.ConnectionIDFromBytes(id[:]), nil
}

// ConnectionIDLen implements quic.ConnectionIDGenerator.
func (g *IDs) ConnectionIDLen() int { return Length }

// Decode returns what a connection id says. One that a client has chosen itself says something too, which means nothing.
func (g *IDs) Decode(id [Length]byte) ID {
	head := binary.BigEndian.Uint32(id[:]) ^ g.head([randomLength]byte(id[headLength:]))
	return ID{PoP: head & (1<<24 - 1), Generation: uint8(head >> 24)}
}

func (g *IDs) head(random [randomLength]byte) uint32 {
	block := blocks.Get().(*[aes.BlockSize]byte)
	defer blocks.Put(block)
	clear(block[:])
	copy(block[:], random[:])
	g.mask.Encrypt(block[:], block[:])
	return binary.BigEndian.Uint32(block[:])
}

// blocks are for who calls a cipher.Block, which what is on the stack cannot be given to.
var blocks = sync.Pool{New: func() any { return new([aes.BlockSize]byte) }}

// foreign reports whether a packet belongs to another process of this PoP.
func (g *IDs) foreign(packet []byte) bool {
	id, ok := Destination(packet)
	if !ok {
		return false
	}
	foreign := false
	g.readings(id, func(is ID) bool {
		foreign = is.PoP == g.own.PoP && is.Generation != g.own.Generation
		return is.PoP == g.own.PoP
	})
	return foreign
}
