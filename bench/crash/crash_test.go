package crash

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"replicanode/internal/fixture"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNodesKeepTheirWord(t *testing.T) {
	o := Options{Binary: fixture.Program(t), Rounds: 2, Partitions: 4, Clients: 4, MaxLoad: 400 * time.Millisecond, Seed: uint64(time.Now().UnixNano())}
	if os.Getenv("REPLICANODE_STRESS") != "" {
		o = Options{Binary: o.Binary, Seed: o.Seed, Rounds: 200}
	}
	var progress bytes.Buffer
	rep, err := Run(context.Background(), o, &progress)
	if err != nil {
		t.Fatalf("seed %d: %v\n%s", o.Seed, err, progress.String())
	}
	var table bytes.Buffer
	if err := rep.Write(&table); err != nil {
		t.Fatal(err)
	}
	t.Logf("seed %d\n%s", o.Seed, table.String())
	if rep.Acked == 0 || len(rep.Rounds) < 2 {
		t.Errorf("%d rounds with %d writes", len(rep.Rounds), rep.Acked)
	}
}

// Each kind of death by itself, on the same folders.
func TestEveryDeathIsSurvived(t *testing.T) {
	o := Options{Binary: fixture.Program(t), Dir: t.TempDir(), Partitions: 4, Clients: 4, MaxLoad: 300 * time.Millisecond, Seed: uint64(time.Now().UnixNano())}
	o.EnsureDefaults()
	r := &run{opts: o, rng: rand.New(rand.NewPCG(o.Seed, 0)), fleet: newFleet(o), place: func(string) string { return o.Dir }}
	defer r.killAll()
	if err := r.startNodes(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, d := range deaths {
		round, err := r.round(t.Context(), i+1, d.death)
		if err != nil {
			t.Fatalf("seed %d, %s: %v", o.Seed, d.death, err)
		}
		t.Logf("%s: %+v", d.death, round)
	}
}

func smallFleet() *fleet {
	o := Options{Clients: 2, Keys: 15, ValueSize: 300}
	o.EnsureDefaults()
	return newFleet(o)
}

// loaded returns a fleet whose every key has been written, and has stopped.
func loaded(t *testing.T, addr string) *fleet {
	t.Helper()
	f := smallFleet()
	for _, w := range f.clients {
		c := connect(addr)
		for !writtenOften(w) {
			w.batch(c)
			if w.err != nil || w.wrong != nil {
				t.Fatal(w.err, w.wrong)
			}
		}
		_ = c.Close()
	}
	return f
}

func writtenOften(w *writer) bool {
	for _, k := range w.keys {
		if k.acked < 3 || k.kind == toggle && k.acked%2 == 0 {
			return false
		}
	}
	return true
}

func TestAnHonestServerPasses(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	f := loaded(t, addr)
	if err := f.compare(context.Background(), addr); err != nil {
		t.Fatal(err)
	}
	f.start(addr)
	// The load runs until this many more were acknowledged.
	for target := f.acked.Load() + 2000; f.acked.Load() < target; {
		if err := f.compareNothing(addr); err != nil {
			t.Fatal(err)
		}
	}
	if wrong, broken := f.stop(); wrong != nil || broken != nil {
		t.Fatal(wrong, broken)
	}
	if n := f.inFlight(); n != 0 {
		t.Errorf("%d in flight after a clean stop", n)
	}
	if err := f.compare(context.Background(), addr); err != nil {
		t.Error(err)
	}
}

// compareNothing only asks the server for a sign of life.
func (f *fleet) compareNothing(addr string) error {
	c := connect(addr)
	defer c.Close()
	return c.Ping(context.Background()).Err()
}

// Every way to break a key's state must be seen.
func TestADishonestServerIsCaught(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	ctx := context.Background()
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	for name, tamper := range map[string]struct {
		kind kind
		do   func(k *key) error
	}{
		"a counter went up twice":     {counter, func(k *key) error { return c.Incr(ctx, k.name).Err() }},
		"a counter lost an increment": {counter, func(k *key) error { return c.Decr(ctx, k.name).Err() }},
		"a counter vanished":          {counter, func(k *key) error { return c.Del(ctx, k.name).Err() }},
		"a field went up twice":       {field, func(k *key) error { return c.HIncrBy(ctx, k.name, "f", 1).Err() }},
		"a field vanished":            {field, func(k *key) error { return c.HDel(ctx, k.name, "f").Err() }},
		"an older value":              {register, func(k *key) error { return c.Set(ctx, k.name, k.value(k.acked-1), 0).Err() }},
		"a damaged value":             {register, func(k *key) error { return c.SetRange(ctx, k.name, 10, "\x00").Err() }},
		"a delete that was not made":  {toggle, func(k *key) error { return c.Del(ctx, k.name).Err() }},
		"half of a pair is older":     {pair, func(k *key) error { return c.Set(ctx, k.name+"b", k.value(k.acked-1), 0).Err() }},
		"half of a pair is gone":      {pair, func(k *key) error { return c.Del(ctx, k.name+"a").Err() }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := c.FlushDB(ctx).Err(); err != nil {
				t.Fatal(err)
			}
			f := loaded(t, addr)
			var victim *key
			for _, k := range f.clients[1].keys {
				if k.kind == tamper.kind {
					victim = k
				}
			}
			if err := tamper.do(victim); err != nil {
				t.Fatal(err)
			}
			if err := f.compare(ctx, addr); !errors.As(err, new(mismatch)) || !strings.Contains(err.Error(), victim.name) {
				t.Errorf("compare = %v", err)
			}
		})
	}
}

func TestAnOpenOperationMayGoEitherWay(t *testing.T) {
	for k := kind(0); k < kinds; k++ {
		fresh := func() *key { return &key{kind: k, name: "x", size: 40, acked: 4, open: true} }
		for _, n := range []uint64{4, 5} {
			x := fresh()
			if err := x.settle(x.shows(n)); err != nil || x.open || x.shows(x.acked) != x.shows(n) {
				t.Errorf("kind %d after %d operations: %v, %+v", k, n, err, x)
			}
		}
		for _, shown := range []string{fresh().shows(3), fresh().shows(7), "", "4 ", "\n"} {
			x := fresh()
			if shown == x.shows(4) || shown == x.shows(5) {
				continue // toggles show the same every other time
			}
			if err := x.settle(shown); err == nil {
				t.Errorf("kind %d may show %q", k, shown)
			}
		}
		x := fresh()
		x.open = false
		if err := x.settle(x.shows(5)); err == nil {
			t.Errorf("kind %d may show an operation that nobody made", k)
		}
	}
}

func TestContradictingRepliesAreCaught(t *testing.T) {
	addr, _ := fixture.StockRedis(t)
	ctx := context.Background()
	c := redis.NewClient(&redis.Options{Addr: addr})
	defer c.Close()
	f := loaded(t, addr)
	w := f.clients[0]
	if err := c.IncrBy(ctx, w.keys[0].name, 5).Err(); err != nil {
		t.Fatal(err)
	}
	for w.wrong == nil && w.err == nil {
		w.batch(c)
	}
	if w.wrong == nil || !strings.Contains(w.wrong.Error(), w.keys[0].name) {
		t.Errorf("wrong = %v, err = %v", w.wrong, w.err)
	}
}

func TestABrokenConnectionLeavesOperationsOpen(t *testing.T) {
	addr, kill := fixture.StockRedis(t)
	f := smallFleet()
	f.start(addr)
	c := connect(addr)
	defer c.Close()
	for f.acked.Load() < 500 {
		if err := c.Ping(context.Background()).Err(); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	f.wg.Wait()
	wrong, broken := f.stop()
	if wrong != nil || broken == nil || !brokenConnection(broken) {
		t.Errorf("wrong %v, broken %v", wrong, broken)
	}
	if f.inFlight() == 0 {
		t.Error("nothing was in flight as the server died")
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		"rounds":     {Rounds: -1},
		"partitions": {Partitions: 2000},
		"clients":    {Clients: 1000},
		"keys":       {Keys: 2},
		"value-size": {ValueSize: 3},
		"load":       {MinLoad: 2 * time.Second, MaxLoad: time.Second},
		"catch-up":   {CatchUpTimeout: -1},
		"node":       {Binary: "/none/replicanode"},
	} {
		if _, err := Run(context.Background(), o, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
