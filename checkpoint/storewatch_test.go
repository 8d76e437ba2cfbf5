package checkpoint

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// flaky is a store that is away now and then, and knows it. Nothing is in it.
type flaky struct {
	Backend
	mu      sync.Mutex
	down    bool
	asked   int
	since   time.Time
	trouble error
}

var errAway = errors.New("no route to the store")

func (*flaky) Path(string) string { return "flaky" }

func (f *flaky) List(context.Context, string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked++
	switch {
	case !f.down:
		f.trouble = nil
	case f.trouble == nil:
		f.since, f.trouble = time.Now(), errAway
	}
	return nil, f.trouble
}

func (f *flaky) Clean(ctx context.Context, home string, _ Each) error {
	_, err := f.List(ctx, home)
	return err
}

func (f *flaky) Trouble() (time.Time, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.since, f.trouble
}

func (f *flaky) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *flaky) requests() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.asked
}

// untouched is a source to which nothing has been applied, and which counts how often it was to be copied.
type untouched struct {
	Source
	mu     sync.Mutex
	copies int
}

func (*untouched) ID() uint32 { return 0 }

func (u *untouched) PinApplied() (uint64, func(), error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.copies++
	return 0, func() {}, nil
}

func (u *untouched) count() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.copies
}

// TestTroubleOfTheStoreEnds soon after the store answers again, although the next checkpoint is far away; and what failed is made then. A store
// that answers is left alone.
func TestTroubleOfTheStoreEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, src := &flaky{down: true}, &untouched{}
		s, err := NewService(ServiceOptions{Store: NewStoreAt(store), Sources: []Source{src}, Runner: newRunner(t, 1), Renew: true})
		must(t, err)
		must(t, s.Start(ctx))
		defer func() { must(t, s.Stop(ctx)) }()
		time.Sleep(time.Hour)
		if _, err := s.Store().Trouble(); err == nil || store.requests() < int(time.Hour/askAway)/2 {
			t.Fatalf("trouble %v after %d requests", err, store.requests())
		}
		before := src.count()
		store.set(false)
		time.Sleep(askAway + time.Second)
		synctest.Wait()
		if _, err := s.Store().Trouble(); err != nil {
			t.Errorf("trouble after the end: %v", err)
		}
		if got := src.count(); got != before+1 {
			t.Errorf("%d copies were made up", got-before)
		}
		quiet := store.requests()
		time.Sleep(time.Hour)
		if got := store.requests(); got != quiet {
			t.Errorf("%d requests to a store that answers", got-quiet)
		}
	})
}

// hung is a source whose reads hang.
type hung struct {
	untouched
	gone chan struct{}
}

func (h *hung) PinApplied() (uint64, func(), error) {
	<-h.gone
	return h.untouched.PinApplied()
}

// TestRefusedIsNotRead: a partition on a disk that is known to hang is not begun.
func TestRefusedIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &untouched{}
		hangs := errors.New("the disk does not answer")
		s, err := NewService(ServiceOptions{Store: NewStoreAt(&flaky{}), Sources: []Source{src}, Runner: newRunner(t, 1),
			Refuse: func(uint32) error { return hangs }})
		must(t, err)
		must(t, s.Start(ctx))
		synctest.Wait()
		before := src.count()
		job, err := s.CreateNow(0, false)
		must(t, err)
		<-job.Done()
		if st := s.Status()[0]; !errors.Is(job.Err(), hangs) || src.count() != before || st.Failures != 1 || st.LastError != hangs.Error() {
			t.Errorf("%v after %d reads, status %+v", job.Err(), src.count()-before, st)
		}
		must(t, s.Stop(ctx))
	})
}

// TestHungReadsHoldNoSlot, not even when the task's time is over.
func TestHungReadsHoldNoSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &hung{gone: make(chan struct{})}
		release := sync.OnceFunc(func() { close(src.gone) })
		defer release()
		pool, err := threadpool.New(threadpool.Options{Workers: 1})
		must(t, err)
		runner, err := tasks.New(tasks.Options{Pool: pool, Specs: []tasks.Spec{
			{Code: tasks.Checkpoint, Help: "copy", Timeout: time.Minute}, {Code: "other", Help: "something else"}}})
		must(t, err)
		must(t, pool.Start(ctx))
		must(t, runner.Start(ctx))
		s, err := NewService(ServiceOptions{Store: NewStoreAt(&flaky{}), Sources: []Source{src}, Runner: runner})
		must(t, err)
		must(t, s.Start(ctx))
		job, err := s.CreateNow(0, false)
		must(t, err)
		for range 10 {
			time.Sleep(20 * time.Second)
			other, err := runner.Submit(ctx, "other", "", func(context.Context, *threadpool.Turn) error { return nil })
			must(t, err)
			select {
			case <-other.Done():
			case <-time.After(time.Minute):
				t.Fatal("the hung copy holds the slot")
			}
		}
		release()
		<-job.Done()
		must(t, s.Stop(ctx))
		must(t, runner.Stop(ctx))
		must(t, pool.Stop(ctx))
	})
}
