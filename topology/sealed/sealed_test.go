package sealed

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/isochrone/isochrone/topology"
)

// role makes the key of a role.
func role(t testing.TB) (identities []age.Identity, recipient string) {
	t.Helper()
	identity, recipient, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	identities, err = age.ParseIdentities(strings.NewReader(identity))
	if err != nil {
		t.Fatal(err)
	}
	return identities, recipient
}

func TestSealAndOpen(t *testing.T) {
	pop, toPoP := role(t)
	dns, toDNS := role(t)
	other, _ := role(t)
	secret := []byte("open sesame\x00\n")
	s, err := Seal("cluster-token.fra", secret, []string{toPoP, toDNS}, "of the cluster", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, faults := topology.ParseSealed("cluster-token.fra", topology.MarshalValue(s)); len(faults) > 0 {
		t.Errorf("it cannot be stored: %v", faults)
	}
	for name, identities := range map[string][]age.Identity{"pop": pop, "dns": dns, "several": append(other, dns...)} {
		if got, err := Open("cluster-token.fra", s, identities); err != nil || !bytes.Equal(got, secret) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	for name, identities := range map[string][]age.Identity{"none": nil, "another": other} {
		if got, err := Open("cluster-token.fra", s, identities); !errors.Is(err, ErrNotOurs) {
			t.Errorf("%s: got %q, %v, want %v", name, got, err, ErrNotOurs)
		}
	}
	if got, err := Open("cluster-token.lhr", s, pop); err == nil || !strings.Contains(err.Error(), "another name") {
		t.Errorf("under another name: got %q, %v", got, err)
	}
	longest := bytes.Repeat([]byte{255}, MaxSecretBytes)
	s, err = Seal(strings.Repeat("a.", 126)+"a", longest, []string{toPoP}, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open(strings.Repeat("a.", 126)+"a", s, pop); err != nil || !bytes.Equal(got, longest) {
		t.Errorf("the longest: got %d bytes, %v", len(got), err)
	}
	if _, faults := topology.ParseSealed(strings.Repeat("a.", 126)+"a", topology.MarshalValue(s)); len(faults) > 0 {
		t.Errorf("the longest cannot be stored: %v", faults)
	}
}

func TestRefusals(t *testing.T) {
	identities, to := role(t)
	for _, test := range []struct {
		want       string
		secret     []byte
		recipients []string
	}{
		{"nobody is named", []byte("1"), nil},
		{"is not the public key", []byte("1"), []string{to, "age1x"}},
		{"is not the public key", []byte("1"), []string{to + "\n" + to}},
		{"has 0 bytes", nil, []string{to}},
		{"want 1 to 32768", make([]byte, MaxSecretBytes+1), []string{to}},
	} {
		if s, err := Seal("x", test.secret, test.recipients, "", time.Now()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got %v, %v, want an error with %q", test.recipients, s, err, test.want)
		}
	}
	s, err := Seal("x", []byte("secret"), []string{to}, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(s.Age, "\n")
	for i := range lines[1 : len(lines)-2] { // each line in turn is damaged
		broken := append([]string{}, lines...)
		broken[i+1] = strings.Map(func(r rune) rune {
			if r == 'A' {
				return 'B'
			}
			return 'A'
		}, broken[i+1])
		if got, err := Open("x", &topology.Sealed{Age: strings.Join(broken, "\n")}, identities); err == nil || strings.Contains(err.Error(), "secret\"") {
			t.Errorf("line %d damaged: got %q, %v", i+1, got, err)
		}
	}
}

func TestReadIdentities(t *testing.T) {
	identity, to, err := GenerateIdentity()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "role.key")
	write := func(text string, mode os.FileMode) {
		t.Helper()
		if err := errors.Join(os.WriteFile(path, []byte(text), mode), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	write("# of node-pop\n"+identity+"\n", 0o600)
	identities, err := ReadIdentities(path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Seal("x", []byte("1"), []string{to}, "", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Open("x", s, identities); err != nil || string(got) != "1" {
		t.Errorf("got %q, %v", got, err)
	}
	write(identity, 0o644)
	if _, err := ReadIdentities(path); err == nil || !strings.Contains(err.Error(), "mode 0644") {
		t.Errorf("readable by others: got %v", err)
	}
	write(identity+"X", 0o600)
	if _, err := ReadIdentities(path); err == nil || strings.Contains(err.Error(), identity[20:30]) {
		t.Errorf("damaged: got %v", err)
	}
}

// FuzzOpen opens what somebody else has put into the store.
func FuzzOpen(f *testing.F) {
	identities, to := role(f)
	s, err := Seal("x", []byte("secret"), []string{to}, "", time.Now())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Age)
	f.Add("-----BEGIN AGE ENCRYPTED FILE-----\n-----END AGE ENCRYPTED FILE-----\n")
	f.Fuzz(func(t *testing.T, text string) {
		if got, err := Open("x", &topology.Sealed{Age: text}, identities); err == nil && string(got) != "secret" {
			t.Errorf("opened %q, which nobody sealed", got)
		}
	})
}
