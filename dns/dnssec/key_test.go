package dnssec

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/isochrone/isochrone/topology"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

var algorithms = []uint8{ECDSAP256SHA256, ED25519}

func generate(t testing.TB, role topology.KeyRole, algorithm uint8, taken ...uint16) *Key {
	t.Helper()
	k, err := Generate("example.net", role, algorithm, taken...)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestKeysSurviveTheirFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "keys")
	var keys []*Key
	for _, algorithm := range algorithms {
		for _, role := range []topology.KeyRole{topology.KSK, topology.ZSK} {
			k := generate(t, role, algorithm)
			keys = append(keys, k)
			path, err := k.WriteFiles(dir)
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: got mode %v, %v", path, info.Mode(), err)
			}
			if _, err := k.WriteFiles(dir); !errors.Is(err, fs.ErrExist) {
				t.Errorf("a key is written over: %v", err)
			}
			// Another reader of the same form, and its signature.
			public, err := os.ReadFile(strings.TrimSuffix(path, ".private") + ".key")
			if err != nil {
				t.Fatal(err)
			}
			rr, err := dns.NewRR(string(public))
			if err != nil || rr.(*dns.DNSKEY).KeyTag() != k.Tag() {
				t.Fatalf("%s: got %v, %v, want key %d", path, rr, err, k.Tag())
			}
			file, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if _, err := rr.(*dns.DNSKEY).ReadPrivateKey(file, path); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the folder: got %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	ring, err := LoadKeyring(dir)
	if err != nil || ring.Len() != len(keys) || !ring.Equal(NewKeyring(keys...)) {
		t.Fatalf("got %d keys, %v, want %d", ring.Len(), err, len(keys))
	}
	for _, k := range keys {
		if got := ring.Key("example.net", k.Tag(), k.Record.Algorithm); got == nil || got.Role() != k.Role() {
			t.Errorf("key %d: got %+v", k.Tag(), got)
		}
	}
	if err := keys[0].RemoveFiles(dir); err != nil {
		t.Error(err)
	}
	if ring, err := LoadKeyring(dir); err != nil || ring.Len() != len(keys)-1 {
		t.Errorf("after a removal: %d keys, %v", ring.Len(), err)
	}
}

func TestKeyringRefuses(t *testing.T) {
	k := generate(t, topology.KSK, ECDSAP256SHA256)
	name := FileName("example.net", ECDSAP256SHA256, k.Tag()) + ".private"
	for _, test := range []struct {
		name  string
		spoil func(t *testing.T, dir, path string) error
		want  []string
	}{
		{"a file that the group can read", func(_ *testing.T, _, path string) error { return os.Chmod(path, 0o640) },
			[]string{name, "0640", "chmod 600"}},
		{"a file that others can read", func(_ *testing.T, _, path string) error { return os.Chmod(path, 0o604) },
			[]string{name, "0604", "chmod 600"}},
		{"another tag in the name", func(_ *testing.T, dir, path string) error {
			return os.Rename(path, filepath.Join(dir, FileName("example.net", ECDSAP256SHA256, k.Tag()+7)+".private"))
		}, []string{"has the tag"}},
		{"another algorithm in the name", func(_ *testing.T, dir, path string) error {
			return os.Rename(path, filepath.Join(dir, FileName("example.net", ED25519, k.Tag())+".private"))
		}, []string{"is of algorithm 13, its name says 15"}},
		{"a name of no key", func(_ *testing.T, dir, path string) error {
			return os.Rename(path, filepath.Join(dir, "Kexample.net.private"))
		}, []string{"Kexample.net.private", "want a name such as"}},
		{"no key", func(_ *testing.T, _, path string) error { return os.WriteFile(path, []byte("hello\n"), 0o600) },
			[]string{name, "is no private key"}},
		{"too much", func(_ *testing.T, _, path string) error { return os.Truncate(path, 1<<20) }, []string{name, "more than"}},
		{"a folder", func(_ *testing.T, _, path string) error {
			return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
		}, []string{name, "is no file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			path, err := k.WriteFiles(dir)
			if err != nil {
				t.Fatal(err)
			}
			if err := test.spoil(t, dir, path); err != nil {
				t.Fatal(err)
			}
			ring, err := LoadKeyring(dir)
			if ring != nil || err == nil {
				t.Fatalf("got %d keys, %v", ring.Len(), err)
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q in it", err, want)
				}
			}
		})
	}
}

func TestEmptyKeyrings(t *testing.T) {
	ring, err := LoadKeyring(filepath.Join(t.TempDir(), "nowhere"))
	if err != nil || ring.Len() != 0 {
		t.Errorf("without a folder: %d keys, %v", ring.Len(), err)
	}
	var none *Keyring
	if none.Key("example.net", 1, 13) != nil || none.Len() != 0 || none.Of("example.net") != nil || !none.Equal(ring) {
		t.Error("a nil keyring has keys")
	}
}

func TestGenerateAvoidsTags(t *testing.T) {
	taken := make([]uint16, 0, 1<<16)
	for tag := range 1 << 16 {
		if tag%64 != 0 {
			taken = append(taken, uint16(tag))
		}
	}
	if k := generate(t, topology.ZSK, ED25519, taken...); k.Tag()%64 != 0 {
		t.Errorf("got key %d, which is taken", k.Tag())
	}
	if _, err := Generate("example.net", "csk", ED25519); err == nil {
		t.Error("a key has an unknown role")
	}
	if _, err := Generate("example.net", topology.KSK, 8); err == nil {
		t.Error("a key has an unknown algorithm")
	}
}

// need returns the path of another program; without it the test is skipped, or fails in CI.
func need(t *testing.T, tool string) string {
	t.Helper()
	path, err := exec.LookPath(tool)
	if err != nil && os.Getenv("CI") != "" {
		t.Fatal(err)
	} else if err != nil {
		t.Skipf("%v: install it to run this test", err)
	}
	return path
}

// TestKeysOfLDNS reads keys that another program has made, and has it make the DS records of ours.
func TestKeysOfLDNS(t *testing.T) {
	keygen, key2ds := need(t, "ldns-keygen"), need(t, "ldns-key2ds")
	dir := t.TempDir()
	for _, name := range []string{"ECDSAP256SHA256", "ED25519"} {
		command := exec.Command(keygen, "-a", name, "-k", "example.net")
		command.Dir = dir
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("ldns-keygen: %v: %s", err, out)
		}
	}
	private, _ := filepath.Glob(filepath.Join(dir, "*.private"))
	for _, path := range private {
		if err := os.Chmod(path, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ring, err := LoadKeyring(dir)
	if err != nil || ring.Len() != 2 {
		t.Fatalf("got %d keys, %v", ring.Len(), err)
	}
	for _, algorithm := range algorithms {
		k := generate(t, topology.KSK, algorithm)
		path, err := k.WriteFiles(dir)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(key2ds, "-n", "-2", strings.TrimSuffix(path, ".private")+".key").Output()
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := dns.NewRR(string(out))
		if err != nil {
			t.Fatal(err)
		}
		signing := &topology.Signing{Keys: []topology.SigningKey{k.Public(topology.KeyActive, start)}}
		ours := DS("example.net", signing, theirs.Header().Ttl)
		if len(ours) != 1 || !dns.IsDuplicate(ours[0], theirs) {
			t.Errorf("got %v, want %v", ours, theirs)
		}
	}
}

func FuzzPrivateKey(f *testing.F) {
	for _, algorithm := range algorithms {
		k, err := Generate("example.net", topology.KSK, algorithm)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(k.privateText())
		f.Add(k.privateText() + "Created: 20260101000000\nPublish: 20260101000000\n")
	}
	f.Add("Private-key-format: v1.3\nAlgorithm: 13 (ECDSAP256SHA256)\nPrivateKey: AAAA\n")
	f.Add("Private-key-format: v1.3\nAlgorithm: 8 (RSASHA256)\nModulus: AAAA\n")
	f.Fuzz(func(t *testing.T, text string) {
		algorithm, private, err := parsePrivate(text)
		if err != nil {
			if len(err.Error()) > 400 {
				t.Errorf("an error of %d octets", len(err.Error()))
			}
			return
		}
		// What is read can be written, and read as the same key.
		k := newKey("example.net", topology.ZSK, algorithm, private)
		again, same, err := parsePrivate(k.privateText())
		if err != nil || again != algorithm {
			t.Fatalf("its own text is not read: %v", err)
		}
		if newKey("example.net", topology.ZSK, again, same).Record.PublicKey != k.Record.PublicKey {
			t.Error("another key is read")
		}
	})
}

func FuzzFileName(f *testing.F) {
	f.Add("Kexample.net.+013+12345")
	f.Add("K.+015+00001")
	f.Add("Kexample.net.+13+12345")
	f.Fuzz(func(t *testing.T, name string) {
		if zone, algorithm, tag, err := parseFileName(name); err == nil && FileName(zone, algorithm, tag) != name {
			t.Errorf("%q is read as %q", name, FileName(zone, algorithm, tag))
		}
	})
}
