package load

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func startOpen(t *testing.T, o OpenOptions) *Open {
	t.Helper()
	d, err := StartOpen(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Stop(testContext(t)) })
	return d
}

// A server that stops answering is charged for everything that fell due in the meantime, not for one request a connection.
func TestOpenLoopChargesEveryRequestOfAStall(t *testing.T) {
	const rate, stalled = 2000.0, 500
	released := make(chan struct{})
	var once sync.Once
	s := newFakeServer(t, func(n int, _ []string) error {
		switch {
		case n == 1:
			<-released // by a request that only an open schedule sends
		case n >= stalled:
			once.Do(func() { close(released) })
		}
		return nil
	})
	t.Cleanup(func() { once.Do(func() { close(released) }) })
	d := startOpen(t, OpenOptions{Addr: s.addr(), Connections: 2, Rate: rate, Arrivals: Evenly, Duration: time.Second, Workload: Workload{Keys: 2}})
	waitDone(t, testContext(t), d.Done())
	if err := d.Stop(testContext(t)); err != nil {
		t.Fatal(err)
	}
	stats := d.Take()
	if stats.Requests() != rate || stats.Errors != 0 {
		t.Fatalf("%d requests, %d errors, want %v and 0", stats.Requests(), stats.Errors, rate)
	}
	// One of two connections stood still until 499 requests had arrived on the other: about half a second, during which
	// about 500 of its own fell due, whose waits go evenly from none to the whole.
	stall := time.Duration(stats.Writes.Max()) * time.Microsecond
	if stall < 400*time.Millisecond {
		t.Errorf("longest latency %v: the stall was longer", stall)
	}
	late := stats.Writes.TotalCount() - countBelow(t, stats, stall/2)
	if late < 200 || late > 300 {
		t.Errorf("%d requests waited half of the stall, want about 250", late)
	}
}

func countBelow(t *testing.T, s Stats, d time.Duration) (n int64) {
	t.Helper()
	for _, b := range s.Writes.Distribution() {
		if b.To <= d.Microseconds() {
			n += b.Count
		}
	}
	return n
}

// With the bound of open requests reached the schedule waits, and what fell due keeps its time.
func TestOpenLoopKeepsDueTimesBehindTheBound(t *testing.T) {
	const bound = 16
	timeout := time.NewTimer(300 * time.Millisecond)
	var once sync.Once
	s := newFakeServer(t, func(n int, _ []string) error {
		once.Do(func() { <-timeout.C })
		return nil
	})
	d := startOpen(t, OpenOptions{Addr: s.addr(), Connections: 1, Rate: 1000, Arrivals: Evenly, MaxInFlight: bound, Duration: 500 * time.Millisecond, Workload: Workload{Keys: 10}})
	waitDone(t, testContext(t), d.Done())
	stats := d.Take()
	if stats.Requests() != 500 {
		t.Fatalf("%d requests, want 500", stats.Requests())
	}
	if waited := stats.Writes.TotalCount() - countBelow(t, stats, 100*time.Millisecond); waited < 150 {
		t.Errorf("only %d requests waited more than 100 ms of a 300 ms stall at 1000/s", waited)
	}
	if late := stats.SendDelay.Max(); late < 200_000 {
		t.Errorf("the schedule was at most %d us late although it was held back", late)
	}
}

func TestOpenLoopReportsRefusalsAndLostConnections(t *testing.T) {
	s := newFakeServer(t, func(n int, _ []string) error {
		switch {
		case n > 100:
			return io.EOF
		case n%2 == 0:
			return errors.New("BUSY try later")
		}
		return nil
	})
	l := NewLedger(1000)
	d := startOpen(t, OpenOptions{Addr: s.addr(), Connections: 1, Rate: 5000, Duration: 200 * time.Millisecond, Workload: Workload{Keys: 1000}, Ledger: l})
	waitDone(t, testContext(t), d.Done())
	if err := d.Stop(testContext(t)); err == nil || !strings.Contains(err.Error(), "lost") {
		t.Errorf("Stop = %v, want the lost connection", err)
	}
	stats := d.Take()
	if got := l.Acknowledged(); got != 50 || stats.Requests() != 50 {
		t.Errorf("%d acknowledged, %d answered, want 50", got, stats.Requests())
	}
	counts := map[string]uint64{}
	for _, e := range stats.ErrorTexts {
		counts[e.Text] = e.Count
	}
	if counts["BUSY try later"] != 50 || counts["not answered"] == 0 || counts["not sent: the connection is lost"] == 0 {
		t.Errorf("errors: %v", counts)
	}
	if stats.Unanswered != counts["not answered"] {
		t.Errorf("unanswered %d, want %d", stats.Unanswered, counts["not answered"])
	}
}

func TestOpenLoopStopGivesUpWithItsContext(t *testing.T) {
	s := newFakeServer(t, nil)
	never := make(chan struct{})
	s.before = func(int, []string) error { <-never; return nil }
	t.Cleanup(func() { close(never) })
	d := startOpen(t, OpenOptions{Addr: s.addr(), Rate: 1000, Workload: Workload{Keys: 100}})
	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if err := d.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	stats := d.Take()
	if stats.Requests() != 0 || stats.Unanswered == 0 || stats.Writes.TotalCount() != int64(stats.Unanswered) {
		t.Errorf("%d answered, %d unanswered, %d recorded", stats.Requests(), stats.Unanswered, stats.Writes.TotalCount())
	}
	if err := d.Stop(ctx); err != nil {
		t.Errorf("second Stop: %v", err)
	}
}

func TestOpenOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]OpenOptions{
		"addr":          {Rate: 1},
		"rate":          {Addr: "127.0.0.1:1"},
		"connections":   {Addr: "127.0.0.1:1", Rate: 1, Connections: -1},
		"tick":          {Addr: "127.0.0.1:1", Rate: 1, Tick: time.Second},
		"max in flight": {Addr: "127.0.0.1:1", Rate: 1, MaxInFlight: -1},
		"duration":      {Addr: "127.0.0.1:1", Rate: 1, Duration: -1},
		"arrivals":      {Addr: "127.0.0.1:1", Rate: 1, Arrivals: "now"},
		"ledger":        {Addr: "127.0.0.1:1", Rate: 1, Ledger: NewLedger(3)},
		"value-size":    {Addr: "127.0.0.1:1", Rate: 1, Ledger: NewLedger(3), Workload: Workload{Keys: 3, ValueSize: 5}},
		"dist":          {Addr: "127.0.0.1:1", Rate: 1, Workload: Workload{Dist: "normal"}},
		"theta":         {Addr: "127.0.0.1:1", Rate: 1, Workload: Workload{Theta: -1}},
		"keys":          {Addr: "127.0.0.1:1", Rate: 1, Workload: Workload{Keys: MaxKeys + 1}},
		"prefix":        {Addr: "127.0.0.1:1", Rate: 1, Workload: Workload{Prefix: strings.Repeat("x", 200)}},
		"ratio":         {Addr: "127.0.0.1:1", Rate: 1, Workload: Workload{Reads: 1 << 30}},
	} {
		if _, err := StartOpen(testContext(t), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestPasswordIsSent(t *testing.T) {
	s := newFakeServer(t, nil)
	if _, err := StartOpen(testContext(t), OpenOptions{Addr: s.addr(), Rate: 1, Password: "wrong"}); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("wrong password: %v", err)
	}
	d := startOpen(t, OpenOptions{Addr: s.addr(), Rate: 100, Password: "secret", Duration: 50 * time.Millisecond})
	waitDone(t, testContext(t), d.Done())
	if s := d.Take(); s.Errors != 0 {
		t.Errorf("errors: %v", s.ErrorTexts)
	}
}

// Whatever a server does not take is bounded in bytes too: large values would fill the memory long before MaxInFlight.
func TestOpenLoopBoundsWhatWaitsForTheSocket(t *testing.T) {
	never := make(chan struct{})
	s := newFakeServer(t, func(int, []string) error { <-never; return nil })
	t.Cleanup(func() { close(never) })
	d := startOpen(t, OpenOptions{
		Addr: s.addr(), Connections: 2, Rate: 5000, Workload: Workload{Keys: 100, ValueSize: 256 << 10}, maxUnsent: 4 << 20,
	})
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	<-ctx.Done()
	if err := d.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range d.conns {
		if unsent := len(c.out) - c.outAt; unsent == 0 || unsent > 2<<20+300<<10 {
			t.Errorf("%d bytes wait for a socket, want up to 2 MiB and one request", unsent)
		}
	}
}
