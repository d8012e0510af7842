// Package cluster is a reference regional cluster: it takes the envelopes that PoPs forward, checks their hashes, drops
// duplicates, keeps ids and hashes in an append-only file, and counts. A real cluster does the business logic instead, and
// keeps to the same contract:
//
//	POST /api/v1/envelopes   the payload's bytes, with X-Request-Id, X-Request-Hash, Authorization: Bearer …
//	                         2xx: taken for good; 409: a duplicate; other 4xx: never send it again; else: try again
//	GET  /healthz            200 if envelopes can be taken
//	GET  /stats              totals
package cluster

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/isochrone/isochrone/internal/groupcommit"
	"github.com/isochrone/isochrone/internal/problem"
)

// Limits of a cluster.
const (
	maxBody       = 16 << 20
	maxID         = 200
	maxRemembered = 1_000_000 // request ids that duplicates are known by
)

// LogFile is the name of the append-only file in a cluster's folder. A line has these, with a space between any two, and ends in a line feed:
//
//	request id, SHA-256 of the body in lower-case hex, octets of the body, w=N with the number of the quota window that the PoP
//	admitted it in, and "conflict" for an id that had come with another hash before
//
// The window is left out where the PoP did not tell it; lines of older versions never have it.
const LogFile = "envelopes.log"

// Cluster is a reference cluster. It is an http.Handler and may be used concurrently.
type Cluster struct {
	token string
	group *groupcommit.Group[*arrival]
	file  *os.File
	size  int64 // of file; for commit alone

	mu     sync.Mutex
	hashes map[string][]hash // by core of the request id
	order  []string          // cores, oldest first
	stats  Stats
}

type hash = [sha256.Size]byte

// Stats are totals: Stored of all times, the others since the start.
type Stats struct {
	Stored     uint64 `json:"stored"`
	Bytes      uint64 `json:"bytes"` // of what is stored
	Conflicts  uint64 `json:"conflicts"`
	Duplicates uint64 `json:"duplicates"`
	Refused    uint64 `json:"refused"`
}

// arrival is an envelope that has come.
type arrival struct {
	id     string
	core   string
	hash   hash
	size   int
	window string // number of the quota window, "" for none
	result string
}

// The results of an arrival.
const (
	stored    = "stored"
	duplicate = "duplicate"
	conflict  = "conflict"
)

// Open opens a cluster's folder, or makes one. PoPs must show the token.
func Open(dir, token string) (*Cluster, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, LogFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	c := &Cluster{token: token, file: file, hashes: map[string][]hash{}}
	c.group = groupcommit.New(c.commit)
	if err := c.load(); err != nil {
		file.Close()
		return nil, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	return c, nil
}

// load reads the file; a line that a crash has cut is cut off.
func (c *Cluster) load() error {
	reader := bufio.NewReaderSize(c.file, 1<<20)
	for {
		line, err := reader.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return c.file.Truncate(c.size)
		}
		if err != nil {
			return err
		}
		a, err := parseLine(line)
		if err != nil {
			return fmt.Errorf("at octet %d: %w", c.size, err)
		}
		c.size += int64(len(line))
		c.remember(a)
	}
}

func parseLine(line string) (*arrival, error) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return nil, fmt.Errorf("%.80q is not: request id, SHA-256, octets", line)
	}
	a := &arrival{id: fields[0]}
	decoded, err := hex.DecodeString(fields[1])
	if err != nil || len(decoded) != len(a.hash) {
		return nil, fmt.Errorf("%.80q is not a SHA-256", fields[1])
	}
	if a.size, err = strconv.Atoi(fields[2]); err != nil || a.size < 0 {
		return nil, fmt.Errorf("%.80q is no number of octets", fields[2])
	}
	for _, field := range fields[3:] {
		if window, ok := strings.CutPrefix(field, "w="); ok {
			a.window = window
		}
	}
	a.hash, a.core = hash(decoded), coreOf(a.id)
	return a, nil
}

func (a *arrival) line() string {
	mark := ""
	if a.window != "" {
		mark = " w=" + a.window
	}
	if a.result == conflict {
		mark += " conflict"
	}
	return fmt.Sprintf("%s %x %d%s\n", a.id, a.hash, a.size, mark)
}

// coreOf returns the part of a request id that does not depend on the PoP.
func coreOf(id string) string {
	_, core, found := strings.Cut(id, ".")
	if !found {
		return id
	}
	return core
}

// remember counts an arrival that is stored. The caller holds mu, or is alone.
func (c *Cluster) remember(a *arrival) {
	if c.hashes[a.core] == nil {
		c.order = append(c.order, a.core)
	}
	c.hashes[a.core] = append(c.hashes[a.core], a.hash)
	if len(c.order) > maxRemembered {
		delete(c.hashes, c.order[0])
		c.order = c.order[1:]
	}
	c.stats.Stored++
	c.stats.Bytes += uint64(a.size)
}

// commit stores a batch of arrivals: those that are not duplicates are on disk when it returns.
func (c *Cluster) commit(batch []*arrival) error {
	c.mu.Lock()
	var lines bytes.Buffer
	fresh := map[string]bool{} // of this batch
	for _, a := range batch {
		known := c.hashes[a.core]
		key := a.core + string(a.hash[:])
		switch {
		case slices.Contains(known, a.hash) || fresh[key]:
			a.result = duplicate
			continue
		case known != nil || fresh[a.core]:
			a.result = conflict
		default:
			a.result = stored
		}
		fresh[key], fresh[a.core] = true, true
		lines.WriteString(a.line())
	}
	c.mu.Unlock()
	if lines.Len() > 0 {
		if err := c.write(lines.Bytes()); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range batch {
		switch a.result {
		case duplicate:
			c.stats.Duplicates++
			continue
		case conflict:
			c.stats.Conflicts++
		}
		c.remember(a)
	}
	return nil
}

// write appends to the file. What a failure has left there is overwritten by the next.
func (c *Cluster) write(lines []byte) error {
	if _, err := c.file.WriteAt(lines, c.size); err != nil {
		return errors.Join(err, c.file.Truncate(c.size))
	}
	if err := c.file.Sync(); err != nil {
		return errors.Join(err, c.file.Truncate(c.size))
	}
	c.size += int64(len(lines))
	return nil
}

// Stats returns the totals.
func (c *Cluster) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// Close closes the file. No request may be under way.
func (c *Cluster) Close() error { return c.file.Close() }

// ServeHTTP answers one request.
func (c *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method + " " + r.URL.Path {
	case "POST /api/v1/envelopes":
		c.receive(w, r)
	case "GET /healthz":
		if err := c.file.Sync(); err != nil {
			problem.Write(w, http.StatusServiceUnavailable, "the cluster cannot store envelopes")
			return
		}
		writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	case "GET /stats":
		writeJSON(w, http.StatusOK, c.Stats())
	default:
		problem.Write(w, http.StatusNotFound, "a cluster has POST /api/v1/envelopes, GET /healthz and GET /stats")
	}
}

func (c *Cluster) receive(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, detail string) {
		c.mu.Lock()
		c.stats.Refused++
		c.mu.Unlock()
		problem.Write(w, status, detail)
	}
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if subtle.ConstantTimeCompare([]byte(token), []byte(c.token)) != 1 {
		w.Header().Set("WWW-Authenticate", "Bearer")
		refuse(http.StatusUnauthorized, "the bearer token is not this cluster's")
		return
	}
	id := r.Header.Get("X-Request-Id")
	if id == "" || len(id) > maxID || strings.ContainsFunc(id, func(c rune) bool { return c <= ' ' || c > '~' }) {
		refuse(http.StatusBadRequest, "an envelope needs an X-Request-Id of up to 200 printable characters without spaces")
		return
	}
	body, err := readBody(r)
	if err != nil {
		refuse(http.StatusServiceUnavailable, "the body did not arrive whole")
		return
	}
	if len(body) > maxBody {
		refuse(http.StatusRequestEntityTooLarge, "a payload has at most 16 MiB")
		return
	}
	a := &arrival{id: id, core: coreOf(id), hash: sha256.Sum256(body), size: len(body)}
	if window, err := strconv.ParseInt(r.Header.Get("X-Isochrone-Window"), 10, 64); err == nil {
		a.window = strconv.FormatInt(window, 10)
	}
	if hex.EncodeToString(a.hash[:]) != r.Header.Get("X-Request-Hash") {
		refuse(http.StatusBadRequest, "X-Request-Hash is not the SHA-256 of the body in lower-case hex")
		return
	}
	if err := c.group.Do(a); err != nil {
		problem.Write(w, http.StatusServiceUnavailable, "the cluster cannot store envelopes")
		return
	}
	if a.result == duplicate {
		problem.Write(w, http.StatusConflict, "a duplicate of what is stored")
		return
	}
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(http.StatusAccepted)
	_, _ = io.WriteString(w, `{"status":"`+a.result+`"}`+"\n") // an error means that the PoP has gone
}

// readBody reads a body, at once if its length is told and within the limit.
func readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength < 0 || r.ContentLength > maxBody {
		return io.ReadAll(io.LimitReader(r.Body, maxBody+1))
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(r.Body, body)
	return body, err
}

var jsonType = []string{"application/json"} // shared by all answers, which do not change it

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // an error means that the client has gone
}
