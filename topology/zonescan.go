package topology

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// ZoneFileOptions are where a zone file comes from, and what it may do.
type ZoneFileOptions struct {
	Name    string // as errors name it
	Path    string // absolute, with slashes: files that it includes are relative to it
	Include fs.FS  // the file system from its root on; nil refuses $INCLUDE
	Base    *Zone  // has hostmaster, name servers and their addresses, as far as the file does not; may be nil
}

// The bounds of what a zone file may include, itself with it.
const (
	MaxZoneFileBytes = 64 << 20
	maxZoneFiles     = 1_000
)

// scanZoneFile calls each for every record of a zone file with its line (its last one, if it has several).
func scanZoneFile(zone string, text []byte, options ZoneFileOptions, each func(place, dns.RR) error) error {
	s := &scan{files: options.Include}
	main, err := s.open(options.Name, text)
	if err != nil {
		return err
	}
	s.names = []string{options.Path}
	parser := dns.NewZoneParser(main, zone+".", options.Path)
	if options.Include != nil {
		parser.SetIncludeFS(s)
		parser.SetIncludeAllowed(true)
	}
	var last *source
	left := 0
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		in := s.opened[len(s.opened)-1]
		if in == last && in.Len() == left { // it has read nothing for this record: a $GENERATE that was written so that linesWith did not see it
			return faultAt(in.place(), noGenerate)
		}
		last, left = in, in.Len()
		if err := each(in.place(), rr); err != nil {
			return err
		}
	}
	if s.refused != nil {
		return s.refused
	}
	if err := parser.Err(); err != nil {
		return s.explain(err)
	}
	return nil
}

// scan is a zone file that is read, and those that it includes. It is the file system in which the parser finds them.
type scan struct {
	files   fs.FS
	all     []*source
	names   []string // of all, as the parser has them
	opened  []*source
	size    int
	refused error // why a file was not opened
}

// source is a file; it counts the lines that the parser has read.
type source struct {
	*bytes.Reader
	scan  *scan
	name  string
	text  []byte
	lines int // that have ended
	last  byte
}

func (s *scan) open(name string, text []byte) (*source, error) {
	if s.size += len(text); s.size > MaxZoneFileBytes || len(s.all) >= maxZoneFiles {
		return nil, &InvalidError{[]Fault{{Path: name, Message: fmt.Sprintf(
			"with it the zone file has more than %d octets, or includes more than %d files", MaxZoneFileBytes, maxZoneFiles)}}}
	}
	if !bytes.HasSuffix(text, []byte("\n")) {
		text = append(slices.Clip(text), '\n') // the parser takes what an end of file cuts off for something else
	}
	x := &source{Reader: bytes.NewReader(text), scan: s, name: name, text: text}
	if faults := x.linesWith(generate, noGenerate); len(faults) > 0 {
		return nil, &InvalidError{faults}
	}
	s.all, s.opened = append(s.all, x), append(s.opened, x)
	return x, nil
}

// Open opens a file that is included. It implements fs.FS.
func (s *scan) Open(name string) (fs.File, error) {
	file, err := s.files.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, MaxZoneFileBytes+1))
	if err != nil {
		return nil, err
	}
	x, err := s.open("/"+name, text)
	if err != nil {
		s.refused = err
		return nil, err
	}
	s.names = append(s.names, name)
	return x, nil
}

// ReadByte implements io.ByteReader, by which the parser reads.
func (x *source) ReadByte() (byte, error) {
	b, err := x.Reader.ReadByte()
	if err == nil {
		if x.last == '\n' {
			x.lines++
		}
		x.last = b
	}
	return b, err
}

// Stat implements fs.File; the parser does not ask.
func (x *source) Stat() (fs.FileInfo, error) { return nil, errors.ErrUnsupported }

// Close goes back to the file that includes this one. It implements fs.File.
func (x *source) Close() error {
	x.scan.opened = x.scan.opened[:len(x.scan.opened)-1]
	return nil
}

// place returns the line that was read last.
func (x *source) place() place { return place{x.name, x.lines + 1} }

const noGenerate = "$GENERATE is not taken: write the records out (named-compilezone does)"

var (
	generate    = regexp.MustCompile(`(?i)^[\s()]*\$GENERATE\s`)
	dynamic     = regexp.MustCompile(`(?i)^[^;"]*\sDYN[AC]\s`)
	parserPlace = regexp.MustCompile(` at line: ([0-9]+):([0-9]+)$`)
)

// linesWith returns a fault for each line that matches.
func (x *source) linesWith(pattern *regexp.Regexp, message string) []Fault {
	var faults []Fault
	line := 0
	for text := range bytes.Lines(x.text) {
		if line++; pattern.Match(text) && len(faults) < maxRecordFaults {
			faults = append(faults, faultAtLine(place{x.name, line}, "%s", message))
		}
	}
	return faults
}

// explain says what the parser does not understand, where, and what to do.
func (s *scan) explain(err error) error {
	message, at := err.Error(), place{s.all[0].name, 1}
	in := s.all[0]
	for i := len(s.all) - 1; i >= 0; i-- { // an included file's name is not a prefix of its own message only by chance
		if rest, ok := strings.CutPrefix(message, s.names[i]+": dns: "); ok && s.names[i] != "" {
			message, in = rest, s.all[i]
			break
		}
	}
	message = strings.TrimPrefix(message, "dns: ")
	if found := parserPlace.FindStringSubmatchIndex(message); found != nil {
		line, _ := strconv.Atoi(message[found[2]:found[3]])
		message, at = message[:found[0]], place{in.name, line}
	}
	lines := bytes.Split(in.text, []byte("\n"))
	text := lines[min(max(at.line-1, 0), len(lines)-1)]
	switch {
	case dynamic.Match(text):
		return &InvalidError{in.linesWith(dynamic, "DYNA and DYNC are not records, but have gdnsd choose addresses: "+
			"describe a service of this name in the topology, and leave the line out")}
	case strings.HasPrefix(message, "missing TTL"):
		message = "has no time to live, nor is there one before it: begin the file with a line such as $TTL 3600"
	case strings.HasPrefix(message, "$INCLUDE directive not allowed"):
		message = "$INCLUDE is followed only if that is allowed (--include)"
	}
	return faultAt(at, "%s", message)
}

func faultAtLine(at place, format string, args ...any) Fault {
	return Fault{Path: at.String(), Message: fmt.Sprintf(format, args...)}
}

func faultAt(at place, format string, args ...any) error {
	return &InvalidError{[]Fault{faultAtLine(at, format, args...)}}
}
