package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/ca"
	"github.com/isochrone/isochrone/internal/privatefile"
)

// A certificate is renewed when a third of its life is left, and it is looked at so often.
const (
	renewPart  = 3
	renewEvery = time.Hour
	renewAgain = time.Minute // after a failure, when little time is left
)

func newRenew() *cobra.Command {
	var (
		dir       string
		now, keep bool
	)
	command := &cobra.Command{
		Use:   "renew",
		Short: "Renew this node's certificate, if it ends soon",
		Long: `Has a control plane sign a new certificate for this node's key, which it shows the present one
for, when less than a third of its life is left. To be run daily, by a timer; with --keep it goes on
and looks every hour itself.`,
		Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error {
			if keep {
				log := slog.New(slog.NewTextHandler(command.ErrOrStderr(), nil))
				if err := keepRenewed(command.Context(), identityDir(dir), "", log); command.Context().Err() == nil {
					return err
				}
				return nil
			}
			until, renewed, err := renew(command.Context(), identityDir(dir), now)
			if err != nil {
				return fmt.Errorf("renew: %w", err)
			}
			word := "is valid"
			if renewed {
				word = "is renewed, and valid"
			}
			fmt.Fprintf(command.OutOrStdout(), "%s %s until %s\n", identityDir(dir).cert(), word, until.Format(time.DateOnly))
			return nil
		},
	}
	command.Flags().StringVar(&dir, "dir", defaultIdentityDir(), "`folder` of this node's key and certificate")
	command.Flags().BoolVar(&now, "now", false, "though it does not end soon")
	command.Flags().BoolVar(&keep, "keep", false, "go on, and renew it whenever it ends soon")
	command.MarkFlagsMutuallyExclusive("now", "keep")
	return command
}

// keepRenewed renews a node's certificate in good time, until ctx ends, whose error it returns. It logs a failure once for each reason. For
// a node of a kind it looks after the certificate of such a node alone, and says nothing while there is none.
func keepRenewed(ctx context.Context, dir identityDir, kind string, log *slog.Logger) error {
	for told := ""; ; {
		pause := renewEvery
		if id, err := dir.read(); kind == "" || err == nil && id.Kind == kind || err != nil && !errors.Is(err, fs.ErrNotExist) {
			until, renewed, err := renew(ctx, dir, false)
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case err != nil:
				if pause = min(pause, max(time.Until(until)/20, renewAgain)); err.Error() != told {
					log.Error("the node's certificate cannot be renewed, and it is tried again", "valid_until", until, "error", err)
				}
				told = err.Error()
			case renewed:
				log.Info("the node's certificate is renewed", "valid_until", until)
				fallthrough
			default:
				told = ""
			}
		}
		select {
		case <-time.After(pause - rand.N(pause/4)): // not all nodes that have joined together at once
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// renew has a new certificate signed if the present one ends soon, or at once. It returns the end of the one in use. The key stays,
// so that key and certificate fit whenever somebody reads them.
func renew(ctx context.Context, dir identityDir, atOnce bool) (until time.Time, renewed bool, err error) {
	id, err := dir.read()
	if err != nil {
		return time.Time{}, false, err
	}
	pair, err := tls.LoadX509KeyPair(dir.cert(), dir.key())
	if err != nil {
		return time.Time{}, false, err
	}
	until = pair.Leaf.NotAfter
	if life := until.Sub(pair.Leaf.NotBefore); !atOnce && time.Until(until) > life/renewPart {
		return until, false, nil
	}
	keyText, err := privatefile.Read(dir.key(), maxSecretFile)
	if err != nil {
		return until, false, err
	}
	key, err := ca.ParseKey(keyText)
	if err != nil {
		return until, false, fmt.Errorf("%s: %w", dir.key(), err)
	}
	request, err := ca.EncodeRequest(key)
	if err != nil {
		return until, false, err
	}
	caText, err := os.ReadFile(dir.ca())
	if err != nil {
		return until, false, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(caText) {
		return until, false, errors.New(dir.ca() + " has no certificate in PEM")
	}
	show := func(string) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}}
	}
	joined, err := askAny(ctx, id.Control, "/v1/renew", map[string]string{"request": string(request)}, show)
	if err != nil {
		return until, false, err
	}
	authority, err := parseCA(string(caText))
	if err != nil {
		return until, false, err
	}
	cert, err := checkJoined(joined, authority, keyText)
	switch {
	case err != nil:
		return until, false, err
	case cert.Subject.CommonName != pair.Leaf.Subject.CommonName:
		return until, false, fmt.Errorf("the control plane answered the certificate of %s", cert.Subject.CommonName)
	}
	if err := privatefile.WritePublic(dir.cert(), []byte(joined.Certificate)); err != nil {
		return until, false, err
	}
	return cert.NotAfter, true, nil
}
