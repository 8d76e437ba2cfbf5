package crash

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

// kind says which operations a key sees.
type kind int

const (
	counter  kind = iota // INCR
	field                // HINCRBY
	register             // SET
	toggle               // SET, DEL, SET …
	pair                 // MSET of two keys of one partition
	kinds
)

const minValue = 16

// key is one unit of state, owned by one client. What a server shows of it follows from the number of operations it has seen.
type key struct {
	kind kind
	name string
	size int // of its values, bytes

	acked uint64 // operations acknowledged
	open  bool   // operation acked+1 may have taken effect
}

func newKey(client, i, maxSize int) *key {
	k := &key{kind: kind(i % int(kinds))}
	k.name = fmt.Sprintf("c%d:k%d", client, i)
	if k.kind == pair {
		k.name = "{" + k.name + "}"
	}
	k.size = minValue + (client*7919+i*104729)%(maxSize-minValue+1)
	return k
}

// value is the content after n operations: the number, and filler that depends on it.
func (k *key) value(n uint64) string {
	head := strconv.FormatUint(n, 10) + ":"
	unit := fmt.Sprintf("%s/%d.", k.name, n*2654435761%1_000_003)
	return head + strings.Repeat(unit, k.size/len(unit)+1)[:max(0, k.size-len(head))]
}

// missing is what a read of an absent key gives.
const missing = "\x00missing"

// shows is what a read gives after n operations.
func (k *key) shows(n uint64) string {
	if n == 0 {
		return missing
	}
	switch k.kind {
	case counter, field:
		return strconv.FormatUint(n, 10)
	case toggle:
		if n%2 == 0 {
			return missing
		}
	case pair:
		return k.value(n) + "\n" + k.value(n)
	}
	return k.value(n)
}

// send adds operation acked+1 to a pipeline. accepted says whether a reply without error fits the state.
func (k *key) send(ctx context.Context, p redis.Pipeliner) (cmd redis.Cmder, accepted func() bool) {
	n := k.acked + 1
	switch k.kind {
	case counter:
		c := p.Incr(ctx, k.name)
		return c, func() bool { return uint64(c.Val()) == n }
	case field:
		c := p.HIncrBy(ctx, k.name, "f", 1)
		return c, func() bool { return uint64(c.Val()) == n }
	case toggle:
		if n%2 == 0 {
			c := p.Del(ctx, k.name)
			return c, func() bool { return c.Val() == 1 }
		}
	case pair:
		c := p.MSet(ctx, k.name+"a", k.value(n), k.name+"b", k.value(n))
		return c, func() bool { return c.Val() == "OK" }
	}
	c := p.Set(ctx, k.name, k.value(n), 0)
	return c, func() bool { return c.Val() == "OK" }
}

// read adds the reading of the key to a pipeline; result is what it showed.
func (k *key) read(ctx context.Context, p redis.Pipeliner) (result func() (string, error)) {
	switch k.kind {
	case field:
		c := p.HGet(ctx, k.name, "f")
		return func() (string, error) { return orMissing(c.Result()) }
	case pair:
		c := p.MGet(ctx, k.name+"a", k.name+"b")
		return func() (string, error) {
			values, err := c.Result()
			if err != nil {
				return "", err
			}
			if len(values) == 2 && values[0] == nil && values[1] == nil {
				return missing, nil
			}
			shown := make([]string, len(values))
			for i, v := range values {
				shown[i] = missing
				if s, ok := v.(string); ok {
					shown[i] = s
				}
			}
			return strings.Join(shown, "\n"), nil
		}
	}
	c := p.Get(ctx, k.name)
	return func() (string, error) { return orMissing(c.Result()) }
}

func orMissing(s string, err error) (string, error) {
	if err == redis.Nil {
		return missing, nil
	}
	return s, err
}

// settle compares what a server showed with what it may show, and takes over what became of the open operation.
func (k *key) settle(shown string) error {
	switch {
	case shown == k.shows(k.acked):
	case k.open && shown == k.shows(k.acked+1):
		k.acked++
	default:
		open := "none was on its way"
		if k.open {
			open = "one more was on its way"
		}
		return fmt.Errorf("key %s: %d operations were acknowledged and %s, but it shows %s", k.name, k.acked, open, brief(shown))
	}
	k.open = false
	return nil
}

// brief shortens what a key shows for an error.
func brief(shown string) string {
	if shown == missing {
		return "nothing"
	}
	const limit = 60
	if len(shown) > limit {
		return fmt.Sprintf("%q… (%d bytes)", shown[:limit], len(shown))
	}
	return strconv.Quote(shown)
}
