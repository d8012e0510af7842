package controlplane

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
)

// JoinToken is what a new machine needs to join: whom to ask, how to know them, and what to say. It is good for one node and once.
type JoinToken struct {
	ID     string   `json:"id"`
	Secret string   `json:"secret"`
	URLs   []string `json:"urls"` // of control planes, https
	CA     string   `json:"ca"`   // SHA-256 of the CA's certificate, in lower-case hex
}

const (
	joinPrefix   = "isoj_"
	maxJoinToken = 4 << 10
	maxJoinURLs  = 8
)

// String returns the token as it is handed over: one word.
func (t JoinToken) String() string {
	text, err := json.Marshal(t)
	if err != nil {
		panic(err) // strings can be written
	}
	return joinPrefix + base64.RawURLEncoding.EncodeToString(text)
}

// ParseJoinToken reads a token. An error does not tell what stands in it.
func ParseJoinToken(text string) (*JoinToken, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), joinPrefix)
	if !ok || len(body) > maxJoinToken {
		return nil, fmt.Errorf("this is no join token: want %s…, as \"isochrone pop invite\" prints it", joinPrefix)
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return nil, errors.New("the join token is damaged: copy all of it")
	}
	t := new(JoinToken)
	decoder := json.NewDecoder(bytes.NewReader(decoded))
	decoder.DisallowUnknownFields()
	if decoder.Decode(t) != nil {
		return nil, errors.New("the join token is damaged, or of another version of isochrone")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the join token is damaged: something stands behind it")
	}
	return t, t.check()
}

func (t *JoinToken) check() error {
	var faults []error
	if !isWord(t.ID, idLength) || !isWord(t.Secret, secretLength) {
		faults = append(faults, errors.New("the join token has no id and secret as invitations have them"))
	}
	if hash, err := hex.DecodeString(t.CA); err != nil || len(hash) != 32 || strings.ToLower(t.CA) != t.CA {
		faults = append(faults, errors.New("the join token has no SHA-256 of a CA's certificate"))
	}
	return errors.Join(append(faults, checkURLs(t.URLs))...)
}

// isWord reports whether a text is of the letters and digits of ids and secrets, and so long.
func isWord(text string, length int) bool {
	return len(text) == length && strings.Trim(text, "abcdefghijklmnopqrstuvwxyz234567") == ""
}

// checkURLs checks the URLs of control planes.
func checkURLs(urls []string) error {
	if len(urls) == 0 || len(urls) > maxJoinURLs {
		return fmt.Errorf("%d URLs of control planes: want 1 to %d", len(urls), maxJoinURLs)
	}
	for _, text := range urls {
		if u, err := url.Parse(text); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
			return fmt.Errorf("%.100q is not the URL of a control plane such as https://c1.example.net:8443", text)
		}
	}
	return nil
}
