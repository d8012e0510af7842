package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
)

// whereabouts is what "isochrone where" tells.
type whereabouts struct {
	Service string   `json:"service"`
	DNS     string   `json:"dns"` // the server that was asked
	Choices []choice `json:"choices"`
	Why     []string `json:"why,omitempty"` // as the DNS server explains it, to those who may ask
}

// choice is one PoP that DNS answers, best first.
type choice struct {
	PoP         string  `json:"pop,omitempty"` // as it says itself
	Target      string  `json:"target"`        // of the HTTPS record
	Address     string  `json:"address"`
	Protocol    string  `json:"protocol,omitempty"`
	HandshakeMS float64 `json:"handshake_ms,omitempty"`
	RoundTripMS float64 `json:"round_trip_ms,omitempty"` // of a request over the open connection
	RTTMS       float64 `json:"rtt_ms,omitempty"`        // smoothed, of the QUIC connection
	Cluster     string  `json:"cluster,omitempty"`       // that the PoP would forward to next

	Certificate *shownCertificate `json:"certificate,omitempty"`
	Error       string            `json:"error,omitempty"`
}

// shownCertificate is what is told of the certificate that a PoP has shown, and that was verified.
type shownCertificate struct {
	Names   []string  `json:"names"`
	Issuer  string    `json:"issuer"`
	Expires time.Time `json:"expires"`
}

func shownOf(state *tls.ConnectionState) *shownCertificate {
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	leaf := state.PeerCertificates[0]
	issuer := leaf.Issuer.CommonName
	if organization := strings.Join(leaf.Issuer.Organization, ", "); organization != "" {
		issuer = strings.TrimPrefix(issuer+" of "+organization, " of ")
	}
	return &shownCertificate{Names: leaf.DNSNames, Issuer: issuer, Expires: leaf.NotAfter}
}

func newWhereCommand() *cobra.Command {
	var dir, server, ca, output string
	var h2 bool
	command := &cobra.Command{
		Use:   "where [SERVICE]",
		Short: "Tell which PoP this machine is on, how far away it is, and which one is next",
		Long: `Resolves a service as a client on this machine does, connects to the PoPs that DNS answers, and tells how long that
takes, which cluster each forwards to, and whose certificate it has shown. It needs no key. Why DNS has chosen them is told by servers that explain it to this machine
("isochrone dns --explain-to").`,
		Example: `  isochrone where
  isochrone where intake.example.net --dns 192.0.2.53:53 -o json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			t := target{output: output}
			if err := t.checkOutput(); err != nil {
				return err
			}
			service := ""
			if len(args) == 1 {
				service = strings.TrimSuffix(args[0], ".")
			}
			if up, err := statedir.ReadUp(dir); err == nil {
				service, server, ca = cmp.Or(service, topology.ExampleService), cmp.Or(server, up.DNS), cmp.Or(ca, up.CA)
			}
			if service == "" {
				return errors.New("name a service, such as intake.example.net")
			}
			found, err := locate(command.Context(), service, server, ca, h2)
			if err != nil {
				return err
			}
			return t.show(command, found, func(out io.Writer) error { return found.print(out) })
		},
	}
	flags := command.Flags()
	flags.StringVar(&dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	flags.StringVar(&server, "dns", "", "`address` and port of the DNS server (default: as up.json says, else the system's)")
	flags.StringVar(&ca, "ca", "", "`file` of the CA's certificate, or \"system\" (default: as up.json says, else system)")
	flags.BoolVar(&h2, "h2", false, "use HTTP/2 over TCP instead of HTTP/3")
	flags.StringVarP(&output, "output", "o", "table", "`form`: table, json or yaml")
	return command
}

// locate asks DNS and the PoPs.
func locate(ctx context.Context, service, server, ca string, h2 bool) (*whereabouts, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var roots *x509.CertPool
	var err error
	if ca != "" && ca != "system" {
		if roots, err = readRoots(ca); err != nil {
			return nil, err
		}
	}
	if server == "" {
		if server, err = intakeclient.SystemResolver(); err != nil {
			return nil, err
		}
	}
	endpoints, err := (&intakeclient.Resolver{Server: server}).Resolve(ctx, service)
	if err != nil {
		return nil, err
	}
	client := intakeclient.New(intakeclient.Config{Roots: roots, TCP: h2, HandshakeTimeout: 3 * time.Second})
	defer client.Close()
	found := &whereabouts{Service: service, DNS: server, Why: explained(ctx, service, server)}
	for _, e := range endpoints[:min(len(endpoints), 4)] {
		found.Choices = append(found.Choices, visit(ctx, client, service, e))
	}
	return found, nil
}

// visit asks a PoP who it is, in a way that nothing comes of: payloads are posted.
func visit(ctx context.Context, client *intakeclient.Client, service string, e intakeclient.Endpoint) choice {
	at := choice{Target: e.Target, Address: e.Addr.String()}
	for range 2 { // the second request finds the connection open
		answer, err := client.Post(ctx, []intakeclient.Endpoint{e}, &intakeclient.Request{
			Method: http.MethodGet, Service: service, Path: dataplane.Path, Header: http.Header{"User-Agent": {"isochrone"}},
		})
		if err != nil {
			at.Error = err.Error()
			return at
		}
		at.PoP, at.Protocol, at.Cluster = answer.Header.Get("X-Isochrone-Pop"), answer.Protocol, answer.Header.Get("X-Isochrone-Cluster")
		at.RTTMS, at.Certificate = milliseconds(answer.RTT), shownOf(answer.TLS)
		if answer.Reused {
			at.RoundTripMS = milliseconds(answer.Total)
		} else {
			at.HandshakeMS = milliseconds(answer.Connect)
		}
	}
	return at
}

// explained asks the DNS server why, which most do not tell everybody.
func explained(ctx context.Context, service, server string) []string {
	question := new(dns.Msg).SetQuestion(dns.Fqdn("explain."+service), dns.TypeTXT)
	question.SetEdns0(1232, false)
	answer, _, err := (&dns.Client{Timeout: time.Second}).ExchangeContext(ctx, question, server)
	if err != nil {
		return nil
	}
	var lines []string
	for _, rr := range answer.Answer {
		if txt, ok := rr.(*dns.TXT); ok {
			lines = append(lines, strings.Join(txt.Txt, ""))
		}
	}
	return lines
}

func (w *whereabouts) print(out io.Writer) error {
	for i, c := range w.Choices {
		word := "next choice"
		if i == 0 {
			word = "you are on"
		}
		name := cmp.Or(c.PoP, c.Target)
		if c.Error != "" {
			fmt.Fprintf(out, "%-12s %s at %s: cannot be reached: %s\n", word, name, c.Address, c.Error)
			continue
		}
		fmt.Fprintf(out, "%-12s %s at %s, %s: round trip %.1f ms, handshake %.1f ms", word, name, c.Address, c.Protocol, c.RoundTripMS, c.HandshakeMS)
		if c.RTTMS > 0 {
			fmt.Fprintf(out, ", smoothed RTT %.1f ms", c.RTTMS)
		}
		fmt.Fprintln(out)
		if c.Cluster != "" {
			fmt.Fprintf(out, "%-12s forwards to %s next\n", "", c.Cluster)
		}
		if v := c.Certificate; v != nil {
			fmt.Fprintf(out, "%-12s certificate by %s, good until %s\n", "", v.Issuer, v.Expires.Local().Format(time.DateTime))
		}
	}
	if len(w.Why) == 0 {
		_, err := fmt.Fprintf(out, "why: %s does not explain its answers to this machine\n", w.DNS)
		return err
	}
	for _, line := range w.Why {
		fmt.Fprintf(out, "why: %s\n", line)
	}
	return nil
}
