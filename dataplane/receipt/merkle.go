package receipt

import (
	"crypto/sha256"
	"math/bits"
)

type digest = [sha256.Size]byte

// leafHash and nodeHash are those of RFC 9162 section 2.1.1.
func leafHash(data []byte) digest {
	var buf [512]byte
	return sha256.Sum256(append(append(buf[:0], 0), data...))
}

func nodeHash(left, right *digest) digest {
	var buf [1 + 2*sha256.Size]byte
	buf[0] = 1
	copy(buf[1:], left[:])
	copy(buf[1+sha256.Size:], right[:])
	return sha256.Sum256(buf[:])
}

// tree has all hashes of a Merkle tree: level 0 are the leaves. A node without a partner goes up as it is, which makes the tree that RFC
// 9162 section 2.1.1 defines by splitting at powers of two.
type tree [][]digest

func newTree(leaves []digest) tree {
	t, _ := buildTree(nil, nil, leaves)
	return t
}

// buildTree makes the tree of leaves in memory that is there.
func buildTree(t tree, nodes, leaves []digest) (tree, []digest) {
	if missing := 2*len(leaves) + 64 - cap(nodes); missing > 0 { // levels stand in one slice, which must not move
		nodes = make([]digest, 0, 2*len(leaves)+64)
	}
	t = append(t, leaves)
	for level := leaves; len(level) > 1; {
		start := len(nodes)
		for i := 0; i+1 < len(level); i += 2 {
			nodes = append(nodes, nodeHash(&level[i], &level[i+1]))
		}
		if len(level)%2 == 1 {
			nodes = append(nodes, level[len(level)-1])
		}
		level = nodes[start:]
		t = append(t, level)
	}
	return t, nodes
}

func (t tree) root() digest { return t[len(t)-1][0] }

// appendPath appends the audit path of a leaf, the lowest first.
func (t tree) appendPath(buf []byte, leaf int) []byte {
	for _, level := range t[:len(t)-1] {
		if partner := leaf ^ 1; partner < len(level) {
			buf = append(buf, level[partner][:]...)
		}
		leaf /= 2
	}
	return buf
}

// rootOf follows an audit path from a leaf (RFC 9162 section 2.1.3.2). It returns false when the path is not as long as index and size want.
func rootOf(leaf digest, index, size uint64, path []byte) (root digest, ok bool) {
	if index >= size {
		return root, false
	}
	at, last := index, size-1
	for ; last > 0; at, last = at/2, last/2 {
		if at == last && at%2 == 0 {
			continue // it has no partner, and goes up
		}
		if len(path) < sha256.Size {
			return root, false
		}
		partner := digest(path[:sha256.Size])
		path = path[sha256.Size:]
		if at%2 == 1 {
			leaf = nodeHash(&partner, &leaf)
		} else {
			leaf = nodeHash(&leaf, &partner)
		}
	}
	return leaf, len(path) == 0
}

// longestPath is how many hashes a path may have: enough for any group commit.
var longestPath = bits.Len(maxBatch)
