package main

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	mdns "github.com/miekg/dns"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"

	"github.com/isochrone/isochrone/dns"
	"github.com/isochrone/isochrone/dns/dnssec"
	"github.com/isochrone/isochrone/internal/privatefile"
)

// settingsFlags are the flags that a DNS server's settings are made of, and their files.
type settingsFlags struct {
	keys             string
	rateLimit, slip  int
	exempt           []netip.Prefix
	cookieSecretFile string
	nsid, version    string
	explainTo        []netip.Prefix
	tsigFile         string
	transferTo       []netip.Prefix
	notify           []notifyTarget
	secretKey        string
}

func (f *settingsFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.keys, "keys", "", "`folder` of DNSSEC private keys (default: dnssec-keys in --dir)")
	flags.IntVar(&f.rateLimit, "rate-limit", 2000, "`answers` a second for each client prefix over UDP; 0 for no limit")
	flags.IntVar(&f.slip, "rate-limit-slip", 2, "every so-maniest answer over the limit is sent truncated; 0 sends none")
	listVar(flags, &f.exempt, "rate-limit-exempt", parsePrefix, "`prefixes` of clients without a limit")
	flags.StringVar(&f.cookieSecretFile, "cookie-secret-file", "", "`file` of DNS cookie secrets, 32 hex digits a line; the first makes new cookies")
	flags.StringVar(&f.nsid, "nsid", "", "`text` of the name server identifier")
	flags.StringVar(&f.version, "version-text", "", "`text` to answer version.bind with")
	listVar(flags, &f.explainTo, "explain-to", parsePrefix, "`prefixes` of who may ask for explain.SERVICE")
	flags.StringVar(&f.tsigFile, "tsig-file", "", "YAML `file` of TSIG keys: a list of name, algorithm and secret")
	listVar(flags, &f.transferTo, "transfer-to", parsePrefix, "`prefixes` of who may transfer zones without a TSIG key")
	registerSecretKey(flags, &f.secretKey)
	listVar(flags, &f.notify, "notify", parseNotify, "`secondaries` to notify, as ADDR:PORT or ADDR:PORT/KEYNAME")
}

func (f *settingsFlags) check() error {
	var faults []error
	if f.rateLimit < 0 {
		faults = append(faults, fmt.Errorf("rate-limit: %d is negative: want 0 for no limit, or answers a second", f.rateLimit))
	}
	if f.slip < 0 {
		faults = append(faults, fmt.Errorf("rate-limit-slip: %d is negative: want 0 for no truncated answers, or such as 2 for every second one", f.slip))
	}
	if len(f.nsid) > 255 {
		faults = append(faults, fmt.Errorf("nsid: %d octets are too long: want at most 255", len(f.nsid)))
	}
	if len(f.version) > 255 {
		faults = append(faults, fmt.Errorf("version-text: %d octets are too long: want at most 255", len(f.version)))
	}
	return errors.Join(faults...)
}

// load reads the files, and tells all faults at once.
func (f *settingsFlags) load() (dns.Settings, error) {
	s := dns.Settings{
		RateLimit: dns.RateLimit{PerSecond: f.rateLimit, Slip: f.slip, Exempt: f.exempt},
		NSID:      f.nsid, Version: f.version, ExplainTo: f.explainTo, Transfer: f.transferTo,
	}
	var faults []error
	fault := func(flag string, err error) {
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", flag, err))
		}
	}
	var err error
	s.Keys, err = dnssec.LoadKeyring(f.keys)
	s.ReadKeys = func() (*dnssec.Keyring, error) { return dnssec.LoadKeyring(f.keys) }
	fault("keys", err)
	if f.cookieSecretFile != "" {
		s.Cookies, err = readCookieSecrets(f.cookieSecretFile)
		fault("cookie-secret-file", err)
	}
	if f.tsigFile != "" {
		s.TSIG, err = readTSIGKeys(f.tsigFile)
		fault("tsig-file", err)
	}
	for _, target := range f.notify {
		known := slices.ContainsFunc(s.TSIG, func(k dns.TSIGKey) bool { return k.Name == target.Key })
		if target.Key != "" && !known && err == nil && f.secretKey == "" { // else it may be among the sealed secrets
			fault("notify", fmt.Errorf("%v names no key of tsig-file", target))
		}
		s.Notify = append(s.Notify, dns.NotifyTarget(target))
	}
	return s, errors.Join(faults...)
}

// maxSecretFile bounds a file of secrets, in bytes.
const maxSecretFile = 1 << 20

// readCookieSecrets reads secrets of DNS cookies. An error does not tell what stands in the file.
func readCookieSecrets(path string) ([][16]byte, error) {
	text, err := privatefile.Read(path, maxSecretFile)
	if err != nil {
		return nil, err
	}
	var secrets [][16]byte
	for i, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		secret, err := hex.DecodeString(line)
		if err != nil || len(secret) != 16 {
			return nil, fmt.Errorf("%s:%d: not a secret: want 32 hex digits", path, i+1)
		}
		secrets = append(secrets, [16]byte(secret))
	}
	if len(secrets) == 0 {
		return nil, fmt.Errorf("%s has no secret: want 32 hex digits a line", path)
	}
	return secrets, nil
}

// tsigAlgorithms are those that zone transfers may be authenticated with.
var tsigAlgorithms = []string{mdns.HmacSHA224, mdns.HmacSHA256, mdns.HmacSHA384, mdns.HmacSHA512}

// keyName returns the name of a TSIG key in the form in which names are compared.
func keyName(name string) string { return mdns.CanonicalName(name) }

// readTSIGKeys reads TSIG keys. An error does not tell a secret.
func readTSIGKeys(path string) ([]dns.TSIGKey, error) {
	text, err := privatefile.Read(path, maxSecretFile)
	if err != nil {
		return nil, err
	}
	var entries []struct {
		Name      string `yaml:"name"`
		Algorithm string `yaml:"algorithm"`
		Secret    string `yaml:"secret"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	if decoder.Decode(&entries) != nil { // its error could show a secret
		return nil, fmt.Errorf("%s is not a list of keys: want entries of name, algorithm and secret and nothing else", path)
	}
	var keys []dns.TSIGKey
	var faults []error
	for i, e := range entries {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%s: key %d: %s", path, i+1, fmt.Sprintf(format, args...)))
		}
		k := dns.TSIGKey{Name: keyName(e.Name), Algorithm: keyName(e.Algorithm)}
		if _, ok := mdns.IsDomainName(e.Name); !ok || e.Name == "" {
			fault("name %q is not a domain name", e.Name)
		}
		if slices.ContainsFunc(keys, func(other dns.TSIGKey) bool { return other.Name == k.Name }) {
			fault("name %s stands here twice", e.Name)
		}
		if !slices.Contains(tsigAlgorithms, k.Algorithm) {
			fault("algorithm %q is not one of %s", e.Algorithm, strings.ReplaceAll(strings.Join(tsigAlgorithms, ", "), ".", ""))
		}
		if k.Secret, err = base64.StdEncoding.DecodeString(e.Secret); err != nil || len(k.Secret) < 16 {
			fault("the secret is not at least 16 bytes in base64")
		}
		keys = append(keys, k)
	}
	return keys, errors.Join(faults...)
}
