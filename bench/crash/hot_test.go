package crash

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"replicanode/internal/fixture"
)

// heated returns a fleet whose every hot key has seen operations of two clients, all acknowledged but the last of each key.
func heated(t *testing.T, c *redis.Client) *fleet {
	t.Helper()
	ctx := context.Background()
	f := smallFleet()
	p := c.Pipeline()
	var ops []hotOp
	for _, key := range f.hot {
		for i := range 10 {
			op := key.send(ctx, p, i%2)
			if i < 9 {
				ops = append(ops, op)
			}
		}
	}
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	for _, op := range ops {
		if err := op.settle(); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

// Every way to lose or repeat one of many operations on one key must be seen, before and after the state was compared.
func TestTamperedHotKeysAreCaught(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	ctx := context.Background()
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	tag := tagOf(1, 8)
	set := func(name, value string) func() error {
		return func() error { return c.Set(ctx, tag+name, value, 0).Err() }
	}
	for name, tamper := range map[string]struct {
		do       func() error
		harmless bool // until the state was compared
	}{
		"one increment too many":          {do: func() error { return c.Incr(ctx, tag+"incr").Err() }},
		"the unknown increment is gone":   {do: func() error { return c.Decr(ctx, tag+"incr").Err() }, harmless: true},
		"only the first took effect":      {do: set("incr", "1")},
		"a field went up twice":           {do: func() error { return c.HIncrBy(ctx, tag+"hincrby", "f", 1).Err() }},
		"a field lost two":                {do: func() error { return c.HIncrBy(ctx, tag+"hincrby", "f", -2).Err() }},
		"an append was repeated":          {do: func() error { return c.Append(ctx, tag+"append:0", "1.5;").Err() }},
		"an append of nobody":             {do: func() error { return c.Append(ctx, tag+"append:0", "1.6;").Err() }},
		"an append was cut":               {do: set("append:0", "0.1;1.1;0.2;1.2;0.3;1.3;0.4;1.4;0.5")},
		"the unknown append is gone":      {do: set("append:0", "0.1;1.1;0.2;1.2;0.3;1.3;0.4;1.4;0.5;"), harmless: true},
		"appends are out of order":        {do: set("append:0", "0.2;0.1;1.1;1.2;0.3;1.3;0.4;1.4;0.5;1.5;")},
		"one append lost from the middle": {do: set("append:0", "0.1;1.1;0.2;1.2;1.3;0.4;1.4;0.5;1.5;")},
		"siblings differ":                 {do: set("b", "0.5")},
		"the first write of a command":    {do: set("a", "overwritten")},
		"an older value":                  {do: set("spread", "1.3")},
		"a value of nobody":               {do: set("spread", "1.9")},
		"a value is gone":                 {do: func() error { return c.Del(ctx, tag+"spread").Err() }},
	} {
		t.Run(name, func(t *testing.T) {
			for _, settled := range []bool{false, true} {
				if err := c.FlushDB(ctx).Err(); err != nil {
					t.Fatal(err)
				}
				f := heated(t, c)
				if settled {
					if err := f.compare(ctx, addr); err != nil {
						t.Fatal(err)
					}
				}
				if err := tamper.do(); err != nil {
					t.Fatal(err)
				}
				err := f.compare(ctx, addr)
				if tamper.harmless && !settled {
					if err != nil {
						t.Errorf("before the comparison: %v", err)
					}
				} else if !errors.As(err, new(mismatch)) || !strings.Contains(err.Error(), tag) {
					t.Errorf("compared before: %v; compare = %v", settled, err)
				}
			}
		})
	}
}

// Two operations cannot have seen the same sum.
func TestARepeatedSumIsCaught(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	ctx := context.Background()
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	f := heated(t, c)
	p := c.Pipeline()
	op := f.hot[0].send(ctx, p, 0)
	p.Decr(ctx, tagOf(0, 8)+"incr")
	again := f.hot[0].send(ctx, p, 0)
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	if err := op.settle(); err != nil {
		t.Fatal(err)
	}
	if err := again.settle(); err == nil {
		t.Error("two increments returned the same")
	}
}

func TestContentTellsDifferences(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	ctx := context.Background()
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	p := c.Pipeline()
	for i := range 500 {
		p.Set(ctx, fmt.Sprintf("k%d", i), i, 0)
		p.HSet(ctx, fmt.Sprintf("h%d", i%10), fmt.Sprintf("f%d", i), i)
	}
	if _, err := p.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	read := func() content {
		t.Helper()
		got, err := readContent(ctx, addr, 8)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	before := read()
	if err := before.differs(read()); err != nil {
		t.Error(err)
	}
	for _, change := range [][]any{
		{"set", "k7", "70"}, {"del", "k7"}, {"set", "k7", "7"}, {"hset", "h1", "f1", "2"}, {"hdel", "h1", "f1"}, {"hset", "h1", "f1", "1"},
		{"set", "new", ""},
	} {
		if err := c.Do(ctx, change...).Err(); err != nil {
			t.Fatal(err)
		}
		same := change[len(change)-1] == "7" || change[len(change)-1] == "1"
		if err := before.differs(read()); (err == nil) != same {
			t.Errorf("after %v: %v", change, err)
		}
	}
}
