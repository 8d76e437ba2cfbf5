package redis

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"replicanode/server/resp"
)

// bystander checks, when called, that another client is served as ever.
func bystander(h *harness) func() {
	c := h.dial()
	n := 0
	return func() {
		h.t.Helper()
		n++
		if got := c.do("SET", "bystander", fmt.Sprint(n)); got != "OK" {
			h.t.Errorf("another client: %s", got)
		}
		if got := c.do("GET", "bystander"); got != fmt.Sprintf("%q", fmt.Sprint(n)) {
			h.t.Errorf("another client: %s", got)
		}
	}
}

// A request of many short names must not be answered with many times its length.
func TestManyCommandNamesAreRefused(t *testing.T) {
	h := serve(t, Options{})
	c := h.dial()
	for _, sub := range []string{"INFO", "DOCS"} {
		words := []string{"COMMAND", sub}
		for range 1000 {
			words = append(words, "get")
		}
		if got := c.do(words...); strings.HasPrefix(got, "-") {
			t.Errorf("%s of 1000 names: %.100s", sub, got)
		}
		if got := c.do(append(words, "get")...); got != "-ERR at most 1000 commands are described at once" {
			t.Errorf("%s of 1001 names: %.100s", sub, got)
		}
	}
}

func TestMalformedRequests(t *testing.T) {
	h := serve(t, Options{})
	other := bystander(h)
	for name, test := range map[string]struct{ in, want string }{
		"length 2^63-1":    {"*2\r\n$3\r\nGET\r\n$9223372036854775807\r\n", "-ERR Protocol error: invalid bulk length"},
		"count 2^63-1":     {"*9223372036854775807\r\n", "-ERR Protocol error: invalid multibulk length"},
		"no dollar":        {"*1\r\nPING\r\n", "-ERR Protocol error: expected '$', got 'P'"},
		"long inline":      {strings.Repeat("x", 70<<10), "-ERR Protocol error: too big inline request"},
		"quotes":           {"SET \"a\r\n", "-ERR Protocol error: unbalanced quotes in request"},
		"binary":           {"\x00\xff\xfe\r\n", "-ERR unknown command"},
		"endless length":   {"*1\r\n$" + strings.Repeat("1", 100), "-ERR Protocol error: too big count string"},
		"after good ones":  {"PING\r\nSET a 1\r\n*1\r\n!", "PONG"},
		"rest is garbage":  {"*1\r\n$-1\r\n" + strings.Repeat("garbage\r\n", 20_000), "-ERR Protocol error: invalid bulk length"},
		"over the request": {"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$8388609\r\n", "-ERR Protocol error: invalid bulk length"},
	} {
		t.Run(name, func(t *testing.T) {
			c := h.dial()
			c.t = t
			go func() { _, _ = io.WriteString(c.nc, test.in) }()
			got := c.read()
			if !strings.HasPrefix(got, test.want) {
				t.Errorf("%s, want %s", got, test.want)
			}
			if strings.Contains(got, "Protocol error") {
				c.expectEnd()
			}
			other()
		})
	}
	if n := counted(h.s.metrics.protocol[resp.BadLength]); n < 3 {
		t.Errorf("%v bad lengths counted", n)
	}
}

func TestHTTPIsNotServed(t *testing.T) {
	h := serve(t, Options{})
	c := h.dial()
	c.write("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nSET a 1\r\n")
	c.expectEndAfterReplies()
	if got := h.dial().do("EXISTS", "a"); got != ":0" {
		t.Error("the body of an HTTP request was executed")
	}
}

// heapAfter is the live heap once garbage is collected.
func heapAfter() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// Many connections that claim much and send little cost little.
func TestClaimsCostNothing(t *testing.T) {
	h := serve(t, Options{})
	other := bystander(h)
	before := heapAfter()
	const clients = 200
	for range clients {
		c := h.dial()
		c.write("*1048576\r\n$8388608\r\nabc")
	}
	waitFor(t, func() bool { return h.s.clients() == clients+1 })
	other()
	if after := heapAfter(); after > before+clients*40<<10 {
		t.Errorf("%d bytes for %d clients", after-before, clients)
	}
}

// A client that never reads its replies is closed, and until then costs no more than what it may have.
func TestClientThatNeverReads(t *testing.T) {
	h := serve(t, Options{WriteTimeout: 300 * time.Millisecond})
	other := bystander(h)
	c := h.dial()
	c.do("SET", "a", strings.Repeat("x", 1<<20))
	_ = c.nc.(*net.TCPConn).SetReadBuffer(4 << 10)
	before := heapAfter()
	go func() { _, _ = c.nc.Write(bytes.Repeat([]byte("GET a\r\n"), 10_000)) }()
	other()
	waitFor(t, func() bool { return counted(h.s.metrics.refused[refusedSlow]) == 1 })
	if after := heapAfter(); after > before+16<<20 {
		t.Errorf("%d bytes for a client that does not read", after-before)
	}
	waitFor(t, func() bool { return h.s.clients() == 1 })
	other()
}

// A request that comes in drops is cut off; a client that is idle is not, unless it should be.
func TestSlowloris(t *testing.T) {
	h := serve(t, Options{RequestTimeout: 200 * time.Millisecond})
	other := bystander(h)
	idle := h.dial()
	idle.do("PING")
	for _, beginning := range []string{"*2\r\n$3\r\nGE", "GET ", "*"} {
		c := h.dial()
		c.write(beginning)
		stop := make(chan struct{})
		go func() {
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					_, _ = io.WriteString(c.nc, "1")
				}
			}
		}()
		c.expectEndAfterReplies()
		close(stop)
		other()
	}
	if got := idle.do("PING"); got != "PONG" {
		t.Errorf("the idle client: %s", got)
	}
}

func TestIdleTimeout(t *testing.T) {
	h := serve(t, Options{IdleTimeout: 100 * time.Millisecond})
	c := h.dial()
	c.do("PING")
	c.expectEnd()
}

func TestMaxClients(t *testing.T) {
	h := serve(t, Options{MaxClients: 2})
	a, b := h.dial(), h.dial()
	a.do("PING")
	b.do("PING")
	c := h.dial()
	if got := c.read(); got != "-ERR max number of clients reached" {
		t.Errorf("the third client: %s", got)
	}
	c.expectEnd()
	a.do("QUIT")
	waitFor(t, func() bool { return h.s.clients() == 1 })
	if got := h.dial().do("PING"); got != "PONG" {
		t.Errorf("after one left: %s", got)
	}
	if n := counted(h.s.metrics.refused[refusedClients]); n != 1 {
		t.Errorf("%v refused", n)
	}
}

// Before it authenticates, a client can make the server hold next to nothing.
func TestLimitsBeforeAuth(t *testing.T) {
	h := serve(t, Options{Password: "secret"})
	for in, want := range map[string]string{
		"*11\r\n":                                 "-ERR Protocol error: unauthenticated multibulk length",
		"*2\r\n$4\r\nAUTH\r\n$16385\r\n":          "-ERR Protocol error: unauthenticated bulk length",
		"AUTH x\r\n*2\r\n$3\r\nGET\r\n$16385\r\n": "-WRONGPASS",
	} {
		c := h.dial()
		c.write(in)
		if got := c.read(); !strings.HasPrefix(got, want) {
			t.Errorf("%q: %s", in, got)
		}
		c.expectEndAfterReplies()
	}
	c := h.dial()
	if got := c.do("AUTH", "secret") + c.do("SET", "a", strings.Repeat("x", 1<<20)); got != "OKOK" {
		t.Errorf("after authentication: %s", got)
	}
}

// Replies that a limit forbids are errors, and what a pipeline of reads may hold is bounded.
func TestReplyLimit(t *testing.T) {
	h := serve(t, Options{MaxReplyBytes: 1 << 20, Limits: resp.Limits{MaxBulkBytes: 256 << 10}})
	c := h.dial()
	value := strings.Repeat("x", 250<<10)
	var mget, all []string
	for i := range 6 {
		key := fmt.Sprint("k", i)
		c.do("SET", key, value)
		c.do("HSET", "h", key, value)
		all = append(all, key)
	}
	mget = append([]string{"MGET"}, all...)
	const tooLong = "-ERR the reply is longer than the limit of 1048576 bytes"
	for _, words := range [][]string{mget, append([]string{"HMGET", "h"}, all...), {"HGETALL", "h"}, {"HVALS", "h"}} {
		if got := c.do(words...); got != tooLong {
			t.Errorf("%s: %.100s", words[0], got)
		}
	}
	if got := c.do("HSCAN", "h", "0", "COUNT", "100"); !strings.HasPrefix(got, "-ERR the reply is longer than the limit") {
		t.Errorf("HSCAN: %.100s", got)
	}
	if got := c.do("MGET", "k0", "k1", "k2"); len(got) < 3*len(value) {
		t.Errorf("a reply within the limit: %.100s", got)
	}
	// Reads behind a write are queued; they must not all hold their values at once.
	release := h.store.hold()
	var b []byte
	for range 20 {
		b = resp.AppendCommand(b, []byte("APPEND"), []byte("k0"), []byte("y"))
		b = resp.AppendCommand(b, []byte("GET"), []byte("k0"))
	}
	go func() { _, _ = c.nc.Write(b) }()
	waitFor(t, func() bool { return len(h.queued()) == 9 })
	if len(h.queued()) > 9 {
		t.Errorf("%d ops queued", len(h.queued()))
	}
	release()
	for i := range 20 {
		if got, want := c.read(), fmt.Sprintf(":%d", len(value)+i+1); got != want {
			t.Fatalf("append %d: %s", i, got)
		}
		if got := c.read(); len(got) != len(value)+i+3 {
			t.Fatalf("get %d: %d bytes, %.100s", i, len(got), got)
		}
	}
}

// Complete replies that wait behind a write that is under way are bounded too.
func TestRepliesThatWait(t *testing.T) {
	h := serve(t, Options{MaxReplyBytes: 1 << 20, Limits: resp.Limits{MaxBulkBytes: 256 << 10}})
	c := h.dial()
	value := strings.Repeat("x", 200<<10)
	c.do("HSET", "h", "a", value, "b", value)
	c.do("MSET", "k1", value, "k2", value)
	write := "k3" // in another partition than what is read
	for h.store.Route([]byte(write)) == h.store.Route([]byte("h")) || h.store.Route([]byte(write)) == h.store.Route([]byte("k1")) ||
		h.store.Route([]byte(write)) == h.store.Route([]byte("k2")) {
		write += "x"
	}
	h.s.mu.Lock()
	var server *conn
	for _, server = range h.s.conns {
	}
	h.s.mu.Unlock()
	other := h.dial()
	for _, read := range [][]string{{"HGETALL", "h"}, {"MGET", "k1", "k2"}, {"HVALS", "h"}} {
		release := h.store.hold()
		request := "SET " + write + " 1\r\n" + strings.Repeat(strings.Join(read, " ")+"\r\n", 30)
		c.write(request)
		waitFor(t, func() bool { return server.reserved.Load() > 1<<20 })
		other.roundTrips(50) // time in which the server would go on, did it not wait
		if n := server.reserved.Load(); n > 2<<20 {
			t.Errorf("%d bytes wait", n)
		}
		release()
		if got := c.read(); got != "OK" {
			t.Errorf("SET: %s", got)
		}
		for range 30 {
			if got := c.read(); len(got) < 2*len(value) {
				t.Fatalf("%s: %.100s", read[0], got)
			}
		}
	}
	waitFor(t, func() bool { return server.reserved.Load() == 0 })
	waitFor(t, func() bool { return h.s.budget.Used() < 64<<10 })
}

// Large replies count towards the memory of all connections.
func TestReplyBudget(t *testing.T) {
	h := serve(t, Options{MaxBufferBytes: 2 << 20, MaxReplyBytes: 4 << 20, Limits: resp.Limits{MaxBulkBytes: 1 << 20, MaxRequestBytes: 2 << 20}})
	c := h.dial()
	for _, key := range []string{"a", "b", "c"} {
		c.do("SET", key, strings.Repeat("x", 1<<20-100))
	}
	if got := c.do("MGET", "a", "b", "c"); got != "-ERR no memory left for the reply" {
		t.Errorf("%.100s", got)
	}
	if got := c.do("STRLEN", "a"); got != ":1048476" {
		t.Errorf("afterwards: %s", got)
	}
	if used := h.s.budget.Used(); used != 0 {
		t.Errorf("%d bytes used", used)
	}
}

func TestBufferBudget(t *testing.T) {
	h := serve(t, Options{MaxBufferBytes: 2 << 20, Limits: resp.Limits{MaxBulkBytes: 1 << 20, MaxRequestBytes: 2 << 20}})
	other := bystander(h)
	request := "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1048576\r\n" + strings.Repeat("x", 1<<20-1)
	var clients []*rawClient
	for range 4 {
		c := h.dial()
		go func() { _, _ = io.WriteString(c.nc, request) }()
		clients = append(clients, c)
	}
	waitFor(t, func() bool { return counted(h.s.metrics.refused[refusedBuffers]) >= 2 })
	other()
	if used := h.s.budget.Used(); used > 2<<20 {
		t.Errorf("%d bytes used", used)
	}
	for _, c := range clients {
		_ = c.nc.Close()
	}
	waitFor(t, func() bool { return h.s.clients() == 1 })
	if used := h.s.budget.Used(); used != 0 {
		t.Errorf("%d bytes used by nobody", used)
	}
}

func TestKeyLimits(t *testing.T) {
	h := serve(t, Options{MaxKeyBytes: 100, MaxFieldValueBytes: 50})
	c := h.dial()
	long, value := strings.Repeat("k", 101), strings.Repeat("v", 51)
	for _, words := range [][]string{
		{"SET", long, "x"}, {"SETNX", long, "x"}, {"SETEX", long, "1", "x"}, {"APPEND", long, "x"}, {"INCR", long}, {"DECRBY", long, "1"},
		{"MSET", "a", "1", long, "x"}, {"HSET", "h", "f", "1", long, "1"}, {"HSET", "h", "f", value}, {"HINCRBY", "h", long, "1"}, {"HSETNX", "h", long, "1"},
	} {
		if got := c.do(words...); !strings.HasPrefix(got, "-ERR ") || !strings.Contains(got, "longer than the limit") {
			t.Errorf("%s: %s", words[0], got)
		}
	}
	if got := c.do("DBSIZE"); got != ":0" {
		t.Errorf("%s keys after refused commands", got)
	}
}
