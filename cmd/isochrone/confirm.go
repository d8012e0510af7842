package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// confirmation asks before what cannot be taken back easily.
type confirmation struct{ yes bool }

func (c *confirmation) register(command *cobra.Command) {
	command.Flags().BoolVar(&c.yes, "yes", false, "do not ask")
}

// errNotConfirmed is returned when a person says no.
var errNotConfirmed = errors.New("nothing was changed")

// ask asks a question, unless --yes answers it. Where nobody can answer it refuses.
func (c *confirmation) ask(command *cobra.Command, question string) error {
	if c.yes {
		return nil
	}
	nobody := fmt.Errorf("%s Say --yes where nobody can be asked", question)
	if info, err := os.Stdin.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return nobody
	}
	fmt.Fprintf(command.ErrOrStderr(), "%s [y/N] ", question)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil { // such as of /dev/null
		return nobody
	}
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return errNotConfirmed
	}
	return nil
}
