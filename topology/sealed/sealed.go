// Package sealed seals secrets for those who have the key file of a role, and opens them: the age format (age-encryption.org/v1),
// in ASCII armor. A secret is sealed under its name, so that who can write secrets, but not open them, cannot pass one off as
// another. It keeps nothing and reads no store.
//
//	identity, recipient, err := sealed.GenerateIdentity()
//	s, err := sealed.Seal("cluster-token.fra", token, []string{recipient}, "", time.Now())
//	token, err = sealed.Open("cluster-token.fra", s, identities)
package sealed

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/topology"
)

// ErrNotOurs is returned for a secret that was sealed for others.
var ErrNotOurs = errors.New("sealed for other roles: no identity here opens it")

// MaxSecretBytes bounds a secret before it is sealed.
const MaxSecretBytes = 32 << 10

// maxIdentityFile bounds a role's key file.
const maxIdentityFile = 64 << 10

// header begins what is sealed; the secret's name and an end of line follow.
const header = "isochrone secret "

// GenerateIdentity makes the key of a role: the line of its key file, and the recipient that secrets are sealed to.
func GenerateIdentity() (identity, recipient string, err error) {
	key, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", err
	}
	return key.String(), key.Recipient().String(), nil
}

// ReadIdentities reads a role's key file: an age identity file, such as age-keygen makes too, that its owner alone can read. It may
// have several identities, so that a role can change its key. An error does not tell what stands in it.
func ReadIdentities(path string) ([]age.Identity, error) {
	text, err := privatefile.Read(path, maxIdentityFile)
	if err != nil {
		return nil, err
	}
	identities, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("%s is no file of age identities: want lines such as AGE-SECRET-KEY-1…, as \"isochrone secret keygen\" writes it", path)
	}
	return identities, nil
}

// Seal seals a secret for recipients (age1…), each of which can open it. The name is that under which it will stand.
func Seal(name string, secret []byte, recipients []string, note string, now time.Time) (*topology.Sealed, error) {
	if len(secret) == 0 || len(secret) > MaxSecretBytes {
		return nil, fmt.Errorf("secret %s has %d bytes: want 1 to %d", name, len(secret), MaxSecretBytes)
	}
	keys, err := parseRecipients(recipients)
	if err != nil {
		return nil, err
	}
	var text bytes.Buffer
	armored := armor.NewWriter(&text)
	w, err := age.Encrypt(armored, keys...)
	if err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	_, err = w.Write(append([]byte(header+name+"\n"), secret...))
	if err = errors.Join(err, w.Close(), armored.Close()); err != nil {
		return nil, fmt.Errorf("seal %s: %w", name, err)
	}
	return &topology.Sealed{
		Schema: topology.FirstSchema, Recipients: recipients, Age: text.String(), Note: note, Created: now.UTC().Truncate(time.Second),
	}, nil
}

func parseRecipients(texts []string) ([]age.Recipient, error) {
	if len(texts) == 0 {
		return nil, errors.New("nobody is named who could open it: want recipients such as age1…")
	}
	var keys []age.Recipient
	var faults []error
	for _, text := range texts {
		parsed, err := age.ParseRecipients(strings.NewReader(text))
		if err != nil || len(parsed) != 1 {
			faults = append(faults, fmt.Errorf("%.100q is not the public key of a role: want such as age1…, as \"isochrone secret keygen\" prints it", text))
		}
		keys = append(keys, parsed...)
	}
	return keys, errors.Join(faults...)
}

// Open opens a secret. The error is ErrNotOurs when no identity is among those it was sealed for; no error tells of the contents.
func Open(name string, s *topology.Sealed, identities []age.Identity) ([]byte, error) {
	if len(identities) == 0 {
		return nil, fmt.Errorf("secret %s: %w", name, ErrNotOurs)
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(s.Age)), identities...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return nil, fmt.Errorf("secret %s: %w", name, ErrNotOurs)
	}
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be opened: %w", name, err)
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(len(header)+len(name)+1+MaxSecretBytes+1)))
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be opened: %w", name, err)
	}
	secret, ok := bytes.CutPrefix(text, []byte(header+name+"\n"))
	switch {
	case !ok:
		return nil, fmt.Errorf("secret %s was sealed under another name", name)
	case len(secret) > MaxSecretBytes:
		return nil, fmt.Errorf("secret %s has more than %d bytes", name, MaxSecretBytes)
	}
	return secret, nil
}

// RecipientsOf returns the recipients that identities open for, of those that ReadIdentities gives: for who seals for itself.
func RecipientsOf(identities []age.Identity) []string {
	var recipients []string
	for _, identity := range identities {
		switch i := identity.(type) {
		case *age.X25519Identity:
			recipients = append(recipients, i.Recipient().String())
		case *age.HybridIdentity:
			recipients = append(recipients, i.Recipient().String())
		}
	}
	return recipients
}
