package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/isochrone/isochrone/health"
	"github.com/isochrone/isochrone/internal/privatefile"
)

// What a node keeps beside its last good topology, so that it goes on after a restart, if etcd is away or not.
const (
	knownFile    = "vantages.json" // whom it knows
	verdictsFile = "verdicts.json" // what it and they have found
	reportsFile  = "reports.json"  // the key by which others know its reports, and the incarnation of the last that ran here
)

const (
	// verdictsAge is how old verdicts may be that are gone on with.
	verdictsAge = 24 * time.Hour
	// verdictsInterval is the time between two times that verdicts are kept though none has changed.
	verdictsInterval = 10 * time.Minute
	// maxKept bounds a file of what is kept, in bytes.
	maxKept = 16 << 20
)

func (n *node) keptPath(file string) string {
	return strings.TrimSuffix(n.lastGood, "last-good.yaml") + file
}

// keptHealth is what was kept last.
type keptHealth struct {
	known    string
	verdicts health.Verdicts
	at       time.Time // when they were
	failed   bool      // and that was told
}

// keepHealth keeps whom this node knows, and the verdicts, if they have changed.
func (n *node) keepHealth(kept *keptHealth, known []health.Vantage, now time.Time) {
	write := func(file string, text []byte) {
		err := privatefile.Write(n.keptPath(file), text)
		if err != nil && !kept.failed {
			n.log.Warn("what a restart goes on with cannot be kept", "file", n.keptPath(file), "error", err)
		}
		kept.failed = err != nil
	}
	if text := n.knownText(known); text != kept.known {
		kept.known = text
		write(knownFile, []byte(text))
	}
	verdicts := n.Verdicts()
	if len(verdicts) == 0 || verdicts.SameStatus(kept.verdicts) && now.Sub(kept.at) < verdictsInterval {
		return
	}
	kept.verdicts, kept.at = verdicts, now
	if text, err := json.Marshal(keptVerdicts{now, passed(verdicts)}); err == nil {
		write(verdictsFile, text)
	}
}

// keptVerdicts are verdicts as they are kept on disk.
type keptVerdicts struct {
	Kept     time.Time       `json:"kept"`
	Verdicts []passedVerdict `json:"verdicts"`
}

// recall has this node go on with the verdicts that were kept last, if it has none and they are not too old, and returns those that it goes on with.
func (n *node) recall() health.Verdicts {
	if n.before != nil || n.verdicts.Load() != nil {
		return nil
	}
	text, err := privatefile.Read(n.keptPath(verdictsFile), maxKept)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var kept keptVerdicts
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	if err != nil {
		n.log.Warn("the verdicts of before cannot be read: all count as well until they are probed", "file", n.keptPath(verdictsFile), "error", err)
		return nil
	}
	now := time.Now()
	if now.Sub(kept.Kept) > verdictsAge {
		return nil
	}
	before := health.Verdicts{}
	for _, v := range kept.Verdicts {
		v.Since, v.Seen = earlier(v.Since, now), earlier(v.Seen, now) // the clock may have been set back
		if !v.Recovered.IsZero() {
			v.Recovered = earlier(v.Recovered, now)
		}
		before[v.Target] = v.Verdict
	}
	n.before = before
	n.verdicts.Store(&before)
	return before
}

func earlier(a, b time.Time) time.Time {
	if a.After(b) {
		return b
	}
	return a
}

// keptIdentity is by what others know this node's reports.
type keptIdentity struct {
	Key         string `json:"key"`         // the seed of an Ed25519 key, in base64
	Incarnation int64  `json:"incarnation"` // the last one that was used
}

// reportIdentity returns the key that reports are signed with, and an incarnation that none before has had: others heed nothing that is older, and a
// clock may have been set back. Both outlive a restart: others know the key from etcd, which may be away.
func (n *node) reportIdentity(now time.Time) (ed25519.PrivateKey, int64, error) {
	path := n.keptPath(reportsFile)
	var kept keptIdentity
	text, err := privatefile.Read(path, maxKept)
	if err == nil {
		err = json.Unmarshal(text, &kept)
	}
	seed, faulty := base64.StdEncoding.DecodeString(kept.Key)
	if err == nil && (faulty != nil || len(seed) != ed25519.SeedSize) {
		err = errors.New("the key in it is none")
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("the key of reports cannot be read, and is made anew: others hear this node directly once etcd has told them", "file", path, "error", err)
		}
		_, key, err := ed25519.GenerateKey(nil)
		if err != nil {
			return nil, 0, fmt.Errorf("the key of reports: %w", err)
		}
		seed, kept.Key = key.Seed(), base64.StdEncoding.EncodeToString(key.Seed())
	}
	kept.Incarnation = max(now.UnixNano(), kept.Incarnation+1)
	if text, err = json.Marshal(kept); err == nil {
		err = privatefile.Write(path, text)
	}
	if err != nil {
		n.log.Warn("the key of reports cannot be kept: after a restart others hear this node directly once etcd has told them", "file", path, "error", err)
	}
	return ed25519.NewKeyFromSeed(seed), kept.Incarnation, nil
}

// knownPeer is a vantage as it is kept on disk.
type knownPeer struct {
	Region  string       `json:"region,omitempty"`
	Looks   health.Kinds `json:"looks,omitempty"`
	Key     string       `json:"key,omitempty"`
	Address string       `json:"address,omitempty"`
	Serves  string       `json:"serves,omitempty"` // where a DNS node answers
}

// readKnown reads whom this node knew when it ran last, so that it hears them directly even if etcd is away.
func (n *node) readKnown() (known []health.Vantage) {
	text, err := os.ReadFile(n.keptPath(knownFile))
	if err != nil {
		return nil
	}
	kept := map[string]knownPeer{}
	if err := json.Unmarshal(text, &kept); err != nil {
		n.log.Warn("whom this node knew cannot be read, and is learned anew", "file", n.keptPath(knownFile), "error", err)
		return nil
	}
	l := &n.looks
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(kept)) {
		k := kept[name]
		known = append(known, health.Vantage{Name: name, Region: k.Region, Looks: k.Looks})
		if _, newer := l.peers[name]; !newer {
			met := &health.Report{Vantage: known[len(known)-1], Key: k.Key, Address: k.Address, Serves: k.Serves}
			l.meet(met)
			l.answers.hear(met)
		}
	}
	return known
}

// knownText is what is kept on disk of whom this node knows.
func (n *node) knownText(known []health.Vantage) string {
	kept := map[string]knownPeer{}
	for _, v := range known {
		peer := n.looks.peer(v.Name)
		k := knownPeer{Region: v.Region, Looks: v.Looks, Key: base64.RawURLEncoding.EncodeToString(peer.Key)}
		if peer.Addr.IsValid() {
			k.Address = peer.Addr.String()
		}
		k.Serves = n.looks.answersAt(v.Name)
		kept[v.Name] = k
	}
	text, err := json.Marshal(kept)
	if err != nil {
		panic(err) // text can be written
	}
	return string(text)
}
