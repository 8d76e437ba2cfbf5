package checkpoint

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimitFollowsHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		o := LimitOptions{Max: 4, Healthy: func() bool { return healthy }, Processors: 2}
		o.EnsureDefaults()
		must(t, o.Validate())
		l := newLimit(o)
		entered := make(chan struct{}, 20)
		for range 10 {
			go func() {
				if l.enter(&turn{}) == nil {
					entered <- struct{}{}
				}
			}()
		}
		synctest.Wait()
		if allowed, running, _ := l.figures(); allowed != 4 || running != 4 {
			t.Fatalf("limit %d, %d run", allowed, running)
		}
		healthy = false
		l.look()
		if allowed, running, _ := l.figures(); allowed > 4 || running != 4 {
			t.Fatalf("limit %d, %d run", allowed, running)
		}
		time.Sleep(time.Second)
		l.look()
		time.Sleep(time.Second)
		l.look()
		if allowed, _, _ := l.figures(); allowed != 1 {
			t.Fatalf("limit %d while unhealthy", allowed)
		}
		// Nobody else is let in before the number that runs is below the limit.
		for range 4 {
			<-entered
		}
		for range 3 {
			l.leave()
		}
		synctest.Wait()
		if _, running, waiting := l.figures(); running != 1 || waiting != 6 {
			t.Fatalf("%d run, %d wait", running, waiting)
		}
		// Everybody gets through in the end, at the least limit.
		l.leave()
		for range 6 {
			<-entered
			l.leave()
		}
		if _, running, waiting := l.figures(); running != 0 || waiting != 0 {
			t.Fatalf("%d run, %d wait", running, waiting)
		}
	})
}

// TestLimitGrowsCarefullyAfterTrouble: it doubles only up to what was halved to before, and not while all processors compute.
func TestLimitGrowsCarefullyAfterTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		healthy := true
		o := LimitOptions{Max: 64, Healthy: func() bool { return healthy }, Interval: time.Second, Processors: 2}
		o.EnsureDefaults()
		l := newLimit(o)
		for range 100 {
			go func() { _ = l.enter(&turn{}) }()
		}
		synctest.Wait()
		figure := func() int {
			time.Sleep(time.Second)
			l.look()
			allowed, _, _ := l.figures()
			return allowed
		}
		if got := figure(); got != 4 {
			t.Fatalf("limit %d while both processors compute", got)
		}
		l.park(1000) // all wait for the disk
		for _, want := range []int{8, 16, 32, 64, 64} {
			if got := figure(); got != want {
				t.Fatalf("limit %d, want %d", got, want)
			}
		}
		healthy = false
		for _, want := range []int{32, 16} {
			if got := figure(); got != want {
				t.Fatalf("limit %d, want %d", got, want)
			}
		}
		healthy = true
		for _, want := range []int{17, 18} {
			if got := figure(); got != want {
				t.Fatalf("limit %d, want %d", got, want)
			}
		}
		for {
			_, running, waiting := l.figures()
			if running+waiting == 0 {
				break
			}
			l.leave()
			synctest.Wait()
		}
	})
}

// TestLimitCancelled: whoever gives up waiting takes nobody's place.
func TestLimitCancelled(t *testing.T) {
	o := LimitOptions{Min: 1, Max: 1}
	o.EnsureDefaults()
	l := newLimit(o)
	must(t, l.enter(&turn{}))
	cancelled := errors.New("cancelled")
	if err := l.enter(&cancelledTurn{turn{}, cancelled, nil}); !errors.Is(err, cancelled) {
		t.Fatalf("err %v", err)
	}
	// Cancelled in the same moment in which it was let in.
	if err := l.enter(&cancelledTurn{turn{}, cancelled, l.leave}); !errors.Is(err, cancelled) {
		t.Fatalf("err %v", err)
	}
	if _, running, waiting := l.figures(); running != 0 || waiting != 0 {
		t.Fatalf("%d run, %d wait", running, waiting)
	}
}

type cancelledTurn struct {
	turn
	err    error
	before func()
}

func (c *cancelledTurn) Await(<-chan struct{}) error {
	if c.before != nil {
		c.before()
	}
	return c.err
}
