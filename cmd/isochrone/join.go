package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/internal/statedir"
)

// identityDir is where a node keeps by what it is known: node.key, which never leaves it, node.crt, ca.crt and join.yaml.
type identityDir string

func (d identityDir) path(name string) string { return filepath.Join(string(d), name) }

func (d identityDir) key() string  { return d.path("node.key") }
func (d identityDir) cert() string { return d.path("node.crt") }
func (d identityDir) ca() string   { return d.path("ca.crt") }

// defaultIdentityDir is where the identity is, unless --dir says otherwise.
func defaultIdentityDir() string { return filepath.Join(statedir.Default(), "identity") }

// nodeIdentity is what join.yaml tells.
type nodeIdentity struct {
	Kind       string   `yaml:"kind"` // pop or dns
	Name       string   `yaml:"name"`
	Control    []string `yaml:"control"` // URLs of control planes
	Relay      []string `yaml:"relay"`   // URLs where it follows the store
	Etcd       []string `yaml:"etcd,omitempty"`
	EtcdPrefix string   `yaml:"etcd_prefix"`
}

// read returns who this node is.
func (d identityDir) read() (*nodeIdentity, error) {
	text, err := os.ReadFile(d.path("join.yaml"))
	if err != nil {
		return nil, fmt.Errorf("this machine has not joined (\"isochrone pop join\"): %w", err)
	}
	id := new(nodeIdentity)
	if err := yaml.Unmarshal(text, id); err != nil { // what a newer program has added is for that
		return nil, fmt.Errorf("read %s: %w", d.path("join.yaml"), err)
	}
	return id, nil
}

// keep writes what a control plane has answered, after it was checked. The certificate comes last: with it the node has joined.
func (d identityDir) keep(joined *controlplane.Joined, keyText []byte) error {
	text, err := yaml.Marshal(nodeIdentity{joined.Kind, joined.Name, joined.Control, joined.Relay, joined.Etcd, joined.EtcdPrefix})
	if err != nil {
		return err
	}
	if err := privatefile.Write(d.key(), keyText); err != nil {
		return err
	}
	return errors.Join(
		privatefile.WritePublic(d.ca(), []byte(joined.CA)), privatefile.WritePublic(d.path("join.yaml"), text),
		privatefile.WritePublic(d.cert(), []byte(joined.Certificate)),
	)
}

func newJoin() *cobra.Command {
	var (
		dir   string
		again bool
	)
	command := &cobra.Command{
		Use:   "join TOKEN",
		Short: "Join with a token: get this node's certificate",
		Long: `Makes a key on this machine, which never leaves it, and has a control plane that the token names
sign a certificate of it. The control plane is known by the CA's hash in the token: nothing is
sent to any other. Into --dir go node.key (mode 0600), node.crt, ca.crt and join.yaml.

TOKEN is - for standard input, or a file that has the token. The token itself is taken too, but
what stands on a command line can be read by others on this machine, and by the shell's history.`,
		Example: `  isochrone pop join - < token`,
		Args:    cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			token, err := readJoinToken(args[0], command.InOrStdin())
			if err != nil {
				return err
			}
			d := identityDir(dir)
			if _, err := os.Stat(d.cert()); err == nil && !again {
				return fmt.Errorf("%s is there already: this machine has joined; --again joins anew in its place", d.cert())
			}
			joined, err := join(command.Context(), token, d)
			if err != nil {
				return fmt.Errorf("join: %w", err)
			}
			fmt.Fprintf(command.OutOrStdout(), "joined as %s:%s: %s\n", joined.Kind, joined.Name, dir)
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", defaultIdentityDir(), "`folder` of this node's key and certificate")
	command.Flags().BoolVar(&again, "again", false, "join in the place of what --dir has")
	return command
}

// readJoinToken takes the token from standard input, from a file, or as it is given.
func readJoinToken(arg string, stdin io.Reader) (*controlplane.JoinToken, error) {
	const most = 64 << 10
	text := []byte(arg)
	var err error
	switch {
	case arg == "-":
		text, err = io.ReadAll(io.LimitReader(stdin, most))
	case !strings.HasPrefix(arg, "isoj_"):
		text, err = privatefile.Read(arg, most)
	}
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", err)
	}
	return controlplane.ParseJoinToken(string(text))
}

// join makes a key and has it certified.
func join(ctx context.Context, token *controlplane.JoinToken, dir identityDir) (*controlplane.Joined, error) {
	key, err := ca.NewKey()
	if err != nil {
		return nil, err
	}
	request, err := ca.EncodeRequest(key)
	if err != nil {
		return nil, err
	}
	keyText, err := ca.EncodeKey(key)
	if err != nil {
		return nil, err
	}
	body := controlplane.JoinRequest{ID: token.ID, Secret: token.Secret, Request: string(request)}
	joined, err := askAny(ctx, token.URLs, "/v1/join", body, func(host string) *tls.Config { return knownByHash(host, token.CA) })
	if err != nil {
		return nil, err
	}
	authority, err := parseCA(joined.CA)
	if err == nil && ca.Hash(authority.Certificate()) != token.CA {
		err = errors.New("the CA that was answered is not that of the token")
	}
	if err == nil {
		_, err = checkJoined(joined, authority, keyText)
	}
	if err != nil {
		return nil, err
	}
	return joined, dir.keep(joined, keyText)
}

// knownByHash verifies a server of which only the hash of its CA's certificate is known: that certificate comes with the server's.
func knownByHash(host, hash string) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // what follows verifies instead, before anything but the handshake is sent
		VerifyConnection: func(state tls.ConnectionState) error {
			for _, shown := range state.PeerCertificates {
				if ca.Hash(shown) != hash {
					continue
				}
				authority, err := ca.ParseCertificate(shown.Raw)
				if err != nil {
					return err
				}
				_, err = state.PeerCertificates[0].Verify(x509.VerifyOptions{
					Roots: authority.Pool(), DNSName: host, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
				})
				return err
			}
			return errors.New("this is no control plane of the deployment that the token is for: it does not show the CA's certificate")
		},
	}
}

func parseCA(text string) (*ca.CA, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the control plane answered no CA certificate")
	}
	return ca.ParseCertificate(block.Bytes)
}

// checkJoined checks that a certificate is of this key, of the node that was told, and of the CA.
func checkJoined(joined *controlplane.Joined, authority *ca.CA, keyText []byte) (*x509.Certificate, error) {
	pair, err := tls.X509KeyPair([]byte(joined.Certificate), keyText)
	if err != nil {
		return nil, fmt.Errorf("the control plane's answer: %w", err)
	}
	if err := authority.Verify(pair.Leaf, time.Now()); err != nil {
		return nil, fmt.Errorf("the control plane's answer: %w", err)
	}
	if want := joined.Kind + ":" + joined.Name; pair.Leaf.Subject.CommonName != want {
		return nil, fmt.Errorf("the control plane answered a certificate of %q for %s", pair.Leaf.Subject.CommonName, want)
	}
	return pair.Leaf, nil
}

// Limits of one question to a control plane.
const (
	joinTimeout   = 20 * time.Second
	maxJoinAnswer = 64 << 10
)

// askAny asks one control plane after the other, until one answers. A refusal is an answer.
func askAny(ctx context.Context, urls []string, path string, body any, verify func(host string) *tls.Config) (*controlplane.Joined, error) {
	var fails []error
	for _, base := range urls {
		u, err := url.Parse(base)
		if err != nil {
			return nil, err
		}
		joined, answered, err := ask(ctx, u.JoinPath(path).String(), body, verify(u.Hostname()))
		if err == nil || answered {
			return joined, err
		}
		fails = append(fails, err)
	}
	return nil, errors.Join(fails...)
}

// ask posts a question and reports, with an error, whether it was answered.
func ask(ctx context.Context, to string, body any, config *tls.Config) (joined *controlplane.Joined, answered bool, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, false, err
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, DisableKeepAlives: true}
	client := &http.Client{
		Transport: transport, Timeout: joinTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(text))
	if err != nil {
		return nil, false, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return nil, false, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxJoinAnswer))
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", to, err)
	}
	if response.StatusCode != http.StatusOK {
		var p problem.Document
		_ = json.Unmarshal(answer, &p) // what is no problem document has no detail
		refusal := response.StatusCode < http.StatusInternalServerError && response.StatusCode != http.StatusTooManyRequests
		return nil, refusal, errors.New(strings.TrimSpace(fmt.Sprintf("%s answered %s %s", to, response.Status, p.Detail)))
	}
	joined = new(controlplane.Joined)
	if err := json.Unmarshal(answer, joined); err != nil {
		return nil, true, fmt.Errorf("%s: the answer cannot be read: %w", to, err)
	}
	return joined, true, nil
}
