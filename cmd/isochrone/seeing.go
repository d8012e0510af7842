package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel"

	"github.com/isochrone/isochrone/dataplane"
	"github.com/isochrone/isochrone/dataplane/tracing"
)

// seeingFlags say what of single requests can be seen: the access log and traces.
type seeingFlags struct {
	accessLog   string
	sample      float64
	refusals    float64
	traceSample float64
}

func (f *seeingFlags) register(flags *pflag.FlagSet) {
	flags.StringVar(&f.accessLog, "access-log", "", "`file` to log requests to, as lines of JSON, which SIGHUP opens anew; - is standard output")
	flags.Float64Var(&f.sample, "access-log-sample", 0.01, "`share` of the accepted requests that are logged, 0..1")
	flags.Float64Var(&f.refusals, "access-log-refusals", 10, "how many refusals of each status are logged `a second`")
	flags.Float64Var(&f.traceSample, "trace-sample", 0.001, "`share` of the requests that are traced, 0..1, when OTEL_EXPORTER_OTLP_ENDPOINT names a collector")
}

// start opens the access log and the way to the collector. On is a layer below the PoPs, which use both until they have ended.
func (f *seeingFlags) start(ctx context.Context, n *node, on *layer) (err error) {
	if !(f.refusals > 0) {
		return fmt.Errorf("--access-log-refusals: %v is not more than 0", f.refusals)
	}
	n.access, err = dataplane.OpenAccessLog(dataplane.AccessLogOptions{
		Path: f.accessLog, Sample: f.sample, RefusalsPerSec: f.refusals, Log: n.log,
	})
	if err != nil {
		return fmt.Errorf("--access-log: %w", err)
	}
	if n.access != nil {
		on.run("access log", n.access.Run)
	}
	if n.access != nil || n.kind == "pop" { // a PoP that has no log is not ended by who rotates those of others
		on.run("SIGHUP", func(ctx context.Context) error { return reopenAtHangup(ctx, n.access) })
	}
	n.tracer, err = tracing.Open(ctx, tracing.Options{Sample: f.traceSample, Version: version()})
	if err != nil {
		return fmt.Errorf("--trace-sample: %w", err)
	}
	if n.tracer != nil {
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { n.log.Warn("traces", "error", err) }))
		on.run("traces", func(ctx context.Context) error {
			<-ctx.Done()
			if err := n.tracer.Close(); err != nil {
				n.log.Warn("some traces are lost", "error", err)
			}
			return nil
		})
	}
	return nil
}

// reopenAtHangup opens the log anew at each SIGHUP; there may be none.
func reopenAtHangup(ctx context.Context, l *dataplane.AccessLog) error {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	defer signal.Stop(hangup)
	for {
		select {
		case <-hangup:
			l.Reopen()
		case <-ctx.Done():
			return nil
		}
	}
}
