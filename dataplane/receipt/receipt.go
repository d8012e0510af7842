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
	pop    string
	key    ed25519.PrivateKey
	header string // of the JWS, encoded
}

// NewSigner returns the signer of a PoP.
func NewSigner(pop string, key ed25519.PrivateKey) *Signer {
	kid := KeyID(key.Public().(ed25519.PublicKey))
	return &Signer{pop, key, encoding.EncodeToString([]byte(`{"alg":"EdDSA","kid":"` + kid + `","typ":"isochrone-receipt"}`))}
}

// Public returns the public key in the form that a topology has.
func (s *Signer) Public() string { return encoding.EncodeToString(s.key.Public().(ed25519.PublicKey)) }

// Sign returns a receipt for each of the claims, with one signature. Claims with text that JSON would have to escape get none.
func (s *Signer) Sign(batch []Claims) []string {
	texts := make([][]byte, len(batch))
	leaves := make([]digest, len(batch))
	arena := make([]byte, 0, 320*len(batch))
	for i := range batch {
		if !batch[i].plain() {
			continue
		}
		start := len(arena)
		arena = batch[i].append(arena)
		texts[i] = arena[start:len(arena):len(arena)]
		leaves[i] = leafHash(texts[i])
	}
	if len(batch) == 0 {
		return nil
	}
	tree := newTree(leaves)
	jws := s.sign(tree.root())
	receipts := make([]string, len(batch))
	var path, text []byte
	for i := range batch {
		if texts[i] == nil {
			continue
		}
		path = path[:0]
		if len(batch) > 1 {
			path = quicvarint.Append(quicvarint.Append(path, uint64(i)), uint64(len(batch)))
			path = tree.appendPath(path, i)
		}
		text = append(append(text[:0], jws...), '~')
		text = append(encoding.AppendEncode(text, texts[i]), '~')
		receipts[i] = string(encoding.AppendEncode(text, path))
	}
	return receipts
}

// sign makes the JWS of a tree.
func (s *Signer) sign(root digest) []byte {
	text := append([]byte(s.header), '.')
	text = encoding.AppendEncode(text, fmt.Appendf(nil, `{"pop":"%s","root":"%s"}`, s.pop, encoding.EncodeToString(root[:])))
	signature := ed25519.Sign(s.key, text)
	return encoding.AppendEncode(append(text, '.'), signature)
}

// Verify returns what a receipt says if it was signed with a key that is known by its id. It needs nothing but the text and the keys.
func Verify(text string, keys func(kid string) ed25519.PublicKey) (*Claims, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%w: it is longer than %d octets", ErrInvalid, maxText)
	}
	parts := strings.Split(text, "~")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%w: it has %d parts and not three, separated by ~", ErrInvalid, len(parts))
	}
	root, pop, err := verifyJWS(parts[0], keys)
	if err != nil {
		return nil, err
	}
	raw, err := encoding.DecodeString(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%w: the claims are not base64url", ErrInvalid)
	}
	path, err := encoding.DecodeString(parts[2])
	if err != nil {
		return nil, fmt.Errorf("%w: the path is not base64url", ErrInvalid)
	}
	if !leadsTo(leafHash(raw), path, root) {
		return nil, fmt.Errorf("%w: its claims are not among those that were signed", ErrInvalid)
	}
	claims := new(Claims)
	if err := strict(raw, claims); err != nil {
		return nil, fmt.Errorf("%w: the claims: %w", ErrInvalid, err)
	}
	if !claims.plain() || !bytes.Equal(claims.append(nil), raw) || claims.PoP != pop {
		return nil, fmt.Errorf("%w: the claims are not written as a PoP does", ErrInvalid)
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
		path = path[n+m:]
	}
	got, ok := rootOf(leaf, index, size, path)
	return ok && len(path) <= longestPath*sha256.Size && got == root
}

// verifyJWS checks the signature, and returns what it is of. There is one algorithm.
func verifyJWS(jws string, keys func(kid string) ed25519.PublicKey) (root digest, pop string, err error) {
	signed, encodedSignature, _ := cutLast(jws, ".")
	encodedHeader, encodedPayload, _ := strings.Cut(signed, ".")
	var texts [3][]byte
	for i, part := range []string{encodedHeader, encodedPayload, encodedSignature} {
		if texts[i], err = encoding.DecodeString(part); err != nil || part == "" {
			return root, "", fmt.Errorf("%w: its first part is not a compact JWS", ErrInvalid)
		}
	}
	var header struct {
		Algorithm string `json:"alg"`
		Key       string `json:"kid"`
		Type      string `json:"typ"`
	}
	if err := strict(texts[0], &header); err != nil || header.Algorithm != "EdDSA" || header.Type != "isochrone-receipt" {
		return root, "", fmt.Errorf("%w: the header of its JWS is not that of a receipt", ErrInvalid)
	}
	key := keys(header.Key)
	if key == nil {
		return root, "", fmt.Errorf("%w: the key %.32q that signed it is not known", ErrInvalid, header.Key)
	}
	if len(key) != ed25519.PublicKeySize || !ed25519.Verify(key, []byte(signed), texts[2]) {
		return root, "", fmt.Errorf("%w: the signature is wrong", ErrInvalid)
	}
	var payload struct {
		PoP  string `json:"pop"`
		Root string `json:"root"`
	}
	if err := strict(texts[1], &payload); err != nil {
		return root, "", fmt.Errorf("%w: what was signed is not that of a receipt", ErrInvalid)
	}
	decoded, err := encoding.DecodeString(payload.Root)
	if err != nil || len(decoded) != len(root) {
		return root, "", fmt.Errorf("%w: what was signed has no root", ErrInvalid)
	}
	return digest(decoded), payload.PoP, nil
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
