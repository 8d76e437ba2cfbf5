package redis

import (
	"context"
	"errors"
	"strings"
	"testing"

	"replicanode/replica"
	"replicanode/server/resp"
)

// TestClientsAreToldToWaitUntilTheStoreIsThere, as Redis tells them: whatever needs the data, and PING, is refused; what a client library
// says when it connects is not.
func TestClientsAreToldToWaitUntilTheStoreIsThere(t *testing.T) {
	s, err := New(Options{Addr: "127.0.0.1:0", Loading: func() string { return "3 of 8 done" }})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	store := newFakeStore(4)
	h := &harness{t: t, s: s, store: store, logs: &logBuffer{}}
	t.Cleanup(func() {
		if err := s.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		store.close()
	})
	c := h.dial()
	for _, line := range []string{"PING", "ECHO x", "GET a", "SET a 1", "MGET a b", "DBSIZE", "FLUSHALL", "SCAN 0", "HGETALL h", "DEL a"} {
		if got := c.line(line); !strings.Contains(got, "LOADING 3 of 8 done") {
			t.Errorf("%s: %q", line, got)
		}
	}
	for _, line := range []string{"SELECT 0", "CLIENT SETNAME me", "COMMAND COUNT", "CONFIG GET port", "HELLO 3", "RESET"} {
		if got := c.line(line); strings.Contains(got, "LOADING") || strings.Contains(got, "ERR") {
			t.Errorf("%s: %q", line, got)
		}
	}
	if got := c.do("INFO"); !strings.Contains(got, "loading:1") {
		t.Errorf("INFO: %q", got)
	}
	s.Open(store, nil)
	for line, want := range map[string]string{"PING": "PONG", "SET a 1": "OK", "INFO persistence": "loading:0", "INFO keyspace": "db0:keys=1,expires=0"} {
		if line == "INFO keyspace" {
			c.do("SET", "a", "1")
		}
		if got := c.line(line); !strings.Contains(got, want) {
			t.Errorf("%s: %q", line, got)
		}
	}
}

// TestFullDiskIsOOM whoever finds it out.
func TestFullDiskIsOOM(t *testing.T) {
	s := &Server{opts: Options{DiskFull: func() string { return "the disk of data is full: 512 bytes free" }}}
	for err, want := range map[error]string{
		replica.ErrNoSpace: "-OOM the disk of data is full: 512 bytes free\r\n",
		&replica.FailedError{Partition: 3, Cause: errors.New("a sync failed")}: "-MISCONF partition 3 has failed: a sync failed\r\n",
	} {
		var w resp.Reply
		if s.storeError(&w, err); string(w.Buf) != want {
			t.Errorf("%v: %q", err, w.Buf)
		}
	}
	var w resp.Reply
	if (&Server{}).storeError(&w, replica.ErrNoSpace); !strings.HasPrefix(string(w.Buf), "-OOM no space left") {
		t.Errorf("%q", w.Buf)
	}
}
