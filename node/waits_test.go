package node

import (
	"testing"
	"time"

	"replicanode/threadpool"
)

func TestRecentWaits(t *testing.T) {
	var r recentWaits
	var all threadpool.Histogram
	now := time.Unix(1000, 0)
	near := func(what string, got, want time.Duration) {
		t.Helper()
		if got < want*15/16 || got > want*17/16 {
			t.Errorf("%s: p99 is %v, want %v", what, got, want)
		}
	}
	near("nothing", r.p99(now, all, nil), 0)
	tick := func(n int, each time.Duration, waiting ...time.Duration) time.Duration {
		now = now.Add(250 * time.Millisecond)
		for range n {
			all.Record(each)
		}
		return r.p99(now, all, waiting)
	}
	near("a wait", tick(1000, 40*time.Millisecond), 40*time.Millisecond)
	near("one in a thousand", tick(1, time.Second), 40*time.Millisecond)
	near("many long ones", tick(100, time.Second), time.Second)
	near("one who waits in vain", tick(0, 0, time.Minute), time.Second)
	for range 12 {
		tick(10, time.Millisecond)
	}
	near("the long ones are past", tick(10, time.Millisecond), time.Millisecond)
	for range 20 {
		tick(0, 0)
	}
	near("all are past", tick(0, 0), 0)
	near("only those who wait", tick(0, 0, time.Second, 2*time.Second), 2*time.Second)
	if len(r.taken) > 15 {
		t.Errorf("%d histograms are kept", len(r.taken))
	}
}
