package duplication

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// countingJobs counts what is submitted.
type countingJobs struct {
	Jobs
	submitted atomic.Int64
}

func (c *countingJobs) Submit(ctx context.Context, code tasks.Code, key string, f threadpool.Func) (*tasks.Job, error) {
	c.submitted.Add(1)
	return c.Jobs.Submit(ctx, code, key, f)
}

// blockPool occupies every slot of the pool until the returned function is called.
func (h *harness) blockPool() (unblock func()) {
	h.tb.Helper()
	running, release := make(chan struct{}), make(chan struct{})
	for range 2 {
		_, err := h.pool.Submit(context.Background(), threadpool.Task{Priority: threadpool.High, Run: func(context.Context, *threadpool.Turn) error {
			running <- struct{}{}
			<-release
			return nil
		}})
		h.must(err)
	}
	<-running
	<-running
	return func() { close(release) }
}

func TestCaughtUpMeansNoLagAndNoMoreWork(t *testing.T) {
	h := newHarness(t, 1, Options{RecordInterval: time.Millisecond})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	p.write(10, 100)
	target.mustEqual(t, p)
	// The record of the progress is a decree too, and so are these; none of them is to be shipped.
	h.awaitStatus("progress is recorded", func(PipelineStatus) bool { confirmed, _ := p.Confirmed("backup"); return confirmed == 10 })
	for range 100 {
		p.append(nil, p.foreign(), p.user(clusterB, 100))
	}
	s := h.awaitStatus("lag 0", func(s PipelineStatus) bool { return s.Lag == Lag{} })
	if s.State != StateShipping || s.LimitedBy != LimitedByNothing || s.Confirmed != 10 || s.Applied != 311 {
		t.Fatalf("caught up: %+v", s)
	}
	h.stopSource()
	if p.records != 1 || target.batches > 10 || target.empty > 0 {
		t.Fatalf("%d records, %d batches, %d empty ones; want 1, at most 10, and none", p.records, target.batches, target.empty)
	}
}

func TestMuchThatIsNotShippedIsPassedOver(t *testing.T) {
	for name, o := range map[string]Options{"tail": {SkipDecrees: 100}, "log": {SkipDecrees: 100, TailBytes: -1}, "bytes": {SkipBytes: 100 * recordOverhead}} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, 1, o)
			h.startReceiver()
			p, target := h.partitions[0], h.targets[0]
			for range 120 {
				p.append(p.user(clusterB, 10))
			}
			h.startSource()
			for range 500 {
				p.append(p.foreign())
			}
			p.append(nil)
			target.await(t, "progress without mutations", func() bool { return target.progress >= 500 })
			target.mu.Lock()
			defer target.mu.Unlock()
			if len(target.got) != 0 || target.empty > 10 {
				t.Fatalf("%d mutations and %d batches arrived", len(target.got), target.empty)
			}
		})
	}
}

func TestLagOfAnAbsentRemoteIsReadFromTheLog(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1, RetryMin: time.Hour, RetryMax: time.Hour})
	p := h.partitions[0]
	old := time.Now().Add(-time.Hour)
	p.clock.Physical = func() time.Time { return old }
	p.append(nil, p.foreign(), p.user(clusterA, 100))
	p.clock.Physical = nil
	p.append(p.foreign())
	h.startSource()
	s := h.awaitStatus("lag of the past", func(s PipelineStatus) bool { return s.Lag.Seconds > 60 })
	if s.Lag.Seconds < 3599 || s.Lag.Seconds > 3700 || s.Lag.Decrees < 3 || s.Known || s.LimitedBy != LimitedByRemote {
		t.Fatalf("status of a remote never seen: %+v", s)
	}
	if _, known := h.source.Confirmed(0); known {
		t.Fatal("a remote that was never heard of counts as known")
	}
	p.write(5, 1000)
	if l, err := h.source.LagSample("backup"); err != nil || l.Decrees != 9 || l.Bytes < 5000 {
		t.Fatalf("sample: %+v, %v", l, err)
	}
}

func TestNoLagWhenOnlyProgressRecordsFollowARestart(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.startReceiver()
	h.startSource()
	p := h.partitions[0]
	p.write(10, 100)
	h.awaitStatus("confirmed", func(s PipelineStatus) bool { return s.Confirmed == 10 })
	h.stopSource() // records the progress
	h.stopReceiver()
	h.startSource()
	s := h.awaitStatus("lag 0", func(s PipelineStatus) bool { return s.Applied == 11 && s.Lag == Lag{} })
	if !s.Known || s.Confirmed != 10 {
		t.Fatalf("after a restart: %+v", s)
	}
}

func TestLagFollowsTheOldestUnconfirmed(t *testing.T) {
	h := newHarness(t, 1, Options{})
	h.startReceiver()
	h.startSource()
	p, target := h.partitions[0], h.targets[0]
	target.setHold(true)
	p.write(1, 1000)
	made := p.clock.Last().Time()
	target.await(t, "a batch", func() bool { return len(target.held) == 1 })
	l, err := h.source.LagSample("backup")
	if most := time.Since(made).Seconds(); err != nil || l.Seconds <= 0 || l.Seconds > most+0.002 || l.Decrees != 1 || l.Bytes < 1000 {
		t.Fatalf("sample: %+v, %v; at most %v s", l, err, most)
	}
	target.setHold(false)
	h.awaitStatus("lag 0", func(s PipelineStatus) bool { return s.Lag == Lag{} })
}

// A pipeline that waits for the remote submits nothing to the pool, however much there is to read.
func TestLimitedByRemoteAsksForNoScheduling(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1, BatchBytes: 1024, WindowBatches: 2, ReadAheadBytes: 1024})
	jobs := &countingJobs{Jobs: h.tasks}
	h.jobs = jobs
	h.startReceiver()
	p, target := h.partitions[0], h.targets[0]
	target.setHold(true)
	p.write(1000, 100)
	h.startSource()
	s := h.awaitStatus("window full", func(s PipelineStatus) bool { return s.LimitedBy == LimitedByRemote && s.InFlightBatches == 2 })
	if s.ReadAheadBytes > 3*1024 {
		t.Fatalf("read %d bytes ahead", s.ReadAheadBytes)
	}
	before := jobs.submitted.Load()
	for range 50 {
		p.write(10, 100)
	}
	if after := jobs.submitted.Load(); after != before {
		t.Fatalf("%d jobs were submitted while the window was full", after-before)
	}
	target.setHold(false)
	target.mustEqual(t, p)
}

func TestLimitedByScheduling(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1})
	h.startReceiver()
	h.startSource()
	h.awaitStatus("connected", func(s PipelineStatus) bool { return s.State == StateShipping })
	unblock := h.blockPool()
	p := h.partitions[0]
	p.write(10, 100)
	h.awaitStatus("limited by scheduling", func(s PipelineStatus) bool { return s.LimitedBy == LimitedByScheduling })
	unblock()
	h.targets[0].mustEqual(t, p)
}

func TestQueueFullIsRetried(t *testing.T) {
	h := newHarness(t, 1, Options{TailBytes: -1})
	h.jobs = &refusingJobs{Jobs: h.tasks, refuse: 5}
	h.startReceiver()
	h.startSource()
	p := h.partitions[0]
	p.write(10, 100)
	h.targets[0].mustEqual(t, p)
	if s := h.source.Status()[0]; s.Failures < 5 || s.LastError == "" {
		t.Fatalf("the refused submissions are not told: %+v", s)
	}
}

// refusingJobs refuses a number of submissions.
type refusingJobs struct {
	Jobs
	refuse int
}

func (r *refusingJobs) Submit(ctx context.Context, code tasks.Code, key string, f threadpool.Func) (*tasks.Job, error) {
	if r.refuse > 0 {
		r.refuse--
		return nil, threadpool.ErrQueueFull
	}
	return r.Jobs.Submit(ctx, code, key, f)
}
