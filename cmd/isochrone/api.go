package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/isochrone/isochrone/internal/problem"
	"github.com/isochrone/isochrone/internal/statedir"
)

// apiFlags say where the control API is: --api, or what "isochrone up" has written into --dir.
type apiFlags struct{ dir, api string }

func (f *apiFlags) register(command *cobra.Command) {
	command.Flags().StringVar(&f.dir, "dir", statedir.Default(), "state `folder` of a running \"isochrone up\"")
	command.Flags().StringVar(&f.api, "api", "", "`URL` of the control API (default: as up.json in --dir says)")
}

// read asks the control API and decodes its answer into result.
func (f *apiFlags) read(ctx context.Context, path string, query url.Values, result any) error {
	base := f.api
	if base == "" {
		up, err := statedir.ReadUp(f.dir)
		if err != nil {
			return err
		}
		base = up.API
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+path+"?"+query.Encode(), nil)
	if err != nil {
		return fmt.Errorf("--api: %w", err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return fmt.Errorf("ask the control API: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return fmt.Errorf("ask the control API: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		var problem problem.Document
		if json.Unmarshal(body, &problem) == nil && problem.Detail != "" {
			return fmt.Errorf("%s", problem.Detail)
		}
		return fmt.Errorf("the control API at %s answered %s", base, response.Status)
	}
	if err := json.Unmarshal(body, result); err != nil {
		return fmt.Errorf("read the control API's answer: %w", err)
	}
	return nil
}

// writeJSON prints a value as a person reads JSON.
func writeJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
