package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/privatefile"
)

// contexts are the Isochrones that a person works with, by name. They stand in contexts.yaml in the user's folder of configuration.
type contexts struct {
	Current  string                    `yaml:"current,omitempty"`
	Contexts map[string]*targetContext `yaml:"contexts"`
}

// targetContext says where one Isochrone is: at an API, at an etcd, or in the state folder of an "isochrone up".
type targetContext struct {
	API       string      `yaml:"api,omitempty"`
	TokenFile string      `yaml:"token_file,omitempty"`
	Token     string      `yaml:"token,omitempty"`
	CA        string      `yaml:"ca,omitempty"`
	Etcd      contextEtcd `yaml:"etcd,omitempty"`
	Dir       string      `yaml:"dir,omitempty"`

	dir string // of an "isochrone up" that may have the token
}

// contextEtcd is what --etcd and those beside it say.
type contextEtcd struct {
	Endpoints    []string `yaml:"endpoints,omitempty"`
	Prefix       string   `yaml:"prefix,omitempty"`
	Cert         string   `yaml:"cert,omitempty"`
	Key          string   `yaml:"key,omitempty"`
	CA           string   `yaml:"ca,omitempty"`
	User         string   `yaml:"user,omitempty"`
	PasswordFile string   `yaml:"password_file,omitempty"`
}

func contextEtcdOf(f *etcdFlags) contextEtcd {
	return contextEtcd{f.endpoints, f.prefix, f.cert, f.key, f.ca, f.user, f.passwordFile}
}

func (e *contextEtcd) flags() *etcdFlags {
	f := &etcdFlags{endpoints: e.Endpoints, prefix: e.Prefix, cert: e.Cert, key: e.Key, ca: e.CA, user: e.User, passwordFile: e.PasswordFile}
	if f.prefix == "" {
		f.prefix = storeRoot
	}
	return f
}

// String tells where it is.
func (c *targetContext) String() string {
	switch {
	case c.API != "":
		return c.API
	case len(c.Etcd.Endpoints) > 0:
		return "etcd at " + strings.Join(c.Etcd.Endpoints, ", ")
	}
	return "isochrone up in " + c.Dir
}

// maxContexts bounds the file of contexts.
const maxContexts = 1 << 20

// contextsPath is where contexts stand.
func contextsPath() (string, error) {
	if base := os.Getenv("XDG_CONFIG_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "isochrone", "contexts.yaml"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".config", "isochrone", "contexts.yaml"), nil
}

// readContexts reads the file; where there is none there are no contexts.
func readContexts() (*contexts, error) {
	known := &contexts{Contexts: map[string]*targetContext{}}
	path, err := contextsPath()
	if err != nil {
		return known, nil // who has no home has no contexts
	}
	text, err := privatefile.Read(path, maxContexts)
	if errors.Is(err, fs.ErrNotExist) {
		return known, nil
	}
	if err != nil {
		return nil, fmt.Errorf("contexts: %w", err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if err := decoder.Decode(known); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("contexts: %s: %w", path, err)
	}
	if known.Contexts == nil {
		known.Contexts = map[string]*targetContext{}
	}
	return known, nil
}

func (c *contexts) write() error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	text, err := yaml.Marshal(c)
	if err != nil {
		return err
	}
	return privatefile.Write(path, text)
}

func (c *contexts) names() []string { return slices.Sorted(maps.Keys(c.Contexts)) }

// find returns the context of a name.
func (c *contexts) find(name string) (*targetContext, error) {
	if found := c.Contexts[name]; found != nil {
		return found, nil
	}
	return nil, fmt.Errorf("there is no context %q; there are %s", name, orNone(c.names()))
}

// orNone names what there is.
func orNone(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

var contextName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

func newContextCommand() *cobra.Command {
	return newGroup("context", "Choose which Isochrone commands work with",
		newContextSet(), newContextUse(), newContextList(), newContextShow(), newContextRemove())
}

func newContextSet() *cobra.Command {
	var (
		t     target
		token bool
	)
	command := &cobra.Command{
		Use:   "set NAME",
		Short: "Keep where an Isochrone is under a name, in place of what it was",
		Example: `  isochrone context set prod --api https://control.example.net --token-file ~/.isochrone-token
  isochrone context set rescue --etcd https://192.0.2.10:2379 --etcd-cert me.pem --etcd-key me-key.pem`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeContexts,
		RunE: func(command *cobra.Command, args []string) error {
			if !contextName.MatchString(args[0]) {
				return fmt.Errorf("%q is no name of a context: want letters, digits, dots and dashes", args[0])
			}
			made, err := t.asContext(command, token)
			if err != nil {
				return err
			}
			known, err := readContexts()
			if err != nil {
				return err
			}
			known.Contexts[args[0]] = made
			if known.Current == "" {
				known.Current = args[0]
			}
			if err := known.write(); err != nil {
				return err
			}
			fmt.Fprintf(command.OutOrStdout(), "context %s is %v\n", args[0], made)
			return nil
		},
	}
	t.register(command)
	command.Flags().BoolVar(&token, "token-stdin", false, "read the token from standard input, and keep it in the file of contexts")
	return command
}

// asContext makes a context of flags. Paths in it do not depend on where the person is.
func (t *target) asContext(command *cobra.Command, token bool) (*targetContext, error) {
	made := &targetContext{API: t.api, TokenFile: t.tokenFile, CA: t.ca}
	switch {
	case t.api != "" && len(t.etcd.endpoints) > 0:
		return nil, errors.New("--api and --etcd: want one of both")
	case len(t.etcd.endpoints) > 0:
		made.Etcd = contextEtcdOf(&t.etcd)
		if err := t.etcd.check(); err != nil {
			return nil, err
		}
	case t.api == "":
		made.Dir = t.dir
	}
	for _, path := range []*string{&made.TokenFile, &made.CA, &made.Dir, &made.Etcd.Cert, &made.Etcd.Key, &made.Etcd.CA, &made.Etcd.PasswordFile} {
		if *path == "" {
			continue
		}
		full, err := filepath.Abs(*path)
		if err != nil {
			return nil, err
		}
		*path = full
	}
	if made.API != "" {
		client, err := controlplane.NewClient(controlplane.ClientConfig{URL: made.API, Token: made.token})
		if err != nil {
			return nil, fmt.Errorf("--api: %w", err)
		}
		client.Close()
	}
	if token {
		text, err := io.ReadAll(io.LimitReader(command.InOrStdin(), maxSecretFile))
		if err != nil {
			return nil, err
		}
		made.Token = strings.TrimSpace(string(text))
	}
	return made, nil
}
