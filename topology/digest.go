package topology

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math/bits"
)

// digest is the sum, modulo 2^256, of the SHA-256 hashes of values with their names. It does not depend on their order, and is brought up
// to date by adding and subtracting what has changed. That is for telling whether two nodes have the same, not against somebody who
// would make up values to have them look the same.
type digest [4]uint64

// digestOf returns the digest of one value: text, under its key in the store.
func digestOf(key string, text []byte) digest {
	h := sha256.New()
	var length [8]byte
	binary.BigEndian.PutUint64(length[:], uint64(len(key)))
	h.Write(length[:])
	h.Write([]byte(key))
	h.Write(text)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	var d digest
	for i := range d {
		d[i] = binary.BigEndian.Uint64(sum[8*i:])
	}
	return d
}

func (d digest) plus(o digest) digest {
	var carry uint64
	for i := range d {
		d[i], carry = bits.Add64(d[i], o[i], carry)
	}
	return d
}

func (d digest) minus(o digest) digest {
	var borrow uint64
	for i := range d {
		d[i], borrow = bits.Sub64(d[i], o[i], borrow)
	}
	return d
}

// String returns 64 hexadecimal digits.
func (d digest) String() string {
	var sum [sha256.Size]byte
	for i, word := range d {
		binary.BigEndian.PutUint64(sum[8*i:], word)
	}
	hash := sha256.Sum256(sum[:])
	return hex.EncodeToString(hash[:])
}

// digestOfObject returns the digest of an object of a topology. Its canonical form counts, however it is written in the store.
func digestOfObject(r Ref, o Object) digest {
	return digestOf("topology/"+r.String(), MarshalValue(o))
}

// digest returns that of all objects.
func (t *Topology) digest() digest {
	var sum digest
	for _, r := range t.Refs() {
		sum = sum.plus(digestOfObject(r, t.Object(r)))
	}
	return sum
}

func digestOfOverride(name string, o *Override) digest {
	if o == nil {
		return digest{}
	}
	return digestOf("overrides/"+name, MarshalValue(o))
}

func digestOfSigning(zone string, s *Signing) digest {
	if s == nil {
		return digest{}
	}
	return digestOf("dnssec/"+zone, MarshalValue(s))
}

// digestOfKey is of the JSON of a record, since there are many keys and YAML is slow.
func digestOfKey(id string, k *Key) digest {
	text, err := json.Marshal(k)
	if err != nil {
		panic("topology: " + err.Error()) // only numbers, texts, times and prefixes are in it
	}
	return digestOf("keys/"+id, text)
}
