package receipt

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go/quicvarint"

	"github.com/isochrone/isochrone/internal/privatefile"
)

// The bounds of receipts.
const (
	maxBatch = 1 << 20 // receipts of one signature
	maxText  = 8 << 10 // octets of a receipt
)

// ErrInvalid is the error of text that is no receipt, or none of the keys that are known.
var ErrInvalid = errors.New("not a valid receipt")

// Claims are what a receipt says: the PoP has accepted, at a time, a payload of this hash for this service with this API key.
type Claims struct {
	ID      string    `json:"id"`
	SHA256  string    `json:"sha256"` // lower-case hex
	KeyID   string    `json:"key_id"`
	PoP     string    `json:"pop"`
	Service string    `json:"service"`
	Time    time.Time `json:"time"` // in UTC, with milliseconds
}

// timeFormat is that of Claims.Time in a receipt.
const timeFormat = "2006-01-02T15:04:05.000Z"

// append appends the claims as they are hashed. None of the texts has characters that JSON escapes: they are checked by Signer.Sign.
func (c *Claims) append(buf []byte) []byte {
	for _, f := range [...]struct{ before, value string }{
		{`{"id":"`, c.ID}, {`","sha256":"`, c.SHA256}, {`","key_id":"`, c.KeyID}, {`","pop":"`, c.PoP}, {`","service":"`, c.Service},
	} {
		buf = append(append(buf, f.before...), f.value...)
	}
	buf = append(buf, `","time":"`...)
	return append(c.Time.UTC().AppendFormat(buf, timeFormat), `"}`...)
}

// plain reports whether the claims can be written without escapes.
func (c *Claims) plain() bool {
	for _, text := range [...]string{c.ID, c.SHA256, c.KeyID, c.PoP, c.Service} {
		for i := range len(text) {
			if b := text[i]; b < 0x20 || b >= 0x7f || b == '"' || b == '\\' {
				return false
			}
		}
	}
	return true
}

var encoding = base64.RawURLEncoding.Strict()

// KeyID returns the id of a public key: the first 16 hexadecimal digits of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// Signer signs receipts of one PoP. It may be used concurrently.
type Signer struct {
	key     ed25519.PrivateKey
	header  string // of the JWS, encoded, with the full stop after it
	scratch sync.Pool
}

// NewSigner returns the signer of a key.
func NewSigner(key ed25519.PrivateKey) *Signer {
	header := `{"alg":"EdDSA","kid":"` + KeyID(key.Public().(ed25519.PublicKey)) + `"}`
	return &Signer{key: key, header: encoding.EncodeToString([]byte(header)) + ".", scratch: sync.Pool{New: func() any { return new(scratch) }}}
}

// Public returns the public key in the form that a topology has.
func (s *Signer) Public() string { return encoding.EncodeToString(s.key.Public().(ed25519.PublicKey)) }

// scratch is memory of one signing that the next one uses again.
type scratch struct {
	texts  []byte // claims, one after the other
	ends   []int  // of claims in texts; the same as the one before for claims that get no receipt
	leaves []digest
	nodes  []digest
	tree   tree
	path   []byte
	jws    []byte
	out    []byte
}

// Sign returns a receipt for each of the claims, with one signature. Claims with text that JSON would have to escape get none.
func (s *Signer) Sign(batch []Claims) []string {
	if len(batch) == 0 {
		return nil
	}
	m := s.scratch.Get().(*scratch)
	defer s.scratch.Put(m)
	m.texts, m.ends, m.leaves, m.out = m.texts[:0], m.ends[:0], m.leaves[:0], m.out[:0]
	for i := range batch {
		start := len(m.texts)
		if batch[i].plain() {
			m.texts = batch[i].append(m.texts)
		}
		m.ends = append(m.ends, len(m.texts))
		m.leaves = append(m.leaves, leafHash(m.texts[start:]))
	}
	m.tree, m.nodes = buildTree(m.tree[:0], m.nodes[:0], m.leaves)
	s.sign(m, m.tree.root())
	receipts, ends := make([]string, len(batch)), make([]int, len(batch))
	start := 0
	for i, end := range m.ends {
		if end > start {
			m.path = m.path[:0]
			if len(batch) > 1 {
				m.path = quicvarint.Append(quicvarint.Append(m.path, uint64(i)), uint64(len(batch)))
				m.path = m.tree.appendPath(m.path, i)
			}
			m.out = append(append(m.out, m.jws...), '~')
			m.out = append(encoding.AppendEncode(m.out, m.texts[start:end]), '~')
			m.out = encoding.AppendEncode(m.out, m.path)
		}
		start, ends[i] = end, len(m.out)
	}
	all, start := string(m.out), 0
	for i, end := range ends {
		receipts[i], start = all[start:end], end
	}
	return receipts
}

// sign makes the JWS of a tree: its payload is the root.
func (s *Signer) sign(m *scratch, root digest) {
	m.jws = encoding.AppendEncode(append(m.jws[:0], s.header...), root[:])
	m.jws = encoding.AppendEncode(append(m.jws, '.'), ed25519.Sign(s.key, m.jws))
}

// Verify returns what a receipt says if it was signed with a key that is known by its id. It needs nothing but the text and the keys. A key
// is good for the PoP whose it is: keys is asked with what the receipt says about that, and returns nil for what does not belong together.
func Verify(text string, keys func(pop, kid string) ed25519.PublicKey) (*Claims, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: it is longer than %d octets", ErrInvalid, maxText)
	}
	if strings.ContainsAny(text, "\r\n") { // which the decoder would skip, so that one receipt had many texts
		return nil, fmt.Errorf("%w: it has more than one line", ErrInvalid)
	}
	parts := strings.Split(text, "~")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: it has %d parts and not three, separated by ~", ErrInvalid, len(parts))
	}
	raw, err := encoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%w: the claims are not base64url", ErrInvalid)
	}
	claims := new(Claims)
	if err := strict(raw, claims); err != nil {
		return nil, fmt.Errorf("%w: the claims: %w", ErrInvalid, err)
	}
	if !claims.plain() || !bytes.Equal(claims.append(nil), raw) {
		return nil, fmt.Errorf("%w: the claims are not written as a PoP does", ErrInvalid)
	}
	path, err := encoding.DecodeString(parts[2])
	if err != nil {
		return nil, fmt.Errorf("%w: the path is not base64url", ErrInvalid)
	}
	root, err := verifyJWS(parts[0], func(kid string) ed25519.PublicKey { return keys(claims.PoP, kid) })
	if err != nil {
		return nil, err
	}
	if !leadsTo(leafHash(raw), path, root) {
		return nil, fmt.Errorf("%w: its claims are not among those that were signed", ErrInvalid)
	}
	return claims, nil
}

// leadsTo reports whether a path leads from a leaf to the root.
func leadsTo(leaf digest, path []byte, root digest) bool {
	index, size := uint64(0), uint64(1)
	if len(path) > 0 {
		var n, m int
		var err error
		if index, n, err = quicvarint.Parse(path); err != nil {
			return false
		}
		if size, m, err = quicvarint.Parse(path[n:]); err != nil || size < 2 || size > maxBatch {
			return false
		}
		if n != quicvarint.Len(index) || m != quicvarint.Len(size) { // integers have one form here, the shortest
			return false
		}
		path = path[n+m:]
	}
	got, ok := rootOf(leaf, index, size, path)
	return ok && len(path) <= longestPath*sha256.Size && got == root
}

// verifyJWS checks the signature, and returns what it is of. There is one algorithm.
func verifyJWS(jws string, keys func(kid string) ed25519.PublicKey) (root digest, err error) {
	signed, encodedSignature, _ := cutLast(jws, ".")
	encodedHeader, encodedRoot, _ := strings.Cut(signed, ".")
	var texts [3][]byte
	for i, part := range []string{encodedHeader, encodedRoot, encodedSignature} {
		if texts[i], err = encoding.DecodeString(part); err != nil || part == "" {
			return root, fmt.Errorf("%w: its first part is not a compact JWS", ErrInvalid)
		}
	}
	var header struct {
		Algorithm string `json:"alg"`
		Key       string `json:"kid"`
	}
	if err := strict(texts[0], &header); err != nil || header.Algorithm != "EdDSA" {
		return root, fmt.Errorf("%w: the header of its JWS is not that of a receipt", ErrInvalid)
	}
	key := keys(header.Key)
	if key == nil {
		return root, fmt.Errorf("%w: the key %.32q that signed it is not one of the PoP's", ErrInvalid, header.Key)
	}
	if len(key) != ed25519.PublicKeySize || len(texts[1]) != len(root) || !ed25519.Verify(key, []byte(signed), texts[2]) {
		return root, fmt.Errorf("%w: the signature is wrong", ErrInvalid)
	}
	return digest(texts[1]), nil
}

func cutLast(text, separator string) (before, after string, found bool) {
	i := strings.LastIndex(text, separator)
	if i < 0 {
		return "", text, false
	}
	return text[:i], text[i+len(separator):], true
}

// strict decodes JSON without unknown fields and with nothing behind it.
func strict(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New("it is not the JSON that is wanted")
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the JSON")
	}
	return nil
}

// LoadOrCreateKey reads the private key of a PoP from a file of mode 0600, and makes one where there is none.
func LoadOrCreateKey(path string) (ed25519.PrivateKey, error) {
	text, err := privatefile.Read(path, 1<<10)
	if errors.Is(err, fs.ErrNotExist) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("make a key for receipts: %w", err)
		}
		if err := privatefile.Write(path, []byte(encoding.EncodeToString(key.Seed())+"\n")); err != nil {
			return nil, fmt.Errorf("keep the key for receipts: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the key for receipts: %w", err)
	}
	seed, err := encoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("read the key for receipts: %s does not have one in base64url", path)
	}
	return ed25519.NewKeyFromSeed(seed), nil
}
