package redis

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/replica"
	"replicanode/server/resp"
)

// A connection sees its own writes at once, in any mix and pipeline, while a View does not until they are applied.
func TestReadsSeeOwnWrites(t *testing.T) {
	readsSeeOwnWrites(t, serve(t, Options{MaxPipeline: 50}), 300)
}

func readsSeeOwnWrites(t *testing.T, h *harness, rounds int) {
	c := h.dial()
	var request strings.Builder
	var want []string
	for i := range rounds {
		key := fmt.Sprintf("k%d", i%17)
		value := fmt.Sprint(i)
		for _, step := range [][2]string{
			{"SET " + key + " " + value, "OK"},
			{"GET " + key, fmt.Sprintf("%q", value)},
			{"HSET h" + key + " f " + value, ""},
			{"HGETALL h" + key, fmt.Sprintf("[%q %q]", "f", value)},
			{"APPEND " + key + " x", fmt.Sprintf(":%d", len(value)+1)},
			{"MGET " + key + " nosuch " + key, fmt.Sprintf("[%q nil %q]", value+"x", value+"x")},
			{"EXISTS " + key + " h" + key, ":2"},
			{"DEL " + key + " nosuch", ":1"},
			{"GET " + key, "nil"},
			{"PING", "PONG"},
			{"FOO", "-ERR unknown command 'FOO', with args beginning with: "},
		} {
			var args [][]byte
			for _, w := range strings.Fields(step[0]) {
				args = append(args, []byte(w))
			}
			request.Write(resp.AppendCommand(nil, args...))
			want = append(want, step[1])
		}
	}
	go func() { _, _ = c.nc.Write([]byte(request.String())) }()
	for i, w := range want {
		if got := c.read(); got != w && w != "" {
			t.Fatalf("reply %d: %s, want %s", i, got, w)
		}
	}
}

// One pipeline is one wait: everything is proposed before anything has finished.
func TestPipelineIsProposedTogether(t *testing.T) {
	h := serve(t, Options{})
	release := h.store.hold()
	defer release()
	c := h.dial()
	const n = 100
	var b []byte
	for i := range n {
		b = resp.AppendCommand(b, []byte("INCR"), fmt.Append(nil, "k", i%7))
	}
	c.write(string(b))
	waitFor(t, func() bool {
		sum := 0
		for _, p := range h.store.partitions {
			p.mu.Lock()
			sum += p.proposed
			p.mu.Unlock()
		}
		return sum == n
	})
	release()
	for i := range n {
		if got, want := c.read(), fmt.Sprintf(":%d", i/7+1); got != want {
			t.Fatalf("reply %d: %s, want %s", i, got, want)
		}
	}
}

// waitFor waits until a condition holds that another goroutine brings about.
func waitFor(t *testing.T, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
		<-time.After(time.Millisecond)
	}
}

// panicStore panics on a key, as a bug of a command would.
type panicStore struct{ *fakeStore }

func (s panicStore) Route(key []byte) int {
	if string(key) == "panic" {
		panic("a bug")
	}
	return s.fakeStore.Route(key)
}

func TestPanicsEndTheirConnectionOnly(t *testing.T) {
	fake := newFakeStore(2)
	defer fake.close()
	registry := prometheus.NewRegistry()
	h := serve(t, Options{Store: panicStore{fake}, Registerer: registry})
	cmd := h.s.table.find([]byte("strlen"))
	cmd.read = func(Reader, *Op) error { panic("a bug in a read") }
	h.s.table.find([]byte("setnx")).write = func(tx Tx, o *Op) error {
		_ = tx.Put(o.key(), []byte("half"), 0)
		panic("a bug in a write")
	}
	other := h.dial()
	other.do("SET", "a", "1")

	c := h.dial()
	c.send("SET", "b", "1")
	c.send("GET", "panic")
	c.expectEndAfterReplies()
	c = h.dial()
	c.send("STRLEN", "a")
	c.expectEndAfterReplies()
	c = h.dial()
	if got := c.do("SETNX", "half", "x"); got != "-ERR internal error" {
		t.Errorf("a panic in Execute: %s", got)
	}
	c.expectEnd()

	if got := other.do("MGET", "a", "b", "half"); got != `["1" "1" nil]` {
		t.Errorf("afterwards: %s", got)
	}
	if logs := h.logs.String(); strings.Count(logs, "panic in a connection") != 3 || !strings.Contains(logs, "conn_test.go") {
		t.Errorf("logged: %s", logs)
	}
	if n := counted(h.s.metrics.panics); n != 3 {
		t.Errorf("%v panics counted", n)
	}
}

// What a connection proposed refers to its buffers: they live until it is finished, even when the connection's code has panicked.
func TestPanicWaitsForOps(t *testing.T) {
	fake := newFakeStore(2)
	defer fake.close()
	h := serve(t, Options{Store: panicStore{fake}})
	other := h.dial()
	other.do("PING")
	c := h.dial()
	release := fake.hold()
	c.write("SET a 1\r\nGET panic\r\n")
	waitFor(t, func() bool { return counted(h.s.metrics.panics) == 1 })
	other.roundTrips(50)
	if n := h.s.clients(); n != 2 {
		t.Errorf("%d clients while a command is under way", n)
	}
	release()
	c.expectEnd()
	waitFor(t, func() bool { return h.s.clients() == 1 })
	if got := other.do("GET", "a"); got != `"1"` {
		t.Errorf("what was proposed: %s", got)
	}
}

// expectEndAfterReplies checks that the server closes the connection, with or without replies before that.
func (c *rawClient) expectEndAfterReplies() {
	c.t.Helper()
	for {
		if _, err := readReply(c.r); err != nil {
			c.expectEnd()
			return
		}
	}
}

func TestStoreErrors(t *testing.T) {
	h := serve(t, Options{BusyTimeout: 30 * time.Millisecond})
	c := h.dial()
	c.do("SET", "a", "1")
	var answer atomic.Pointer[error]
	var refusals, allowed atomic.Int64
	for _, p := range h.store.partitions {
		p.mu.Lock()
		p.refuse = func() error {
			if err := *answer.Load(); err != nil && allowed.Add(-1) < 0 {
				refusals.Add(1)
				return err
			}
			return nil
		}
		p.mu.Unlock()
	}
	set := func(err error) { answer.Store(&err) }
	for _, test := range []struct {
		err  error
		want string
	}{
		{replica.ErrBusy, "-TRYAGAIN "},
		{replica.ErrNotReady, "-LOADING "},
		{&replica.NotLeaderError{Leader: 2}, "-READONLY "},
		{&replica.FailedError{Partition: 1, Cause: errors.New("disk")}, "-MISCONF "},
		{replica.ErrNoSpace, "-OOM "},
		{replica.ErrBacklog, "-TRYAGAIN "},
		{replica.ErrResultUnknown, "-ERR "},
		{replica.ErrStopped, "-ERR "},
		{&replica.TooLargeError{What: "value", Bytes: 2, Limit: 1}, "-ERR value of 2 bytes"},
	} {
		set(test.err)
		if got := c.do("SET", "a", "2"); !strings.HasPrefix(got, test.want) {
			t.Errorf("%v: %s", test.err, got)
		}
		if got := c.do("MSET", "a", "2", "b", "2", "c", "3"); !strings.HasPrefix(got, test.want) {
			t.Errorf("%v: %s", test.err, got)
		}
		if got := c.do("GET", "a"); got != `"1"` {
			t.Errorf("GET while %v: %s", test.err, got)
		}
	}
	// A queue that has room again soon costs the client time, not an error.
	refusals.Store(0)
	set(replica.ErrBusy)
	c.send("SET", "a", "3")
	waitFor(t, func() bool { return refusals.Load() > 1 })
	set(nil)
	if got := c.read(); got != "OK" {
		t.Errorf("after a busy queue: %s", got)
	}
	// A read that cannot be queued behind a write waits for it instead.
	release := h.store.hold()
	defer release()
	refusals.Store(0)
	allowed.Store(1)
	set(replica.ErrNoSpace)
	c.write("SET a 4\r\nGET a\r\n")
	waitFor(t, func() bool { return refusals.Load() == 1 })
	release()
	if got := c.read() + c.read(); got != `OK"4"` {
		t.Errorf("a read that could not be queued: %s", got)
	}
}

// queued are the ops that wait in the store's queues.
func (h *harness) queued() (ops []*Op) {
	for _, p := range h.store.partitions {
		p.mu.Lock()
		ops = append(ops, p.queue...)
		p.mu.Unlock()
	}
	return ops
}

// TestWriteGate: only what writes to a partition whose gate is closed is refused, and then as a whole.
func TestWriteGate(t *testing.T) {
	var closed atomic.Int64
	closed.Store(-1)
	h := serve(t, Options{WriteGate: func(p int) error {
		if closed.Load() == int64(p) {
			return errors.New("disk is nearly full: writes are refused")
		}
		return nil
	}})
	c := h.dial()
	c.do("SET", "a", "1")
	other := "b"
	for h.store.Route([]byte(other)) == h.store.Route([]byte("a")) {
		other += "b"
	}
	closed.Store(int64(h.store.Route([]byte("a"))))
	runScript(t, c, strings.ReplaceAll(`
		SET a 2 => -ERR disk is nearly full: writes are refused
		DEL a => -ERR disk is nearly full: writes are refused
		MSET OTHER 5 a 5 => -ERR disk is nearly full: writes are refused
		FLUSHDB => -ERR disk is nearly full: writes are refused
		GET OTHER => nil
		SET OTHER 1 => OK
		MSET OTHER 2 => OK
		GET OTHER => "2"
		GET a => "1"`, "OTHER", other))
	closed.Store(-1)
	runScript(t, c, "SET a 2 => OK")
	for text, want := range map[string]string{"OOM too much": "OOM too much", "x": "ERR x", "": "ERR ", " a": "ERR  a"} {
		if got := withCode(text); got != want {
			t.Errorf("%q became %q", text, got)
		}
	}
}
