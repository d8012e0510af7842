package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
)

// sendPlaces are client subnets of cloud regions in those cities, or in the nearest one of their country.
var sendPlaces = map[string]string{
	"singapore": "13.228.0.0/24", "frankfurt": "18.184.0.0/24", "virginia": "3.208.0.0/24",
	"tokyo": "13.112.0.0/24", "sao-paulo": "18.228.0.0/24", "johannesburg": "196.25.1.0/24",
}

// sendOptions are the flags of "isochrone send".
type sendOptions struct {
	dir, dns, ca, key, service string
	from, data, contentType    string
	idempotency                string
	repeat                     int
	h2, json                   bool
}

func newSendCommand() *cobra.Command {
	var o sendOptions
	command := &cobra.Command{
		Use:   "send",
		Short: "Post payloads as a node does: resolve, connect over HTTP/3, post",
		Long: fmt.Sprintf(`Resolves the service with a client subnet, connects to the PoP that DNS answers, posts a payload
and prints what came back and how long it took. Places for --from: %s.`, strings.Join(slices.Sorted(maps.Keys(sendPlaces)), ", ")),
		Example: `  isochrone send --from singapore
  isochrone send --from 203.0.113.7 --data @payload.json --repeat 3`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return send(command.Context(), o, command.InOrStdin(), command.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.from, "from", "", "`place`, address or prefix of the client (default: none, so this machine's address counts)")
	flags.StringVar(&o.data, "data", "", "payload, @FILE, or - for standard input (default: an example with a random hash)")
	flags.StringVar(&o.contentType, "content-type", "application/json", "of the payload")
	flags.StringVar(&o.idempotency, "idempotency-key", "", "makes retries of a request recognisable")
	flags.IntVar(&o.repeat, "repeat", 1, "how often; from the second on the connection is open")
	flags.BoolVar(&o.h2, "h2", false, "use HTTP/2 over TCP instead of HTTP/3")
	flags.BoolVar(&o.json, "json", false, "print a line of JSON for each request")
	flags.StringVar(&o.service, "service", topology.ExampleService, "`host` name of the service")
	flags.StringVar(&o.dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	flags.StringVar(&o.dns, "dns", "", "`address` and port of the DNS server (default: as up.json says)")
	flags.StringVar(&o.ca, "ca", "", "`file` of the CA's certificate, or \"system\" (default: as up.json says)")
	flags.StringVar(&o.key, "key", "", "API key (default: the example world's)")
	return command
}

// fillDefaults takes from up.json what no flag says.
func (o *sendOptions) fillDefaults() error {
	if o.dns != "" && o.ca != "" && o.key != "" {
		return nil
	}
	up, err := statedir.ReadUp(o.dir)
	if err != nil {
		return err
	}
	for _, option := range []struct {
		value *string
		known string
	}{{&o.dns, up.DNS}, {&o.ca, up.CA}, {&o.key, up.APIKey}} {
		if *option.value == "" {
			*option.value = option.known
		}
	}
	return nil
}

// clientSubnet returns what a resolver would send for a client: a /24 or a /56 (RFC 7871 section 11.1).
func clientSubnet(from string) (netip.Prefix, error) {
	if from == "" {
		return netip.Prefix{}, nil
	}
	if known, ok := sendPlaces[strings.ToLower(from)]; ok {
		return netip.MustParsePrefix(known), nil
	}
	if prefix, err := netip.ParsePrefix(from); err == nil {
		return prefix.Masked(), nil
	}
	addr, err := netip.ParseAddr(from)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("--from %q is no address, no prefix and no place; places are %s", from, strings.Join(slices.Sorted(maps.Keys(sendPlaces)), ", "))
	}
	if addr = addr.Unmap(); addr.Is4() {
		return addr.Prefix(24)
	}
	return addr.WithZone("").Prefix(56)
}

// payload returns what to post.
func (o *sendOptions) payload(stdin io.Reader) ([]byte, error) {
	switch file, isFile := strings.CutPrefix(o.data, "@"); {
	case o.data == "":
		var hash [32]byte
		rand.Read(hash[:])
		return fmt.Appendf(nil, `{"hash":"0x%s","sender":"0x0000000000000000000000000000000000000001","amount":"1"}`, hex.EncodeToString(hash[:])), nil
	case o.data == "-":
		return io.ReadAll(stdin)
	case isFile:
		return os.ReadFile(file)
	}
	return []byte(o.data), nil
}

// sent is one request, as --json prints it.
type sent struct {
	From        string  `json:"from,omitempty"`
	Subnet      string  `json:"subnet,omitempty"`
	Status      int     `json:"status"`
	ID          string  `json:"id,omitempty"`
	SHA256      string  `json:"sha256,omitempty"`
	Problem     string  `json:"problem,omitempty"`
	PoP         string  `json:"pop"`
	Cluster     string  `json:"cluster,omitempty"`
	Endpoint    string  `json:"endpoint"`
	Protocol    string  `json:"protocol"`
	Reused      bool    `json:"reused"` // of an open connection
	ResolveMS   float64 `json:"resolve_ms"`
	HandshakeMS float64 `json:"handshake_ms"`
	TotalMS     float64 `json:"total_ms"` // from before the handshake until the answer
}

func send(ctx context.Context, o sendOptions, stdin io.Reader, out io.Writer) error {
	if err := o.fillDefaults(); err != nil {
		return err
	}
	subnet, err := clientSubnet(o.from)
	if err != nil {
		return err
	}
	body, err := o.payload(stdin)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	config := intakeclient.Config{TCP: o.h2}
	if o.ca != "system" {
		if config.Roots, err = readRoots(o.ca); err != nil {
			return err
		}
	}
	client := intakeclient.New(config)
	defer client.Close()
	header := http.Header{"X-Api-Key": {o.key}, "Content-Type": {o.contentType}, "User-Agent": {"isochrone"}}
	if o.idempotency != "" {
		header.Set("Idempotency-Key", o.idempotency)
	}
	resolver, refused := &intakeclient.Resolver{Server: o.dns, Subnet: subnet}, 0
	for i := range o.repeat {
		if i > 0 && o.data == "" {
			if body, err = o.payload(nil); err != nil {
				return err
			}
		}
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		result, err := sendOnce(ctx, client, resolver, &intakeclient.Request{Service: o.service, Path: dataplane.Path, Header: header, Body: body})
		cancel()
		if err != nil {
			return err
		}
		if result.From = o.from; subnet.IsValid() {
			result.Subnet = subnet.String()
		}
		if result.Status != http.StatusAccepted {
			refused++
		}
		if err := result.print(out, o.json); err != nil {
			return err
		}
	}
	if refused > 0 {
		return fmt.Errorf("%d of %d requests were refused", refused, o.repeat)
	}
	return nil
}

func readRoots(path string) (*x509.CertPool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("--ca: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--ca: %s has no certificate in PEM", path)
	}
	return roots, nil
}

func sendOnce(ctx context.Context, client *intakeclient.Client, resolver *intakeclient.Resolver, r *intakeclient.Request) (*sent, error) {
	start := time.Now()
	endpoints, err := resolver.Resolve(ctx, r.Service)
	if err != nil {
		return nil, err
	}
	resolved := time.Since(start)
	answer, err := client.Post(ctx, endpoints, r)
	if err != nil {
		return nil, err
	}
	result := &sent{
		Status: answer.Status, PoP: answer.Header.Get("X-Isochrone-Pop"), Cluster: answer.Header.Get("X-Isochrone-Cluster"),
		Endpoint: answer.Endpoint.Addr.String(), Protocol: answer.Protocol, Reused: answer.Reused,
		ResolveMS: milliseconds(resolved), HandshakeMS: milliseconds(answer.Connect), TotalMS: milliseconds(answer.Total),
	}
	if answer.Status == http.StatusAccepted {
		var accepted dataplane.Accepted
		if err := json.Unmarshal(answer.Body, &accepted); err != nil {
			return nil, fmt.Errorf("read the answer: %w", err)
		}
		result.ID, result.SHA256 = accepted.ID, accepted.SHA256
		return result, nil
	}
	var told problem.Document
	if err := json.Unmarshal(answer.Body, &told); err != nil {
		return nil, errors.New("the answer is no problem document: " + string(answer.Body))
	}
	result.Problem = told.Title
	if told.Detail != "" {
		result.Problem += ": " + told.Detail
	}
	return result, nil
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(10*time.Microsecond)) / float64(time.Millisecond)
}

func (s *sent) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(s)
	}
	if s.Status == http.StatusAccepted {
		fmt.Fprintf(out, "202 accepted by PoP %s for cluster %s\n  id      %s\n  sha256  %s\n", s.PoP, s.Cluster, s.ID, s.SHA256)
	} else {
		fmt.Fprintf(out, "%d by PoP %s: %s\n", s.Status, s.PoP, s.Problem)
	}
	connection := fmt.Sprintf("handshake %.1f ms", s.HandshakeMS)
	if s.Reused {
		connection = "connection open"
	}
	_, err := fmt.Fprintf(out, "  timing  resolve %.1f ms, %s, to the answer %.1f ms (%s, %s)\n", s.ResolveMS, connection, s.TotalMS, s.Protocol, s.Endpoint)
	return err
}
