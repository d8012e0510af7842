package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/isochrone/isochrone/health"
)

// Chain says how a cluster is asked for its view of the chain, by the JSON-RPC methods of Ethereum.
type Chain struct {
	URLs     []string // one must answer
	MinPeers int
	MaxLag   int                 // blocks, behind the others
	Syncing  bool                // it may be syncing
	Others   map[string][]string // the URLs of the clusters whose heads count, by name
}

const (
	// maxRPC bounds what is read of an answer.
	maxRPC = 16 << 10
	// freshHead is how old the head of another cluster may be; then it is asked for.
	freshHead = 10 * time.Second
	// staleHead is how old the head of another cluster may be to count.
	staleHead = time.Minute
	// othersPatience is how long other clusters are waited for.
	othersPatience = 500 * time.Millisecond
)

// view is a cluster's view of the chain.
type view struct {
	peers   uint64
	syncing bool
	head    uint64
}

// head is the newest block of a chain that a cluster knew.
type head struct {
	number uint64
	seen   time.Time // the time after which it may have been newer
}

// probeChain asks a cluster whose health check is good for its view of the chain.
func (p *Prober) probeChain(ctx context.Context, t Target, f found) found {
	began := time.Now()
	v, err := p.askChain(ctx, t.Chain.URLs)
	f.steps.Answer += time.Since(began)
	if err != nil {
		f.err = err
		return f
	}
	own := head{v.head, began}
	p.saw(t.Target.Name, own)
	lag, of := behind(own, p.othersHeads(ctx, t.Chain))
	switch {
	case v.peers < uint64(max(t.Chain.MinPeers, 0)):
		f.err = &behindError{health.Lonely, fmt.Sprintf("the chain has %d peers: want %d", v.peers, t.Chain.MinPeers)}
	case v.syncing && !t.Chain.Syncing:
		f.err = &behindError{health.Syncing, fmt.Sprintf("it is syncing, at block %d", v.head)}
	case of > 0 && lag > uint64(max(t.Chain.MaxLag, 0)):
		f.err = &behindError{health.Lagging, fmt.Sprintf("its head %d is %d blocks behind that of others (%d were asked)", v.head, lag, of)}
	default:
		f.reason += fmt.Sprintf("; head %d, %d peers", v.head, v.peers)
	}
	return f
}

// saw remembers the head of a cluster.
func (p *Prober) saw(cluster string, h head) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heads[cluster] = h
}

// othersHeads returns the heads of other clusters that are known, and asks for those that are not fresh.
func (p *Prober) othersHeads(ctx context.Context, c *Chain) []head {
	p.mu.Lock()
	var ask []string
	for name := range c.Others {
		if time.Since(p.heads[name].seen) > freshHead {
			ask = append(ask, name)
		}
	}
	p.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, othersPatience)
	defer cancel()
	var asked sync.WaitGroup
	for _, name := range ask {
		asked.Go(func() {
			began := time.Now()
			if v, err := p.askChain(ctx, c.Others[name]); err == nil {
				p.saw(name, head{v.head, began})
			}
		})
	}
	asked.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	var heads []head
	for name := range c.Others {
		if h, ok := p.heads[name]; ok {
			heads = append(heads, h)
		}
	}
	return heads
}

// behind returns how many blocks a head is behind those of others, and how many others count. The median of the others counts, the lower one of
// two: one that tells of blocks which nobody else knows does not have the rest be behind. A head that was seen before can only have grown
// since, so that it makes nobody be behind who is not; one that was seen too long ago does not count.
func behind(own head, others []head) (lag uint64, of int) {
	var numbers []uint64
	for _, h := range others {
		if own.seen.Sub(h.seen) <= staleHead {
			numbers = append(numbers, h.number)
		}
	}
	if len(numbers) == 0 {
		return 0, 0
	}
	slices.Sort(numbers)
	if median := numbers[(len(numbers)-1)/2]; median > own.number {
		lag = median - own.number
	}
	return lag, len(numbers)
}

// chainQuestion asks for all at once, as a batch (JSON-RPC 2.0, section 6).
const chainQuestion = `[{"jsonrpc":"2.0","id":1,"method":"net_peerCount","params":[]},` +
	`{"jsonrpc":"2.0","id":2,"method":"eth_syncing","params":[]},` +
	`{"jsonrpc":"2.0","id":3,"method":"eth_blockNumber","params":[]}]`

// askChain asks at URLs until there is an answer.
func (p *Prober) askChain(ctx context.Context, urls []string) (view, error) {
	failures := []error{}
	for _, url := range urls {
		v, err := p.askChainAt(ctx, url)
		if err == nil {
			return v, nil
		}
		failures = append(failures, err)
	}
	return view{}, errors.Join(failures...)
}

func (p *Prober) askChainAt(ctx context.Context, url string) (view, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(chainQuestion))
	if err != nil {
		return view{}, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := p.clusters.RoundTrip(request)
	if err != nil {
		return view{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxRPC+1))
	switch {
	case err != nil:
		return view{}, err
	case response.StatusCode != http.StatusOK:
		return view{}, &statusError{fmt.Sprintf("JSON-RPC answered %d", response.StatusCode)}
	case len(text) > maxRPC:
		return view{}, &statusError{fmt.Sprintf("JSON-RPC answered more than %d octets", maxRPC)}
	}
	v, err := parseView(text)
	if err != nil {
		return view{}, &statusError{"JSON-RPC: " + err.Error()}
	}
	return v, nil
}

// parseView reads the answers to chainQuestion, in any order.
func parseView(text []byte) (view, error) {
	var answers []struct {
		ID     int             `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := json.Unmarshal(text, &answers); err != nil {
		return view{}, errors.New("the answer is no batch of answers")
	}
	v, got := view{}, map[int]bool{}
	for _, a := range answers {
		name, ok := map[int]string{1: "net_peerCount", 2: "eth_syncing", 3: "eth_blockNumber"}[a.ID]
		if !ok || got[a.ID] {
			return view{}, fmt.Errorf("answer %d was not asked for, or is there twice", a.ID)
		}
		got[a.ID] = true
		if a.Error != nil {
			return view{}, fmt.Errorf("%s: error %d: %.100s", name, a.Error.Code, a.Error.Message)
		}
		var err error
		switch a.ID {
		case 1:
			v.peers, err = quantity(a.Result)
		case 2: // false, or an object that tells how far it is
			v.syncing = !bytes.Equal(bytes.TrimSpace(a.Result), []byte("false"))
		case 3:
			v.head, err = quantity(a.Result)
		}
		if err != nil {
			return view{}, fmt.Errorf("%s: %w", name, err)
		}
	}
	if len(got) != 3 {
		return view{}, fmt.Errorf("%d of 3 questions were answered", len(got))
	}
	return v, nil
}

// quantity reads a number as Ethereum writes it: 0x and hexadecimal digits.
func quantity(result json.RawMessage) (uint64, error) {
	var text string
	if err := json.Unmarshal(result, &text); err != nil || !strings.HasPrefix(text, "0x") {
		return 0, fmt.Errorf("%.40q is no number such as 0x1f", result)
	}
	n, err := strconv.ParseUint(text[2:], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("%.40q is no number such as 0x1f", text)
	}
	return n, nil
}
