package topology

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// ParseRecord reads one record of a zone, a line of a zone file (RFC 1035 section 5.1) that begins with the owner's name, such
// as "www 300 A 192.0.2.1". Names without a trailing dot are below the zone, @ is its apex; without a time to live the record
// has the given one. Types that have no form of their own are written as RFC 3597 says. The record's names are as written.
func ParseRecord(zone string, ttl Duration, line string) (dns.RR, error) {
	if strings.ContainsAny(line, "\n\r") || strings.HasPrefix(line, "$") || strings.TrimLeft(line, " \t") != line || line == "" {
		return nil, errors.New("is not one line with an owner's name in front")
	}
	parser := dns.NewZoneParser(strings.NewReader(line+"\n"), zone+".", "")
	parser.SetDefaultTTL(uint32(time.Duration(ttl) / time.Second))
	rr, ok := parser.Next()
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("is no record: %s", strings.TrimPrefix(err.Error(), "dns: "))
	}
	if !ok {
		return nil, errors.New("is no record")
	}
	if rr.Header().Class != dns.ClassINET {
		return nil, errors.New("is not of class IN")
	}
	return rr, nil
}
