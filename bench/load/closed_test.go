package load

import (
	"context"
	"errors"
	"io"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestClosedLoopMakesExactlyItsRequests(t *testing.T) {
	var reads, writes atomic.Int64
	s := newFakeServer(t, func(_ int, args []string) error {
		if args[0] == "GET" {
			reads.Add(1)
		} else {
			writes.Add(1)
		}
		return nil
	})
	const total = 5003
	d, err := StartClosed(testContext(t), ClosedOptions{Addr: s.addr(), Clients: 7, Pipeline: 16, Requests: total, Workload: Workload{Reads: 3, Writes: 1, Keys: 50}})
	if err != nil {
		t.Fatal(err)
	}
	waitDone(t, testContext(t), d.Done())
	if err := d.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	stats := d.Take()
	if stats.Requests() != total || stats.Errors != 0 {
		t.Errorf("%d requests, %d errors", stats.Requests(), stats.Errors)
	}
	if stats.Reads.TotalCount() != reads.Load() || stats.Writes.TotalCount() != writes.Load() {
		t.Errorf("recorded %d/%d, served %d/%d", stats.Reads.TotalCount(), stats.Writes.TotalCount(), reads.Load(), writes.Load())
	}
	if share := float64(reads.Load()) / total; math.Abs(share-0.75) > 0.03 {
		t.Errorf("%.3f of the requests are reads, want 0.75", share)
	}
	if again := d.Take(); again.Requests() != 0 {
		t.Errorf("%d requests in an empty window", again.Requests())
	}
}

// Requests and answers that both exceed the socket buffers must not wait for each other.
func TestClosedLoopLargeBatches(t *testing.T) {
	s := newFakeServer(t, nil)
	w := Workload{Keys: 2, ValueSize: 1 << 20, Reads: 1, Writes: 1}
	d, err := StartClosed(testContext(t), ClosedOptions{Addr: s.addr(), Clients: 2, Pipeline: 32, Requests: 128, Workload: w})
	if err != nil {
		t.Fatal(err)
	}
	waitDone(t, testContext(t), d.Done())
	if err := d.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if stats := d.Take(); stats.Requests() != 128 {
		t.Errorf("%d requests, want 128", stats.Requests())
	}
}

func TestClosedLoopStopsMidwayAndCutsAStuckServer(t *testing.T) {
	never, stuck := make(chan struct{}), make(chan struct{}, 2)
	s := newFakeServer(t, func(n int, _ []string) error {
		if n > 10 {
			stuck <- struct{}{}
			<-never
		}
		return nil
	})
	t.Cleanup(func() { close(never) })
	d, err := StartClosed(testContext(t), ClosedOptions{Addr: s.addr(), Clients: 2, Duration: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	<-stuck
	<-stuck
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	if err := d.Stop(ctx); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("Stop = %v, want a timeout", err)
	}
	if stats := d.Take(); stats.Requests() != 10 || stats.Unanswered != 2 {
		t.Errorf("%d requests, %d unanswered", stats.Requests(), stats.Unanswered)
	}
}

func TestPreloadWritesEachKeyOnce(t *testing.T) {
	s := newFakeServer(t, nil)
	w := Workload{Keys: 1003, Prefix: "p:"}
	l := NewLedger(w.Keys)
	stats, err := Preload(testContext(t), PreloadOptions{Addr: s.addr(), Workload: w, Ledger: l})
	if err != nil {
		t.Fatal(err)
	}
	if stats.Requests() != 1003 || len(s.values) != 1003 || l.Acknowledged() != 1003 {
		t.Errorf("%d requests, %d keys, %d acknowledged", stats.Requests(), len(s.values), l.Acknowledged())
	}
	v, err := ReadBack(testContext(t), s.addr(), "", w, l)
	if err != nil || v != (Verdict{Acknowledged: 1003}) {
		t.Errorf("read back %+v, %v", v, err)
	}
}

func TestReadBackCountsWhatIsLost(t *testing.T) {
	var mu sync.Mutex
	last := map[string]uint32{}
	s := newFakeServer(t, func(_ int, args []string) error {
		mu.Lock()
		defer mu.Unlock()
		if args[0] == "SET" {
			seq, err := stamp([]byte(args[2]))
			if err != nil || seq != last[args[1]]+1 {
				t.Errorf("%s: write %d after %d, %v", args[1], seq, last[args[1]], err)
			}
			last[args[1]] = seq
		}
		return nil
	})
	w := Workload{Keys: 10}
	l := NewLedger(w.Keys)
	d := startOpen(t, OpenOptions{Addr: s.addr(), Connections: 3, Rate: 10_000, Arrivals: Evenly, Duration: 100 * time.Millisecond, Workload: w, Ledger: l})
	waitDone(t, testContext(t), d.Done())
	if err := d.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if n := l.Acknowledged(); n != 1000 {
		t.Fatalf("%d acknowledged, want 1000", n)
	}
	// Key 3 goes back by two writes, key 4 vanishes, key 5 is ahead of what was acknowledged.
	c := newCodec(withDefaults(w))
	set := func(key, seq uint32) {
		request := string(c.append(nil, op{key: key, seq: seq}))
		parts := strings.Split(request, "\r\n")
		s.values[parts[4]] = parts[6]
	}
	set(3, l.acked[3]-2)
	delete(s.values, "key:0000000004")
	l.acked[5]--
	want := Verdict{Acknowledged: 999, Lost: 2 + uint64(l.acked[4]), KeysShort: 2, Unacknowledged: 1}
	if v, err := ReadBack(testContext(t), s.addr(), "", w, l); err != nil || v != want {
		t.Errorf("read back %+v, %v, want %+v", v, err, want)
	}
	// A refused write below the last acknowledged one was never owed.
	l.disown(op{key: 3, seq: l.acked[3] - 1})
	want.Acknowledged--
	want.Lost--
	if v, err := ReadBack(testContext(t), s.addr(), "", w, l); err != nil || v != want {
		t.Errorf("read back %+v, %v, want %+v", v, err, want)
	}
	set(6, l.issued[6]+1)
	if _, err := ReadBack(testContext(t), s.addr(), "", w, l); err == nil || !strings.Contains(err.Error(), "never written") {
		t.Errorf("a value from the future: %v", err)
	}
	s.values["key:0000000006"] = "short"
	if _, err := ReadBack(testContext(t), s.addr(), "", w, l); err == nil || !strings.Contains(err.Error(), "write number") {
		t.Errorf("a foreign value: %v", err)
	}
}

func withDefaults(w Workload) Workload {
	w.EnsureDefaults()
	return w
}

func TestClosedOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]ClosedOptions{
		"addr":     {},
		"clients":  {Addr: "x", Clients: 5000},
		"pipeline": {Addr: "x", Pipeline: -1},
		"duration": {Addr: "x", Duration: -1},
		"dist":     {Addr: "x", Workload: Workload{Dist: "x"}},
		"connect":  {Addr: "127.0.0.1:1"},
	} {
		if _, err := StartClosed(testContext(t), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// What one driver was not answered, a later one's acknowledgements of the same keys do not cover.
func TestUnansweredWritesStayUnowed(t *testing.T) {
	var cut atomic.Bool
	s := newFakeServer(t, func(n int, _ []string) error {
		if cut.Load() && n%100 == 0 {
			return io.EOF
		}
		return nil
	})
	w := Workload{Keys: 10}
	l := NewLedger(w.Keys)
	var acknowledged uint64
	for _, lossy := range []bool{true, false} {
		cut.Store(lossy)
		d := startOpen(t, OpenOptions{Addr: s.addr(), Connections: 2, Rate: 5000, Arrivals: Evenly, Duration: 100 * time.Millisecond, Workload: w, Ledger: l})
		waitDone(t, testContext(t), d.Done())
		if err := d.Stop(testContext(t)); (err != nil) != lossy {
			t.Fatalf("connections are cut: %v, Stop = %v", lossy, err)
		}
		acknowledged += d.Take().Requests()
	}
	if got := l.Acknowledged(); got != acknowledged {
		t.Errorf("the ledger has %d acknowledged writes, the drivers were answered %d", got, acknowledged)
	}
	if v, err := ReadBack(testContext(t), s.addr(), "", w, l); err != nil || v.Lost != 0 {
		t.Errorf("read back %+v, %v", v, err)
	}
}

func TestAnInterruptedReadBackSaysSo(t *testing.T) {
	never := make(chan struct{})
	s := newFakeServer(t, func(int, []string) error { <-never; return nil })
	t.Cleanup(func() { close(never) })
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if _, err := ReadBack(ctx, s.addr(), "", Workload{Keys: 10}, NewLedger(10)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("ReadBack = %v", err)
	}
}
