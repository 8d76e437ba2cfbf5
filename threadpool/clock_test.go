package threadpool

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"
)

const clockTolerance = int64(300 * time.Microsecond)

// follow compares the clock with the system's for a while.
func follow(t *testing.T, k *clock, d time.Duration) {
	t.Helper()
	last := int64(0)
	for end := k.system() + int64(d); ; {
		before := k.system()
		now := k.at(k.read())
		after := k.system()
		if now < before-clockTolerance || now > after+clockTolerance {
			t.Fatalf("the clock says %d between %d and %d", now, before, after)
		}
		if now < last {
			t.Fatalf("%d after %d", now, last)
		}
		if last = now; after > end {
			return
		}
	}
}

func TestClockFollowsTheSystem(t *testing.T) {
	var k clock
	k.init()
	follow(t, &k, 30*time.Millisecond)
	if k.odd >= maxOdd {
		t.Error("the counter was given up")
	}
}

func TestClockNeverGoesBack(t *testing.T) {
	var k clock
	k.init()
	early := k.read()
	for began := k.system(); k.system() < began+3*clockReach; {
	}
	late := k.at(k.read())
	if now := k.at(early); now < late {
		t.Errorf("a reading that waited for the lock is %d, after %d", now, late)
	}
}

func TestClockOutlivesAWrongScale(t *testing.T) {
	var k clock
	if k.init(); !k.counted {
		t.Skip("no counter")
	}
	for _, factor := range []float64{0.2, 5} {
		k.scale = uint64(float64(k.scale) * factor)
		for began := k.system(); k.system() < began+20*clockReach; {
			k.at(k.read())
		}
		follow(t, &k, 10*time.Millisecond)
	}
}

func TestClockGivesAnUnevenCounterUp(t *testing.T) {
	var k clock
	if k.init(); !k.counted {
		t.Skip("no counter")
	}
	for i := range 2 * maxOdd {
		k.rescale(int64(i%7+1)*1e6, clockReach)
	}
	if k.reach != 0 {
		t.Errorf("after %d odd readings the counter is still used", k.odd)
	}
	k.ticks, k.base = k.both()
	follow(t, &k, 5*time.Millisecond)
}

// In virtual time every time is exact, those of tasks that find others waiting too.
func TestClockInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		if p.clock.counted {
			t.Error("the counter is used beside a virtual clock")
		}
		if err := p.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		long := func(context.Context, *Turn) error { time.Sleep(10 * time.Millisecond); return nil }
		submit(t, p, Task{Code: "first", Run: long})
		synctest.Wait()
		for range 3 {
			submit(t, p, Task{Code: "next", Run: long})
			time.Sleep(100 * time.Microsecond)
		}
		if err := p.Drain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if h := p.Waits(Low); time.Duration(h.h.sum) != 10*time.Millisecond+20*time.Millisecond+30*time.Millisecond-300*time.Microsecond {
			t.Errorf("the waits add up to %v", time.Duration(h.h.sum))
		}
		if err := p.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// With others waiting, a task's wait is right to a few milliseconds, however long nothing has happened.
func TestRoughTimesAreNotOld(t *testing.T) {
	p, err := New(Options{Workers: 1, MaxQueued: Levels{10, 10, 10}})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	hold := func(context.Context, *Turn) error { <-release; return nil }
	for range 3 {
		submit(t, p, Task{Run: hold})
	}
	began := time.Now()
	wait, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	<-wait.Done()
	submit(t, p, Task{Code: "late", Run: hold})
	for _, w := range p.Explain(10).Waiting {
		if w.Code == "late" && time.Since(began)-w.For < 50*time.Millisecond {
			t.Errorf("a task submitted just now has waited for %v", w.For)
		}
	}
	close(release)
	if err := p.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestWaitingTasksAreSmall(t *testing.T) {
	if n := unsafe.Sizeof(entry{}); n > 128 {
		t.Errorf("an entry is %d bytes, more than two cache lines", n)
	}
}
