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

var (
	// ErrSignature is wrapped by the errors of signatures that are missing, wrong or out of time. They are answered 400 like other faults of a
	// payload: 401 would tell clients that their API key is wrong, and they would stop.
	ErrSignature = errors.New("the payload's signature")
	// ErrNoSecret says that there is no secret to check signatures with. That is no fault of the client's: 503.
	ErrNoSecret = errors.New("there is no secret to check the payload's signature with")
)

// Signed checks the HMAC-SHA256 of a body by a policy. It is in hexadecimal digits, alone or after "sha256="; the message is
// the timestamp as it was sent, a full stop and the body. The timestamp is in Unix seconds and may differ from now by the tolerance.
func Signed(policy *topology.Signature, body []byte, signature, timestamp string, secret []byte, now time.Time) error {
	if len(secret) == 0 {
		return ErrNoSecret
	}
	if signature == "" || timestamp == "" {
		return fmt.Errorf("%w is missing: want it in %s, and its time in %s", ErrSignature, policy.Header, policy.Timestamp)
	}
	var sent [sha256.Size]byte
	digits := strings.TrimPrefix(signature, "sha256=")
	if len(digits) != 2*len(sent) {
		return fmt.Errorf("%w is not 64 hexadecimal digits, alone or after sha256=", ErrSignature)
	}
	if _, err := hex.Decode(sent[:], []byte(digits)); err != nil {
		return fmt.Errorf("%w is not 64 hexadecimal digits, alone or after sha256=", ErrSignature)
	}
	seconds, err := strconv.ParseUint(timestamp, 10, 63)
	if err != nil || len(timestamp) > 12 {
		return fmt.Errorf("%w has a timestamp that is not in Unix seconds", ErrSignature)
	}
	if away := now.Sub(time.Unix(int64(seconds), 0)).Abs(); away > time.Duration(policy.Tolerance) {
		return fmt.Errorf("%w has a timestamp that is %v away from our clock, want at most %v", ErrSignature, away.Round(time.Second), policy.Tolerance)
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(timestamp))
	mac.Write([]byte{'.'})
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), sent[:]) {
		return fmt.Errorf("%w does not match: want the HMAC-SHA256 of timestamp, full stop and body", ErrSignature)
	}
	return nil
}
