package redis

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	goredis "github.com/redis/go-redis/v9"
)

func TestStop(t *testing.T) {
	h := serve(t, Options{})
	idle, busy := h.dial(), h.dial()
	idle.do("PING")
	release := h.store.hold()
	defer release()
	busy.write("SET a 1\r\nGET a\r\n")
	waitFor(t, func() bool { return len(h.queued()) == 2 })

	// A store that does not finish keeps Stop until its context ends, and not longer.
	ctx, cancel := context.WithCancel(context.Background())
	stopped := make(chan error, 1)
	go func() { stopped <- h.s.Stop(context.Background()) }()
	idle.expectEnd()
	select {
	case err := <-stopped:
		t.Fatalf("Stop returned with a command under way: %v", err)
	default:
	}
	release()
	if got := busy.read() + busy.read(); got != `OK"1"` {
		t.Errorf("replies at shutdown: %s", got)
	}
	busy.expectEnd()
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	cancel()
	if err := h.s.Stop(ctx); err != nil {
		t.Errorf("a second Stop: %v", err)
	}
}

func TestStopIsBounded(t *testing.T) {
	h := serve(t, Options{})
	c := h.dial()
	release := h.store.hold()
	defer release()
	c.send("SET", "a", "1")
	waitFor(t, func() bool { return len(h.queued()) == 1 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := h.s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Stop: %v", err)
	}
}

func TestGoRedis(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		t.Run(fmt.Sprint("version ", protocol), func(t *testing.T) {
			h := serve(t, Options{Password: "secret"})
			ctx := context.Background()
			rdb := goredis.NewClient(&goredis.Options{Addr: h.s.Addr().String(), Protocol: protocol, Password: "secret", ClientName: "test"})
			defer func() { _ = rdb.Close() }()
			check := func(err error) {
				t.Helper()
				if err != nil {
					t.Fatal(err)
				}
			}
			check(rdb.Set(ctx, "a", "1", time.Minute).Err())
			check(rdb.HSet(ctx, "h", map[string]any{"f": 1, "g": "x"}).Err())
			if got, err := rdb.HGetAll(ctx, "h").Result(); err != nil || len(got) != 2 || got["g"] != "x" {
				t.Errorf("HGETALL %v %v", got, err)
			}
			if _, err := rdb.Get(ctx, "nosuch").Result(); err != goredis.Nil {
				t.Errorf("GET of nothing: %v", err)
			}
			pipe := rdb.Pipeline()
			var counters []*goredis.IntCmd
			for range 100 {
				counters = append(counters, pipe.Incr(ctx, "n"))
			}
			values := pipe.MGet(ctx, "a", "n", "h")
			_, err := pipe.Exec(ctx)
			check(err)
			if counters[99].Val() != 100 || fmt.Sprint(values.Val()) != "[1 100 <nil>]" {
				t.Errorf("pipeline: %v %v", counters[99].Val(), values.Val())
			}
			var keys []string
			iter := rdb.Scan(ctx, 0, "", 1).Iterator()
			for iter.Next(ctx) {
				keys = append(keys, iter.Val())
			}
			check(iter.Err())
			slices.Sort(keys)
			if !slices.Equal(keys, []string{"a", "h", "n"}) {
				t.Errorf("SCAN %v", keys)
			}
			if got, err := rdb.TTL(ctx, "a").Result(); err != nil || got != time.Minute {
				t.Errorf("TTL %v %v", got, err)
			}
			if got, err := rdb.SetNX(ctx, "a", 2, time.Second).Result(); err != nil || got {
				t.Errorf("SETNX %v %v", got, err)
			}
			infos, err := rdb.Command(ctx).Result()
			if err != nil || infos["mget"] == nil || infos["mget"].LastKeyPos != -1 || !infos["get"].ReadOnly {
				t.Errorf("COMMAND: %v %v", infos["mget"], err)
			}
			if info, err := rdb.Info(ctx, "server").Result(); err != nil || !strings.Contains(info, "redis_version:") {
				t.Errorf("INFO: %q %v", info, err)
			}
			if got, err := rdb.ConfigGet(ctx, "max*").Result(); err != nil || got["maxclients"] != "10000" {
				t.Errorf("CONFIG GET: %v %v", got, err)
			}
			if name, err := rdb.ClientGetName(ctx).Result(); err != nil || name != "test" {
				t.Errorf("CLIENT GETNAME: %q %v", name, err)
			}
		})
	}
}

func TestAuth(t *testing.T) {
	h := serve(t, Options{Password: "secret"})
	c := h.dial()
	runScript(t, c, `
		GET a => -NOAUTH Authentication required.
		PING => -NOAUTH Authentication required.
		SET a 1 => -NOAUTH Authentication required.
		HELLO 3 => -NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time
		AUTH secre => -WRONGPASS invalid username-password pair or user is disabled.
		AUTH "" => -WRONGPASS invalid username-password pair or user is disabled.
		AUTH root secret => -WRONGPASS invalid username-password pair or user is disabled.
		HELLO 2 AUTH default nosecret => -WRONGPASS invalid username-password pair or user is disabled.
		FOO => -ERR unknown command 'FOO', with args beginning with:
		AUTH default secret => OK
		SET a 1 => OK
		RESET => RESET
		GET a => -NOAUTH Authentication required.
		AUTH secret => OK
		GET a => "1"`)
	if got := h.dial().line("HELLO 3 AUTH default secret"); !strings.HasPrefix(got, "{") {
		t.Errorf("HELLO with AUTH: %s", got)
	}
}

func TestOptions(t *testing.T) {
	store := newFakeStore(1)
	defer store.close()
	for want, change := range map[string]func(*Options){
		"no store":      func(o *Options) { o.Store = nil },
		"address":       func(o *Options) { o.Addr = "x" },
		"max clients":   func(o *Options) { o.MaxClients = -1 },
		"bulk bytes":    func(o *Options) { o.Limits.MaxBulkBytes = 1 },
		"reply bytes":   func(o *Options) { o.MaxReplyBytes = 1 },
		"buffer bytes":  func(o *Options) { o.MaxBufferBytes = 1 },
		"max pipeline":  func(o *Options) { o.MaxPipeline = -1 },
		"timeouts":      func(o *Options) { o.IdleTimeout = -1 },
		"keys and":      func(o *Options) { o.MaxKeyBytes = -1 },
		"request bytes": func(o *Options) { o.Limits.MaxRequestBytes = 1 },
	} {
		o := Options{Store: store, Addr: "127.0.0.1:0"}
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	o := Options{Store: store, Addr: "256.0.0.1:0"}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err == nil || !strings.Contains(err.Error(), "256.0.0.1") {
		t.Errorf("an address that cannot be: %v", err)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestInfo(t *testing.T) {
	registry := prometheus.NewRegistry()
	h := serve(t, Options{Registerer: registry, Version: "1.2.3", Info: func(section string) []InfoField {
		if section == "persistence" {
			return []InfoField{{"durable", "yes"}}
		}
		return nil
	}})
	c := h.dial()
	c.do("SET", "a", "1")
	c.do("GET", "a")
	all := c.do("INFO")
	for _, want := range []string{"# Server", "# Clients", "# Memory", "# Persistence", "# Stats", "# Replication", "# Keyspace",
		"replicanode_version:1.2.3", "durable:yes", "connected_clients:1", "role:master", "total_commands_processed:2"} {
		if !strings.Contains(all, want) {
			t.Errorf("INFO has no %q: %s", want, all)
		}
	}
	if got := c.do("INFO", "Clients"); strings.Count(got, "#") != 1 {
		t.Errorf("INFO Clients: %s", got)
	}
	if h.s.WriteP99() <= 0 {
		t.Error("no write latency")
	}
	if got := counted(h.s.table.byName["set"].calls); got != 1 {
		t.Errorf("%v SETs counted", got)
	}
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]uint64{}
	for _, f := range families {
		if f.GetName() == "replicanode_server_command_seconds" {
			for _, m := range f.GetMetric() {
				counts[m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleCount()
			}
		}
	}
	if counts["write"] != 1 || counts["read"] < 2 {
		t.Errorf("histogram counts %v", counts)
	}
}
