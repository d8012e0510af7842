package topology

import (
	"fmt"
	"strings"
	"time"
)

// maxSealedBytes bounds a sealed secret, in the form in which it is stored.
const maxSealedBytes = 64 << 10

// Sealed is a secret that is stored so that only those who have the key file of a role can read it: HMAC and TSIG secrets, tokens of
// clusters, keys of ACME accounts and of session tickets. Package topology/sealed seals and opens it.
type Sealed struct {
	Schema     int       `yaml:"schema" json:"schema"`
	Recipients []string  `yaml:"recipients" json:"recipients"` // age public keys (age1…) of the roles that can open it
	Age        string    `yaml:"age" json:"age,omitempty"`     // the secret as an age file, in ASCII armor
	Note       string    `yaml:"note,omitempty" json:"note,omitempty"`
	Created    time.Time `yaml:"created" json:"created"`
}

// ParseSealed reads and checks a sealed secret.
func ParseSealed(name string, text []byte) (*Sealed, []Fault) {
	s, d := new(Sealed), decoder{}
	if d.decode(text, "secrets."+name, s); len(d.faults) > 0 {
		return nil, d.faults
	}
	if faults := d.locate(checkSealed(name, s)); len(faults) > 0 {
		return nil, faults
	}
	return s, nil
}

func checkSealed(name string, s *Sealed) []Fault {
	c := &checker{path: "secrets." + name}
	if c.faults = checkSchema(c.path+".schema", s.Schema); IsTooNew(s.Schema) {
		return c.faults
	}
	c.domain("", name)
	for i, r := range s.Recipients {
		if !strings.HasPrefix(r, "age1") {
			c.fault(fmt.Sprintf("recipients[%d]", i), "%q is not the public key of a role, such as age1…", r)
		}
	}
	switch {
	case len(s.Age) > maxSealedBytes:
		c.fault("age", "%d bytes are too many: at most %d are taken", len(s.Age), maxSealedBytes)
	case !strings.HasPrefix(s.Age, "-----BEGIN AGE ENCRYPTED FILE-----\n"):
		c.fault("age", "is not sealed: want an age file in ASCII armor, as \"isochrone secret put\" writes it")
	}
	return c.faults
}
