package dataplane

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
)

var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// requestID returns <pop>.<core>. The core has 128 bits: of an HMAC over key id and Idempotency-Key if the client has sent
// one, so that the same request has the same core in every PoP, else random ones. It never depends on the payload, since
// equal payloads are legal.
func requestID(pop string, secret []byte, keyID, idempotencyKey string) string {
	var core [16]byte
	if idempotencyKey == "" {
		rand.Read(core[:])
	} else {
		mac := hmac.New(sha256.New, secret)
		mac.Write([]byte(keyID))
		mac.Write([]byte{0})
		mac.Write([]byte(idempotencyKey))
		copy(core[:], mac.Sum(nil))
	}
	var text [26]byte // 128 bits in base32
	idEncoding.Encode(text[:], core[:])
	return pop + "." + string(text[:])
}
