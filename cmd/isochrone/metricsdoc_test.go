package main

import (
	"log/slog"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/isochrone/isochrone/dns"
)

// TestMetricsAreDocumented holds the table of metrics in docs/dns-node.md to what the DNS server tells.
func TestMetricsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/dns-node.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented []string
	for _, name := range regexp.MustCompile("`(isochrone_dns_[a-z0-9_]+)`").FindAllStringSubmatch(string(text), -1) {
		if !slices.Contains(documented, name[1]) {
			documented = append(documented, name[1])
		}
	}
	descriptions := make(chan *prometheus.Desc, 1000)
	dns.New(dns.Config{Log: slog.New(slog.DiscardHandler)}).Collector().Describe(descriptions)
	close(descriptions)
	for description := range descriptions {
		name := regexp.MustCompile(`fqName: "([^"]+)"`).FindStringSubmatch(description.String())[1]
		if !slices.Contains(documented, name) {
			t.Errorf("docs/dns-node.md lacks %s", name)
		}
		documented = slices.DeleteFunc(documented, func(other string) bool { return other == name })
	}
	if len(documented) > 0 {
		t.Errorf("docs/dns-node.md has metrics that there are not: %v", documented)
	}
}
