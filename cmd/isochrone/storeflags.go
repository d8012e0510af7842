package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/statedir"
	"github.com/isochrone/isochrone/topology"
	"github.com/isochrone/isochrone/topology/store"
)

// storeFlags say where etcd is for commands that work with nothing else: --etcd and those beside it, or what "isochrone up" has written
// into --dir.
type storeFlags struct {
	dir  string
	etcd etcdFlags
}

func (f *storeFlags) register(command *cobra.Command) {
	command.PersistentFlags().StringVar(&f.dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	f.etcd.register(command.PersistentFlags())
}

// with calls work with the store.
func (f *storeFlags) with(ctx context.Context, work func(context.Context, *store.Store) error) error {
	if err := f.etcd.check(); err != nil {
		return err
	}
	client, err := f.etcd.connect(ctx, f.dir)
	if err != nil {
		return fmt.Errorf("connect to etcd: %w", err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return work(ctx, store.New(client, f.etcd.prefix))
}

// author is who edits, for history and audit.
func author() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return "unknown"
}

// readDocument reads and checks a document, whose faults name the file.
func readDocument(file string, stdin io.Reader) (*topology.Topology, error) {
	text, err := readInput(file, stdin, topology.MaxDocumentBytes)
	if err != nil {
		return nil, err
	}
	t, err := topology.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return t, nil
}

// readInput reads a file, or standard input for "-".
func readInput(file string, stdin io.Reader, most int64) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(io.LimitReader(stdin, most+1))
	}
	return os.ReadFile(file)
}
