package probe

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// probeCluster asks a cluster's endpoints until one is well, and then the chain.
func (p *Prober) probeCluster(ctx context.Context, t Target) found {
	path, f := cmp.Or(t.Healthz, "/healthz"), found{}
	failures := []error{}
	for _, endpoint := range t.Endpoints {
		steps := begin(connecting)
		response, err := get(steps.traced(ctx, strings.HasPrefix(endpoint, "https:")), p.clusters, strings.TrimSuffix(endpoint, "/")+path)
		f.steps = steps.all()
		if err == nil && response.StatusCode != http.StatusOK {
			err = &statusError{fmt.Sprintf("%s%s answered %d", endpoint, path, response.StatusCode)}
		}
		if err != nil {
			failures = append(failures, err)
			continue
		}
		f.reason = strings.TrimPrefix(path, "/") + " answered 200"
		if t.Chain != nil {
			return p.probeChain(ctx, t, f)
		}
		return f
	}
	if f.err = errors.Join(failures...); len(failures) == 0 {
		f.err = errors.New("it has no endpoint")
	}
	return f
}
