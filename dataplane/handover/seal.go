package handover

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
)

// A datagram from PoP to PoP: the head, then a packet's encoding or a half of it, encrypted and authenticated with the head (AES-256-GCM). The
// key is made of the secret and the sender's id (HKDF, RFC 5869), the nonce of the counter. The second half of the id is the first one
// encrypted, by which an id that nobody with the secret has made is known at the price of one AES block: strangers have no keys made.
//
//	passed 1 | part 1 | sender's id 16 | counter 8 | ciphertext | tag 16
const (
	passed     = 8 // the first octet: of no protocol that shares a port with QUIC (RFC 9443 section 2)
	sealedHead = 1 + 1 + senderLength + 8
	// senderLength is that of the random id of a process, in octets.
	senderLength = 16
	// largestPart is how much of a packet's encoding is in one datagram: what a path of 1,280 octets takes.
	largestPart = 1150
)

// The parts of a packet.
const (
	allOfIt = iota
	firstHalf
	secondHalf // has the next counter
)

var errSealed = errors.New("not a packet that a PoP has passed on")

// aead returns the cipher of a sender.
func aead(secret, sender []byte) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, secret, sender, "isochrone packets between PoPs", 32)
	if err != nil {
		panic(err) // the length is right
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// stamp returns what makes the second half of an id of its first.
func stamp(secret []byte) cipher.Block {
	sum := sha256.Sum256(append([]byte("isochrone sender of packets between PoPs\x00"), secret...))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		panic(err) // the length is right
	}
	return block
}

// stamped returns an id with the second half that the first one has.
func stamped(by cipher.Block, id [senderLength]byte) [senderLength]byte {
	block := blocks.Get().(*[aes.BlockSize]byte)
	defer blocks.Put(block)
	clear(block[:])
	copy(block[:], id[:senderLength/2])
	by.Encrypt(block[:], block[:])
	copy(id[senderLength/2:], block[:])
	return id
}

func nonce(counter uint64) []byte { return binary.BigEndian.AppendUint64(make([]byte, 4, 12), counter) }

// sealer seals packets of this process.
type sealer struct {
	id [senderLength]byte

	mu      sync.Mutex
	secret  []byte
	aead    cipher.AEAD
	counter uint64 // never the same twice with one id
}

func newSealer() *sealer {
	s := new(sealer)
	rand.Read(s.id[:])
	return s
}

// seal returns the datagrams of a packet: one, or two of a large one, so that none is fragmented on the way.
func (s *sealer) seal(secret []byte, p *Packet) [][]byte {
	plain := p.Append(make([]byte, 0, maxPassed))
	s.mu.Lock()
	if !bytes.Equal(secret, s.secret) {
		s.id = stamped(stamp(secret), s.id)
		s.secret, s.aead = bytes.Clone(secret), aead(secret, s.id[:])
	}
	id, cipher, counter := s.id, s.aead, s.counter
	s.counter += 2
	s.mu.Unlock()
	one := func(part byte, counter uint64, plain []byte) []byte {
		b := append(make([]byte, 0, sealedHead+len(plain)+16), passed, part)
		b = binary.BigEndian.AppendUint64(append(b, id[:]...), counter)
		return cipher.Seal(b, nonce(counter), plain, b)
	}
	if len(plain) <= largestPart {
		return [][]byte{one(allOfIt, counter, plain)}
	}
	half := len(plain) / 2
	return [][]byte{one(firstHalf, counter, plain[:half]), one(secondHalf, counter+1, plain[half:])}
}

// opener opens what other processes have sealed.
type opener struct {
	mu      sync.Mutex
	senders map[[senderLength]byte]*sealing
	stamps  map[string]cipher.Block // by secret
}

// sealing is what is known of a process that has sealed something with a secret.
type sealing struct {
	secret []byte
	aead   cipher.AEAD
	halves [maxHalves]half
	oldest int // of halves
}

// half is one of a packet whose other one has not come yet.
type half struct {
	part    byte
	counter uint64 // of the first half, which is even
	text    []byte
}

// maxHalves is how many packets of a sender may be there by half, so that others, or their halves, may come in between.
const maxHalves = 8

// whole returns a packet of which this is the second half to come, or nil.
func (s *sealing) whole(part byte, counter uint64, text []byte) []byte {
	counter &^= 1
	for i := range s.halves {
		switch h := &s.halves[i]; {
		case h.text == nil || h.counter != counter || h.part == part:
		case part == secondHalf:
			text, h.text = append(h.text, text...), nil
			return text
		default:
			text, h.text = append(text, h.text...), nil
			return text
		}
	}
	s.halves[s.oldest] = half{part, counter, text}
	s.oldest = (s.oldest + 1) % maxHalves
	return nil
}

// maxSenders is how many processes are known at once: a PoP has one, and a new one after each start.
const maxSenders = 2048

func newOpener() *opener {
	return &opener{senders: map[[senderLength]byte]*sealing{}, stamps: map[string]cipher.Block{}}
}

// open returns the packet of a datagram, and false while half of it is missing. The packet does not refer to the datagram.
func (o *opener) open(secrets [][]byte, datagram []byte) (p Packet, whole bool, err error) {
	if len(datagram) < sealedHead || datagram[0] != passed || datagram[1] > secondHalf {
		return p, false, errSealed
	}
	head, text := datagram[:sealedHead], datagram[sealedHead:]
	id := [senderLength]byte(head[2:])
	counter := binary.BigEndian.Uint64(head[2+senderLength:])
	o.mu.Lock()
	defer o.mu.Unlock()
	s, plain := o.authenticate(secrets, id, func(c cipher.AEAD) ([]byte, error) { return c.Open(nil, nonce(counter), text, head) })
	if s == nil {
		return p, false, fmt.Errorf("%w: it is of nobody who knows the secret", errSealed)
	}
	if part := datagram[1]; part != allOfIt {
		if plain = s.whole(part, counter, plain); plain == nil {
			return p, false, nil
		}
	}
	p, err = Decode(plain)
	return p, err == nil, err
}

// authenticate tries the secrets on what a sender has sealed. Who is not known is only remembered when one is right.
func (o *opener) authenticate(secrets [][]byte, id [senderLength]byte, open func(cipher.AEAD) ([]byte, error)) (*sealing, []byte) {
	known := o.senders[id]
	for _, secret := range secrets {
		s := known
		if s == nil || !bytes.Equal(s.secret, secret) {
			if !o.stamped(secret, id) {
				continue
			}
			s = &sealing{secret: bytes.Clone(secret), aead: aead(secret, id[:])}
		}
		plain, err := open(s.aead)
		if err != nil {
			continue
		}
		if s != known {
			if known == nil && len(o.senders) >= maxSenders {
				for any := range o.senders {
					delete(o.senders, any)
					break
				}
			}
			o.senders[id] = s
		}
		return s, plain
	}
	return nil, nil
}

// stamped reports whether an id was made by somebody who has a secret.
func (o *opener) stamped(secret []byte, id [senderLength]byte) bool {
	by := o.stamps[string(secret)]
	if by == nil {
		if len(o.stamps) >= maxStamps { // of secrets that have gone
			clear(o.stamps)
		}
		by = stamp(secret)
		o.stamps[string(secret)] = by
	}
	return stamped(by, id) == id
}

// maxStamps is how many secrets are remembered: more than are in use at a time.
const maxStamps = 8
