package main

import "github.com/spf13/cobra"

func newDNSKeyCommands() []*cobra.Command { return nil }
