package crash

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"replicanode/replica"
)

const (
	// hotBurst bounds the operations that one batch makes on one hot key.
	hotBurst = 12
	// hotPicks is how many hot keys one batch works on.
	hotPicks = 3
)

// hotOp is one operation on a hot key, on its way. settle is called once, when the operation was acknowledged, and returns what is
// wrong with its reply; an operation that it is never called for may or may not take effect.
type hotOp struct {
	cmd    redis.Cmder
	settle func() error
}

// hotKey is state that all clients write at once, so that many operations on it meet in one mutation. What a server may show of it
// follows from what all of them were told.
type hotKey interface {
	// begin prepares for another round.
	begin(round int)
	// send adds one operation of a client to its pipeline.
	send(ctx context.Context, p redis.Pipeliner, client int) hotOp
	// read adds the reading to a pipeline; check compares what it showed, and takes it over as the only state that may be shown
	// until something is sent again.
	read(ctx context.Context, p redis.Pipeliner) (check func() error)
}

// newHotKeys makes the hot keys of every partition, and those which span all of them.
func newHotKeys(partitions int) []hotKey {
	var keys []hotKey
	spread := &latest{}
	for i := range partitions {
		tag := tagOf(uint32(i), uint32(partitions))
		keys = append(keys,
			newNumber(tag+"incr", func(ctx context.Context, p redis.Pipeliner, name string) *redis.IntCmd { return p.Incr(ctx, name) },
				func(ctx context.Context, p redis.Pipeliner, name string) *redis.StringCmd { return p.Get(ctx, name) }),
			newNumber(tag+"hincrby", func(ctx context.Context, p redis.Pipeliner, name string) *redis.IntCmd {
				return p.HIncrBy(ctx, name, "f", 1)
			},
				func(ctx context.Context, p redis.Pipeliner, name string) *redis.StringCmd {
					return p.HGet(ctx, name, "f")
				}),
			&text{prefix: tag + "append:"},
			&latest{names: []string{tag + "a", tag + "b", tag + "c"}},
		)
		spread.names = append(spread.names, tag+"spread")
	}
	spread.torn = true
	keys = append(keys, spread)
	for _, key := range keys {
		key.begin(0)
	}
	return keys
}

// tagOf is a hash tag whose keys are in the given partition.
func tagOf(partition, partitions uint32) string {
	for i := 0; ; i++ {
		tag := "{hot" + strconv.Itoa(i) + "}"
		if replica.PartitionOf([]byte(tag), partitions) == partition {
			return tag
		}
	}
}

// pickHot draws hot keys and adds a burst of operations on each to the pipeline.
func pickHot(ctx context.Context, rng *rand.Rand, keys []hotKey, p redis.Pipeliner, client int) (ops []hotOp) {
	for range hotPicks {
		key := keys[rng.IntN(len(keys))]
		for range 1 + rng.IntN(hotBurst) {
			ops = append(ops, key.send(ctx, p, client))
		}
	}
	return ops
}

// number is a counter: each operation adds one and returns the sum.
type number struct {
	name string
	add  func(ctx context.Context, p redis.Pipeliner, name string) *redis.IntCmd
	get  func(ctx context.Context, p redis.Pipeliner, name string) *redis.StringCmd

	mu      sync.Mutex
	base    uint64 // shown at the last comparison
	sent    uint64 // operations since
	acked   uint64
	replies map[uint64]bool
	highest uint64
}

func newNumber(name string, add func(context.Context, redis.Pipeliner, string) *redis.IntCmd,
	get func(context.Context, redis.Pipeliner, string) *redis.StringCmd) *number {
	return &number{name: name, add: add, get: get, replies: make(map[uint64]bool)}
}

func (n *number) begin(int) {}

func (n *number) send(ctx context.Context, p redis.Pipeliner, _ int) hotOp {
	cmd := n.add(ctx, p, n.name)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sent++
	return hotOp{cmd, func() error { return n.settle(uint64(cmd.Val())) }}
}

// settle takes in a reply: no two operations may see the same sum, nor one that they cannot have reached.
func (n *number) settle(sum uint64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.acked++
	if n.replies[sum] || sum <= n.base || sum > n.base+n.sent {
		return fmt.Errorf("key %s: a reply of %d, twice or out of range: it was %d, and %d were added", n.name, sum, n.base, n.sent)
	}
	n.replies[sum] = true
	n.highest = max(n.highest, sum)
	return nil
}

func (n *number) read(ctx context.Context, p redis.Pipeliner) func() error {
	cmd := n.get(ctx, p, n.name)
	return func() error {
		shown, err := cmd.Uint64()
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("read key %s: %w", n.name, err)
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		if shown < n.base+n.acked || shown > n.base+n.sent || shown < n.highest {
			return mismatch{fmt.Errorf("key %s: it was %d, %d of %d additions were acknowledged and the highest sum told was %d, but it shows %d",
				n.name, n.base, n.acked, n.sent, n.highest, shown)}
		}
		n.base, n.sent, n.acked, n.highest = shown, 0, 0, 0
		clear(n.replies)
		return nil
	}
}

// token names one operation of one client.
type token struct {
	client int
	number uint64
}

func (t token) String() string {
	return strconv.Itoa(t.client) + "." + strconv.FormatUint(t.number, 10)
}

func parseToken(s string) (t token, ok bool) {
	client, number, ok := strings.Cut(s, ".")
	var errs [2]error
	t.client, errs[0] = strconv.Atoi(client)
	t.number, errs[1] = strconv.ParseUint(number, 10, 64)
	return t, ok && errors.Join(errs[:]...) == nil
}

// tokens is what clients have sent and what of it was acknowledged.
type tokens struct {
	sent, acked map[int]uint64 // the newest token by client
}

func (g *tokens) next(client int) token {
	if g.sent == nil {
		g.sent, g.acked = make(map[int]uint64), make(map[int]uint64)
	}
	g.sent[client]++
	return token{client, g.sent[client]}
}

// text is a string that everybody appends tokens to: each shows up once, in each client's order. Every round has its own, and
// removes the one before the last.
type text struct {
	prefix string

	mu     sync.Mutex
	round  int
	tokens tokens
	acked  map[token]bool
	shown  string // at the last comparison
	frozen bool   // nothing was sent since
}

func (t *text) name() string { return t.prefix + strconv.Itoa(t.round) }

func (t *text) begin(round int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.round, t.tokens, t.acked, t.shown, t.frozen = round, tokens{}, make(map[token]bool), "", true
}

func (t *text) send(ctx context.Context, p redis.Pipeliner, client int) hotOp {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := t.tokens.next(client)
	if next.number == 1 {
		p.Del(ctx, t.prefix+strconv.Itoa(t.round-2))
	}
	t.frozen = false
	cmd := p.Append(ctx, t.name(), next.String()+";")
	return hotOp{cmd, func() error {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.acked[next] = true
		return nil
	}}
}

func (t *text) read(ctx context.Context, p redis.Pipeliner) func() error {
	cmd := p.Get(ctx, t.name())
	return func() error {
		shown, err := cmd.Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			return fmt.Errorf("read key %s: %w", t.name(), err)
		}
		t.mu.Lock()
		defer t.mu.Unlock()
		if err := t.check(shown); err != nil {
			return mismatch{fmt.Errorf("key %s: %w", t.name(), err)}
		}
		t.shown, t.frozen = shown, true
		return nil
	}
}

// check says what is wrong with the text.
func (t *text) check(shown string) error {
	if t.frozen && shown != t.shown {
		return fmt.Errorf("it had %d bytes, and now other %d", len(t.shown), len(shown))
	}
	last := make(map[int]uint64)
	found := 0
	for part := range strings.SplitAfterSeq(shown, ";") {
		if part == "" {
			continue
		}
		name, whole := strings.CutSuffix(part, ";")
		next, ok := parseToken(name)
		switch {
		case !whole || !ok || next.number > t.tokens.sent[next.client]:
			return fmt.Errorf("it shows %s, which nobody appended", brief(part))
		case next.number <= last[next.client]:
			return fmt.Errorf("it shows %s after %v: twice, or out of order", next, token{next.client, last[next.client]})
		}
		last[next.client] = next.number
		if t.acked[next] {
			found++
		}
	}
	if found != len(t.acked) {
		return fmt.Errorf("%d of %d acknowledged appends are in it", found, len(t.acked))
	}
	return nil
}

// latest is keys that are set to the same token by one command, which sets the first of them twice. The last token wins.
type latest struct {
	names []string
	// torn allows that the keys differ: they are in different partitions.
	torn bool

	mu      sync.Mutex
	tokens  tokens
	shown   []string       // at the last comparison; nil before the first
	settled map[int]uint64 // the newest token by client at the last comparison
}

func (r *latest) begin(int) {}

func (r *latest) send(ctx context.Context, p redis.Pipeliner, client int) hotOp {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := r.tokens.next(client)
	pairs := []any{r.names[0], "overwritten"}
	for _, name := range r.names {
		pairs = append(pairs, name, next.String())
	}
	return hotOp{p.MSet(ctx, pairs...), func() error {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.tokens.acked[client] = max(r.tokens.acked[client], next.number)
		return nil
	}}
}

func (r *latest) read(ctx context.Context, p redis.Pipeliner) func() error {
	cmd := p.MGet(ctx, r.names...)
	return func() error {
		values, err := cmd.Result()
		if err != nil {
			return fmt.Errorf("read keys %v: %w", r.names, err)
		}
		shown := make([]string, len(values))
		for i, v := range values {
			shown[i] = missing
			if s, ok := v.(string); ok {
				shown[i] = s
			}
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range shown {
			if err := r.check(i, shown); err != nil {
				return mismatch{fmt.Errorf("key %s: %w", r.names[i], err)}
			}
		}
		r.shown, r.settled = shown, maps.Clone(r.tokens.sent)
		return nil
	}
}

// check says what is wrong with one of the keys.
func (r *latest) check(i int, shown []string) error {
	before := missing
	if r.shown != nil {
		before = r.shown[i]
	}
	now, ok := parseToken(shown[i])
	switch {
	case !r.torn && shown[i] != shown[0]:
		return fmt.Errorf("it shows %s, and its sibling, set by the same commands, %s", brief(shown[i]), brief(shown[0]))
	case shown[i] == before && r.overwritten():
		return fmt.Errorf("it still shows %s, but later commands were acknowledged", brief(before))
	case shown[i] == before:
		return nil
	case !ok || now.number <= r.settled[now.client] || now.number > r.tokens.sent[now.client]:
		return fmt.Errorf("it shows %s, which nobody set since it showed %s", brief(shown[i]), brief(before))
	case now.number < r.tokens.acked[now.client]:
		return fmt.Errorf("it shows %s, but a later command of the same client was acknowledged", now)
	}
	return nil
}

// overwritten says whether a command was acknowledged since the last comparison.
func (r *latest) overwritten() bool {
	for client, acked := range r.tokens.acked {
		if acked > r.settled[client] {
			return true
		}
	}
	return false
}
