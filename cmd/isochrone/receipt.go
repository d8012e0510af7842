package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/controlplane"
	"github.com/isochrone/isochrone/dataplane/receipt"
	"github.com/isochrone/isochrone/topology"
)

// popKeys are the public keys of receipts, by PoP: what "receipt keys" prints and "receipt verify --keys" reads.
type popKeys map[string][]string

func newReceiptCommand() *cobra.Command {
	return newGroup("receipt", "Check the receipts of accepted payloads", newReceiptVerifyCommand(), newReceiptKeysCommand(), newReceiptPublishCommand(),
		newReceiptShowCommand())
}

func newReceiptKeysCommand() *cobra.Command {
	var t target
	command := &cobra.Command{
		Use:     "keys",
		Short:   "Print the public keys of all PoPs' receipts, to check receipts by elsewhere",
		Example: `  isochrone receipt keys > keys.json`,
		Args:    cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				keys, err := receiptKeys(ctx, ops)
				if err != nil {
					return err
				}
				return t.show(command, keys, func(out io.Writer) error { return writeJSON(out, keys) })
			})
		},
	}
	t.register(command)
	return command
}

func newReceiptPublishCommand() *cobra.Command {
	var (
		t    target
		key  string
		show bool
	)
	command := &cobra.Command{
		Use:   "publish POP",
		Short: "Put the public key of a PoP's receipts into the topology, beside older ones",
		Long: `Puts the public key that a PoP signs its receipts with into the topology. On the PoP's machine it is read from
--dir, and made where there is none; elsewhere it is given by --key, as "--show" prints it there.`,
		Example: `  isochrone receipt publish sin1 --show                      # on the PoP's machine
  isochrone receipt publish sin1 --key Uo5Anbnl4mG5h_zNQZBD5_i16M3AMiUtFho531XGVj0`,
		Args: cobra.ExactArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if key == "" {
				own, err := receipt.LoadOrCreateKey(stateDir(t.dir).path("pops", args[0], receiptKeyFile))
				if err != nil {
					return err
				}
				key = receipt.NewSigner(own).Public()
			}
			if _, err := topology.ParseReceiptKey(key); err != nil {
				return fmt.Errorf("--key: %w", err)
			}
			if show {
				_, err := fmt.Fprintln(command.OutOrStdout(), key)
				return err
			}
			return t.with(command, func(ctx context.Context, ops controlplane.Operations) error {
				return publishReceiptKey(ctx, ops, args[0], key, command.OutOrStdout())
			})
		},
	}
	t.register(command)
	command.Flags().StringVar(&key, "key", "", "the public `key`, in base64url (default: that of the PoP's folder in --dir)")
	command.Flags().BoolVar(&show, "show", false, "only print the key")
	command.ValidArgsFunction = t.complete(topology.PoPs)
	return command
}

func publishReceiptKey(ctx context.Context, ops controlplane.Operations, pop, key string, out io.Writer) error {
	stored, err := ops.Topology(ctx)
	if err != nil {
		return err
	}
	p := stored.Topology.PoPs[pop]
	if p == nil {
		return fmt.Errorf("the topology has no PoP %s", pop)
	}
	if slices.Contains(p.ReceiptKeys, key) {
		_, err := fmt.Fprintf(out, "the key of %s stands there already\n", pop)
		return err
	}
	changed := *p
	changed.ReceiptKeys = append(slices.Clone(p.ReceiptKeys), key)
	document := (&topology.Topology{PoPs: map[string]*topology.PoP{pop: &changed}}).Marshal()
	applied, err := ops.Apply(ctx, controlplane.ApplyRequest{Document: string(document), Base: stored.Revision, Message: "key of the receipts of " + pop})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "published as revision %d; receipts of %s can be checked with it now\n", applied.Revision, pop)
	return err
}

// receiptKeys reads the keys from the topology.
func receiptKeys(ctx context.Context, ops controlplane.Operations) (popKeys, error) {
	stored, err := ops.Topology(ctx)
	if err != nil {
		return nil, err
	}
	keys := popKeys{}
	for name, pop := range stored.Topology.PoPs {
		if len(pop.ReceiptKeys) > 0 {
			keys[name] = pop.ReceiptKeys
		}
	}
	return keys, nil
}

// verified is what "receipt verify" prints.
type verified struct {
	Valid   bool            `json:"valid"`
	Claims  *receipt.Claims `json:"claims,omitempty"`
	Payload string          `json:"payload,omitempty"` // matches, or differs; empty when none was given
	Reason  string          `json:"reason,omitempty"`
}

// errNotVerified ends the program with a failure after the result was printed.
var errNotVerified = errors.New("the receipt does not prove it")

func newReceiptVerifyCommand() *cobra.Command {
	var (
		t                     target
		keysFile, payloadFile string
		given                 []string
	)
	command := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Check a receipt: that a PoP has accepted a payload, and when",
		Long: `Reads a receipt, or the whole JSON body of a 202, from a file or from standard input, and checks it: that
it was signed with a key of the PoP that it names, and, with --payload, that it is about these very bytes.
With --keys, or --key, nothing is asked: neither a control plane nor a PoP. --key is for who has got a public key
of the PoP from its operator, and trusts it whatever PoP the receipt names. A receipt proves that the PoP accepted the
payload; whether a cluster has it by now is told by GET /api/v1/receipts/ID.`,
		Example: `  isochrone receipt verify answer.json --payload payload.json
  isochrone receipt verify --keys keys.json < receipt.txt
  isochrone receipt verify --key Uo5Anbnl4mG5h_zNQZBD5_i16M3AMiUtFho531XGVj0 answer.json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(command *cobra.Command, args []string) error {
			if err := t.checkOutput(); err != nil {
				return err
			}
			text, err := readReceipt(command.InOrStdin(), args)
			if err != nil {
				return err
			}
			lookup, err := keysFor(command, &t, keysFile, given)
			if err != nil {
				return err
			}
			result, err := verifyReceipt(text, lookup, payloadFile)
			if err != nil {
				return err
			}
			if err := t.show(command, result, func(out io.Writer) error { return printVerified(out, result) }); err != nil {
				return err
			}
			if !result.Valid {
				return errNotVerified
			}
			return nil
		},
	}
	t.register(command)
	command.Flags().StringVar(&keysFile, "keys", "", "`file` with the public keys, as \"receipt keys\" prints them (default: as the topology says)")
	command.Flags().StringArrayVar(&given, "key", nil, "a public `key` of the PoP, in base64url, or a file with one, in base64url or PEM (repeatable)")
	command.MarkFlagsMutuallyExclusive("keys", "key")
	command.Flags().StringVar(&payloadFile, "payload", "", "`file` with the payload, whose hash is compared")
	return command
}

// readReceipt reads a receipt from a file, or from standard input.
func readReceipt(in io.Reader, args []string) (string, error) {
	if len(args) == 1 && args[0] != "-" {
		file, err := os.Open(args[0])
		if err != nil {
			return "", err
		}
		defer file.Close()
		in = file
	}
	text, err := io.ReadAll(io.LimitReader(in, 1<<20))
	if err != nil {
		return "", err
	}
	trimmed := strings.TrimSpace(string(text))
	if !strings.HasPrefix(trimmed, "{") {
		return trimmed, nil
	}
	var answer struct {
		Receipt string `json:"receipt"`
	}
	if err := json.Unmarshal(text, &answer); err != nil {
		return "", fmt.Errorf("read the answer: %w", err)
	}
	if answer.Receipt == "" {
		return "", errors.New("the answer has no receipt: a service with \"ack: memory\" gives none, and probes get none")
	}
	return answer.Receipt, nil
}

// lookup finds the public key of a PoP by its id; nil for none.
type lookup = func(pop, kid string) ed25519.PublicKey

// keysFor returns the public keys that are given, those of a file, or of the topology.
func keysFor(command *cobra.Command, t *target, file string, given []string) (lookup, error) {
	if len(given) > 0 {
		keys, err := readGivenKeys(given)
		return keys.lookup, err
	}
	var keys popKeys
	if file == "" {
		err := t.with(command, func(ctx context.Context, ops controlplane.Operations) (err error) {
			keys, err = receiptKeys(ctx, ops)
			return err
		})
		return keys.lookup, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		return nil, fmt.Errorf("%s is not what \"isochrone receipt keys\" prints: %w", file, err)
	}
	return keys.lookup, nil
}

// verifyReceipt checks a receipt, and the payload if there is one.
func verifyReceipt(text string, keys lookup, payloadFile string) (*verified, error) {
	claims, err := receipt.Verify(text, keys)
	if err != nil {
		return &verified{Reason: err.Error()}, nil
	}
	result := &verified{Valid: true, Claims: claims}
	if payloadFile == "" {
		return result, nil
	}
	payload, err := os.ReadFile(payloadFile)
	if err != nil {
		return nil, err
	}
	result.Payload = "matches"
	if sum := sha256.Sum256(payload); hex.EncodeToString(sum[:]) != claims.SHA256 {
		result.Valid, result.Payload = false, "differs"
		result.Reason = "the receipt is about another payload: of SHA-256 " + claims.SHA256
	}
	return result, nil
}

// lookup returns a key of a PoP by its id, or nil.
func (k popKeys) lookup(pop, kid string) ed25519.PublicKey {
	for _, text := range k[pop] {
		if key, err := topology.ParseReceiptKey(text); err == nil && receipt.KeyID(key) == kid {
			return key
		}
	}
	return nil
}

func printVerified(out io.Writer, v *verified) error {
	if v.Claims == nil {
		_, err := fmt.Fprintf(out, "NOT VALID: %s\n", v.Reason)
		return err
	}
	c := v.Claims
	fmt.Fprintf(out, "PoP %s has accepted request %s for %s\n", c.PoP, c.ID, c.Service)
	fmt.Fprintf(out, "  at      %s, by the PoP's clock\n  key     %s\n  sha256  %s\n", c.Time.Format(time.RFC3339Nano), c.KeyID, c.SHA256)
	switch v.Payload {
	case "matches":
		fmt.Fprintln(out, "  payload is this one, byte for byte")
	case "differs":
		fmt.Fprintln(out, "NOT VALID for this payload: its hash is another one")
	default:
		fmt.Fprintln(out, "  payload was not compared: --payload FILE does that")
	}
	return nil
}
