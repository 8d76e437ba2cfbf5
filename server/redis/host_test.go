package redis

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"replicanode/plog"
	"replicanode/replica"
)

// startHost runs a real replica host in a fresh folder and stops it with the test.
func startHost(t testing.TB, partitions uint32) Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	syncer := plog.NewSyncer(plog.SyncerOptions{})
	if err := syncer.Start(ctx); err != nil {
		t.Fatal(err)
	}
	host, err := replica.NewHost(replica.Options{Dir: t.TempDir(), Partitions: partitions, ClusterID: 1, Syncer: syncer, MemTableBytes: 8 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := host.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := host.Stop(ctx); err != nil {
			t.Error(err)
		}
		if err := syncer.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := host.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	return FromHost(host)
}

func TestRealHost(t *testing.T) {
	h := serve(t, Options{Store: startHost(t, 3)})
	t.Run("same as Redis", func(t *testing.T) { differential(t, h.s.Addr().String(), startRedis(t)) })
	t.Run("scans", func(t *testing.T) { scans(t, h) })
	t.Run("own writes", func(t *testing.T) { readsSeeOwnWrites(t, h, 40) })
	t.Run("long keys", func(t *testing.T) {
		c := h.dial()
		long := string(slices.Repeat([]byte("k"), 60<<10+1))
		for want, words := range map[string][]string{
			"nil": {"GET", long}, ":0": {"EXISTS", long}, ":-2": {"TTL", long}, "[nil]": {"MGET", long}, "none": {"TYPE", long}, "[]": {"HKEYS", long},
		} {
			if got := c.do(words...); got != want {
				t.Errorf("%s of a key that cannot exist: %s", words[0], got)
			}
		}
		for _, words := range [][]string{{"DEL", long}, {"HDEL", long, "f"}, {"EXPIRE", long, "10"}, {"PERSIST", long}} {
			if got := c.do(words...); got != ":0" {
				t.Errorf("%s of a key that cannot exist: %s", words[0], got)
			}
		}
		if got := c.do("SET", "a", string(make([]byte, 8<<20))); got != "OK" {
			t.Errorf("the longest value: %s", got)
		}
		if got := c.do("HSET", "h", "f", string(make([]byte, 768<<10))); got != ":1" {
			t.Errorf("the longest value of a field: %s", got)
		}
		if got := c.do("SET", long[:60<<10], "x"); got != "OK" {
			t.Errorf("the longest key: %s", got)
		}
		if got := c.do("HSET", long[:30<<10], long[:30<<10], "x"); got != ":1" {
			t.Errorf("the longest field: %s", got)
		}
	})
	t.Run("pipelines", func(t *testing.T) {
		c := h.dial()
		c.do("DEL", "n")
		const n = 500
		go func() {
			for range n {
				c.send("INCR", "n")
			}
		}()
		for i := range n {
			if got, want := c.read(), fmt.Sprintf(":%d", i+1); got != want {
				t.Fatalf("reply %d: %s", i, got)
			}
		}
	})
}
