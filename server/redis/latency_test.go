package redis

import (
	"testing"
	"time"
)

func TestLatencyBuckets(t *testing.T) {
	last := -1
	for d := time.Duration(0); d < 100*time.Second; d = d*21/20 + time.Microsecond {
		b := bucketOf(d)
		if b < last || b >= latencyBuckets {
			t.Fatalf("%v is in bucket %d after %d", d, b, last)
		}
		last = b
		top := bucketTop(b)
		if d < 60*time.Second && (top < d || float64(top) > 1.13*float64(d)+float64(time.Microsecond)) {
			t.Errorf("%v is in the bucket up to %v", d, top)
		}
	}
}

func TestLatencyWindow(t *testing.T) {
	var w latencyWindow
	now := time.Unix(1_000_000, 0)
	if q := w.quantile(now, 0.99); q != 0 {
		t.Errorf("of nothing: %v", q)
	}
	w.record(now, time.Millisecond, 980)
	w.record(now, 100*time.Millisecond, 20)
	near := func(at time.Time, q float64, want time.Duration) {
		t.Helper()
		if got := w.quantile(at, q); got < want || got > want*9/8 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	near(now, 0.5, time.Millisecond)
	near(now, 0.99, 100*time.Millisecond)
	near(now.Add(7*time.Second), 0.99, 100*time.Millisecond)
	w.record(now.Add(5*time.Second), time.Millisecond, 100_000)
	near(now.Add(5*time.Second), 0.99, time.Millisecond)
	if q := w.quantile(now.Add(20*time.Second), 0.99); q != 0 {
		t.Errorf("after the window: %v", q)
	}
	// A slot that comes round again begins empty.
	w.record(now.Add(windowSlots*windowSlot), 10*time.Millisecond, 1)
	near(now.Add(windowSlots*windowSlot), 0, time.Millisecond)
	near(now.Add(windowSlots*windowSlot+5*time.Second), 1, 10*time.Millisecond)
}
