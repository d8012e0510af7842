// Command isochrone steers blockchain nodes to their nearest healthy point of presence, and is that point of presence.
// "isochrone up" runs a whole example world in one process; the other commands talk to it.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	// quic-go warns on the terminal about the kernel's limit of receive buffers; docs/operations.md tells about it instead.
	os.Setenv("QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING", "true")
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if err := newRootCommand().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "isochrone:", err)
		}
		os.Exit(1)
	}
}

// errSilent ends the process with status 1 after a command has said itself what is wrong.
var errSilent = errors.New("failed")

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "isochrone",
		Short: "GeoDNS, health checks and HTTP/3 intake: every node to its nearest healthy PoP",
		Long: `Isochrone steers blockchain nodes to their nearest healthy point of presence (PoP), accepts
their events and transactions there over HTTP/3, and forwards them to the nearest regional cluster.

Start with "isochrone up": everything in one process, on loopback.`,
		Version:       version(),
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddGroup(
		&cobra.Group{ID: "run", Title: "Run:"},
		&cobra.Group{ID: "client", Title: "Use it as a client does:"},
		&cobra.Group{ID: "edit", Title: "Look and edit:"},
		&cobra.Group{ID: "secure", Title: "Say who may do what:"},
		&cobra.Group{ID: "offline", Title: "Predict and simulate:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, command := range commands {
			command.GroupID = group
			root.AddCommand(command)
		}
	}
	pop := newPoPCommand()
	pop.AddCommand(joinCommands()...)
	add("run", newUpCommand(), newDNSCommand(), pop, newClusterCommand(), newControlCommand())
	add("client", newSendCommand(), newWhereCommand(), newAgentCommand(), newReceiptCommand())
	add("edit", newStatusCommand(), newExplainCommand(), newTopologyCommand(), newZoneCommand(), newDrainCommand(), newUndrainCommand(),
		newForceCommand(), newUnforceCommand(), newPinCommand(), newUnpinCommand(), newOverridesCommand(), newKeyCommand(), newTokenCommand(),
		newAuditCommand(), newNodesCommand(), newBGPCommand(), newSpoolCommand(), newWhoamiCommand(), newContextCommand(), newBackupCommand(), newRestoreCommand())
	add("secure", newCACommand(), newEtcdCommand(), newSecretCommand())
	add("offline", newMapCommand(), newRTTCommand(), newSimulateCommand())
	return root
}

// newGroup returns a command that only has others below it.
func newGroup(use, short string, below ...*cobra.Command) *cobra.Command {
	group := &cobra.Command{
		Use: use, Short: short, Args: cobra.NoArgs,
		RunE: func(command *cobra.Command, _ []string) error { return command.Help() },
	}
	group.AddCommand(below...)
	return group
}

func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "unknown"
}
