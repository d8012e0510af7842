package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/isochrone/isochrone/internal/intakeclient"
	"github.com/isochrone/isochrone/internal/privatefile"
	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
)

// intakeAccess are the flags of commands that ask an intake as a client does.
type intakeAccess struct {
	dir, dns, ca, keyFile string
	h2                    bool
}

func (f *intakeAccess) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	flags.StringVar(&f.dns, "dns", "", "`address` and port of the DNS server (default: as up.json in --dir says, else the system's)")
	flags.StringVar(&f.ca, "ca", "", "`file` of the CA's certificate, or \"system\" (default: as up.json in --dir says, else system)")
	flags.BoolVar(&f.h2, "h2", false, "use HTTP/2 over TCP instead of HTTP/3")
}

// open returns the service, how it is resolved, and a client. What no flag says is taken from a running "isochrone up", or from the system.
func (f *intakeAccess) open(service string) (string, *intakeclient.Resolver, *intakeclient.Client, error) {
	if up, err := statedir.ReadUp(f.dir); err == nil {
		service, f.dns, f.ca = cmp.Or(service, topology.ExampleService), cmp.Or(f.dns, up.DNS), cmp.Or(f.ca, up.CA)
	}
	if service == "" {
		return "", nil, nil, errors.New("no service: name its host")
	}
	var err error
	if f.dns == "" {
		if f.dns, err = intakeclient.SystemResolver(); err != nil {
			return "", nil, nil, err
		}
	}
	config := intakeclient.Config{TCP: f.h2}
	if f.ca != "" && f.ca != "system" {
		if config.Roots, err = readRoots(f.ca); err != nil {
			return "", nil, nil, err
		}
	}
	return service, &intakeclient.Resolver{Server: f.dns}, intakeclient.New(config), nil
}

// key returns the API key: of --key-file, of the environment, or of a running "isochrone up".
func (f *intakeAccess) key() (string, error) {
	if f.keyFile != "" {
		text, err := privatefile.Read(f.keyFile, 1<<10)
		if err != nil {
			return "", fmt.Errorf("--key-file: %w", err)
		}
		return strings.TrimSpace(string(text)), nil
	}
	if key := os.Getenv(keyVariable); key != "" {
		return key, nil
	}
	if up, err := statedir.ReadUp(f.dir); err == nil && up.APIKey != "" {
		return up.APIKey, nil
	}
	return "", fmt.Errorf("no API key: give a file with it by --key-file, or set %s", keyVariable)
}
