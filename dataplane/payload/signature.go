package payload

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/isochrone/isochrone/topology"
)

// ErrSignature is the error of a payload that is not signed as the service wants it.
var ErrSignature = errors.New("the payload's signature is not right")

// Signed reports why a payload is not signed: HMAC-SHA256, in hexadecimal, of the timestamp as it was sent, a full stop and the body. It
// takes as long for all wrong signatures.
func Signed(policy *topology.Signature, body []byte, signature, timestamp string, secret []byte, now time.Time) error {
	if signature == "" || timestamp == "" {
		return fmt.Errorf("%w: %s and %s are wanted", ErrSignature, policy.Header, policy.Timestamp)
	}
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil || len(timestamp) > 12 {
		return fmt.Errorf("%w: %s is the time in seconds since 1970", ErrSignature, policy.Timestamp)
	}
	if off := now.Sub(time.Unix(seconds, 0)).Abs(); off > time.Duration(policy.Tolerance) {
		return fmt.Errorf("%w: %s differs from now by more than %v", ErrSignature, policy.Timestamp, policy.Tolerance)
	}
	given, err := hex.DecodeString(strings.TrimPrefix(signature, "sha256="))
	if err != nil || len(given) != sha256.Size {
		return fmt.Errorf("%w: %s is sha256= and 64 hexadecimal digits", ErrSignature, policy.Header)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp))
	mac.Write([]byte{'.'})
	mac.Write(body)
	if len(secret) == 0 || !hmac.Equal(mac.Sum(nil), given) {
		return fmt.Errorf("%w: it is not that of these bytes and this time", ErrSignature)
	}
	return nil
}
