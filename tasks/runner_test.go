package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/threadpool"
)

// withRunner runs f with a started pool and runner in virtual time.
func withRunner(t *testing.T, po threadpool.Options, o Options, f func(t *testing.T, r *Runner)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		pool, err := threadpool.New(po)
		if err != nil {
			t.Fatal(err)
		}
		if err := pool.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		o.Pool, o.Seed, o.Registerer = pool, 1, prometheus.NewRegistry()
		r, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		f(t, r)
		if err := r.Stop(context.Background()); err != nil {
			t.Error(err)
		}
		if err := pool.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func nop(context.Context, *threadpool.Turn) error { return nil }

func TestDefaultSpecsAreValidAndRanked(t *testing.T) {
	want := map[Code]threadpool.Priority{
		OpenReplica: threadpool.High, LoadPrivateLog: threadpool.Common, DiskStat: threadpool.Low, GCLogs: threadpool.Low,
		GCReplicas: threadpool.Low, GCValues: threadpool.Low, Checkpoint: threadpool.Low,
	}
	for _, s := range DefaultSpecs() {
		s.EnsureDefaults()
		if err := s.Validate(); err != nil {
			t.Error(err)
		}
		if s.Help == "" || want[s.Code] != s.Priority {
			t.Errorf("%s: help %q, priority %s", s.Code, s.Help, s.Priority)
		}
		delete(want, s.Code)
	}
	if len(want) > 0 {
		t.Errorf("no spec for %v", want)
	}
}

func TestSubmitRunsAndReports(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 2}, Options{}, func(t *testing.T, r *Runner) {
		j, err := r.Submit(t.Context(), Checkpoint, "3", nop)
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Wait(t.Context()); err != nil || j.Err() != nil || j.Key() != "3" || j.Code() != Checkpoint {
			t.Errorf("job ended with %v", err)
		}
		boom := Mark(Permanent, errors.New("boom"))
		j, err = r.Submit(t.Context(), Checkpoint, "3", func(context.Context, *threadpool.Turn) error { return boom })
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Wait(t.Context()); !errors.Is(err, boom) {
			t.Errorf("job ended with %v", err)
		}
		if _, err := r.Submit(t.Context(), "nonsense", "", nop); !errors.Is(err, ErrUnknownCode) {
			t.Errorf("unknown code: %v", err)
		}
		for _, s := range r.Stats() {
			if s.Code == Checkpoint && (s.Done != 1 || s.Failed != 1 || s.FailedAttempts["permanent"] != 1 || s.Wait.Count != 2 || s.LastError == "") {
				t.Errorf("stats %+v", s)
			}
		}
		if x := r.Explain(0); len(x.Pool.Decisions) != 2 || !strings.Contains(x.String(), "adaptive off") {
			t.Errorf("explanation %s", x)
		}
	})
}

func TestKeysOfDifferentCodesAreIndependent(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 4}, Options{}, func(t *testing.T, r *Runner) {
		ch := make(chan struct{})
		var running, most atomic.Int32
		block := func(context.Context, *threadpool.Turn) error {
			most.Store(max(most.Load(), running.Add(1)))
			<-ch
			running.Add(-1)
			return nil
		}
		for _, c := range []Code{LoadPrivateLog, GCLogs, LoadPrivateLog, GCLogs} {
			if _, err := r.Submit(context.Background(), c, "7", block); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := running.Load(); n != 2 {
			t.Errorf("%d run, want one of each code", n)
		}
		close(ch)
		synctest.Wait()
	})
}

func TestRetryByKindOfError(t *testing.T) {
	b := Backoff{Initial: time.Second, Max: 8 * time.Second, Factor: 2, MaxAttempts: 4}
	specs := []Spec{{Code: "x", Retry: RetryPolicy{Busy: b, Other: Backoff{Initial: time.Second, Factor: 1, Max: time.Second, MaxElapsed: 10 * time.Second}}}}
	for _, tc := range []struct {
		err      error
		attempts int
	}{
		{Mark(Busy, errors.New("busy")), 4},
		{Mark(Conflict, errors.New("conflict")), 1},
		{Mark(Permanent, errors.New("no")), 1},
		{fmt.Errorf("wrapped: %w", context.DeadlineExceeded), 1},
		{errors.New("other"), -1},
	} {
		withRunner(t, threadpool.Options{Workers: 1}, Options{Specs: specs}, func(t *testing.T, r *Runner) {
			began := time.Now()
			var starts []time.Time
			j, err := r.Submit(context.Background(), "x", "k", func(context.Context, *threadpool.Turn) error {
				starts = append(starts, time.Now())
				return tc.err
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := j.Wait(context.Background()); !errors.Is(err, tc.err) {
				t.Errorf("ended with %v", err)
			}
			if tc.attempts > 0 && len(starts) != tc.attempts {
				t.Errorf("%v: %d attempts, want %d", tc.err, len(starts), tc.attempts)
			}
			if tc.attempts < 0 && (time.Since(began) > 10*time.Second || len(starts) < 8) {
				t.Errorf("%d attempts in %v", len(starts), time.Since(began))
			}
			for i := 1; i < len(starts) && tc.attempts > 0; i++ {
				if wait := starts[i].Sub(starts[i-1]); wait > b.bound(i) {
					t.Errorf("wait %d is %v, more than %v", i, wait, b.bound(i))
				}
			}
		})
	}
}

// Waits are drawn from all of 0 to the bound, which grows with each failure up to the greatest.
func TestATimeoutThatTheContextToldIsRetriedAsOne(t *testing.T) {
	spec := Spec{Code: "slow", Timeout: time.Second, Retry: RetryPolicy{Timeout: Backoff{Initial: time.Second, MaxAttempts: 3}}}
	withRunner(t, threadpool.Options{Workers: 1}, Options{Specs: []Spec{spec}}, func(t *testing.T, r *Runner) {
		attempts := 0
		j, err := r.Submit(context.Background(), "slow", "", func(ctx context.Context, _ *threadpool.Turn) error {
			attempts++
			<-ctx.Done()
			return ctx.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Wait(context.Background()); attempts != 3 || KindOf(err) != Timeout {
			t.Errorf("%d attempts, then %v", attempts, err)
		}
		if _, err := r.Every("nobody", "", nop); !errors.Is(err, ErrUnknownCode) || strings.Contains(err.Error(), "\n") {
			t.Errorf("unknown code: %q", err)
		}
	})
}

func TestJitterIsFull(t *testing.T) {
	p := RetryPolicy{Busy: Backoff{Initial: time.Second, Max: 3 * time.Second, Factor: 2}}
	for _, part := range []float64{0, 0.25, 0.999} {
		var r retries
		for i, bound := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 3 * time.Second} {
			wait, again := r.next(&p, Busy, time.Unix(5000, 0), func() float64 { return part })
			if want := time.Duration(part * float64(bound)); !again || wait != want {
				t.Errorf("failure %d: again %v after %v, want %v", i+1, again, wait, want)
			}
		}
	}
}

func TestChangesAreAllMadeOrNone(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{}, func(t *testing.T, r *Runner) {
		before := r.Specs()
		good := Override{Code: Checkpoint, Field: "priority", Value: "high"}
		for _, bad := range []Override{{Code: Checkpoint, Field: "jitter", Value: "2"}, {Code: GCLogs, Field: "timeout", Value: "-1s"}, {Code: "nonsense", Field: "timeout", Value: "1s"}} {
			if err := r.Apply(good, bad); err == nil {
				t.Errorf("%s accepted", bad)
			}
			if !slices.Equal(r.Specs(), before) {
				t.Errorf("%s was refused, and left %+v", bad, r.Specs())
			}
		}
	})
}

func TestWaitingRetryHoldsNothingAndCanBeCancelled(t *testing.T) {
	specs := []Spec{{Code: "x", Retry: RetryPolicy{Other: Backoff{Initial: time.Hour, Max: time.Hour, Factor: 1}}}}
	withRunner(t, threadpool.Options{Workers: 1}, Options{Specs: specs}, func(t *testing.T, r *Runner) {
		j, err := r.Submit(context.Background(), "x", "a", func(context.Context, *threadpool.Turn) error { return errors.New("no") })
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		other, err := r.Submit(context.Background(), "x", "b", nop)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if other.Err() != nil || !closed(other.Done()) {
			t.Error("a waiting retry keeps another job from running")
		}
		j.Cancel()
		if err := j.Wait(context.Background()); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled job ended with %v", err)
		}
	})
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestPeriodicNeverOverlapsAndCoalesces(t *testing.T) {
	specs := []Spec{{Code: "stat", Period: 10 * time.Second, Jitter: 0.5}}
	withRunner(t, threadpool.Options{Workers: 4}, Options{Specs: specs}, func(t *testing.T, r *Runner) {
		var running, runs atomic.Int32
		p, err := r.Every("stat", "", func(_ context.Context, turn *threadpool.Turn) error {
			if running.Add(1) > 1 {
				t.Error("overlaps itself")
			}
			defer running.Add(-1)
			runs.Add(1)
			return turn.Sleep(7 * time.Second)
		})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := runs.Load(); n < 28 || n > 45 {
			t.Errorf("%d runs in 10 min, want about 35", n)
		}
		// Any number of triggers during a run make one more.
		p.Trigger()
		synctest.Wait()
		before := runs.Load()
		for range 10 {
			p.Trigger()
		}
		time.Sleep(8 * time.Second)
		synctest.Wait()
		if n := runs.Load() - before; n != 1 {
			t.Errorf("ten triggers made %d runs", n)
		}
		p.Stop()
		before = runs.Load()
		time.Sleep(time.Hour)
		if runs.Load() != before {
			t.Error("runs after Stop")
		}
	})
}

func TestPeriodicOnTriggerOnly(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{Specs: []Spec{{Code: "x"}}}, func(t *testing.T, r *Runner) {
		var runs atomic.Int32
		p, err := r.Every("x", "", func(context.Context, *threadpool.Turn) error { runs.Add(1); return nil })
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		p.Trigger()
		synctest.Wait()
		if runs.Load() != 1 {
			t.Errorf("%d runs", runs.Load())
		}
		if err := r.Apply(Override{"x", "period", "1s"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		if runs.Load() != 11 {
			t.Errorf("%d runs after setting a period", runs.Load())
		}
		p.Stop()
		p.Trigger()
		p.Stop()
	})
}

func TestOverridesAtRunTime(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{}, func(t *testing.T, r *Runner) {
		release := make(chan struct{})
		var order []Code
		note := func(c Code) threadpool.Func {
			return func(context.Context, *threadpool.Turn) error { order = append(order, c); return nil }
		}
		if _, err := r.Submit(context.Background(), OpenReplica, "", func(context.Context, *threadpool.Turn) error { <-release; return nil }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, c := range []Code{DiskStat, LoadPrivateLog, Checkpoint} {
			if _, err := r.Submit(context.Background(), c, "", note(c)); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.SetPriority(Checkpoint, threadpool.High); err != nil {
			t.Fatal(err)
		}
		if err := r.SetPriority(DiskStat, threadpool.Common); err != nil {
			t.Fatal(err)
		}
		close(release)
		synctest.Wait()
		if got := fmt.Sprint(order); got != "[checkpoint disk_stat load_private_log]" {
			t.Errorf("ran %s", got)
		}
		for _, s := range r.Specs() {
			if s.Code == Checkpoint && s.Priority != threadpool.High {
				t.Errorf("spec shows %s", s.Priority)
			}
		}
	})
}

// A floor outlasts what operators and the controller do, and ends at what they left.
func TestFloorHolds(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{}, func(t *testing.T, r *Runner) {
		at := func() threadpool.Priority {
			for _, s := range r.Stats() {
				if s.Code == GCLogs {
					return s.Priority
				}
			}
			return 255
		}
		step := func(what string, err error, want threadpool.Priority) {
			t.Helper()
			if got := at(); err != nil || got != want {
				t.Errorf("after %s: %s, %v; want %s", what, got, err, want)
			}
		}
		step("a floor", r.SetFloor(GCLogs, threadpool.High), threadpool.High)
		step("an operator's change", r.SetPriority(GCLogs, threadpool.Common), threadpool.High)
		r.adaptive.moveLevel(GCLogs, threadpool.Common, false)
		r.adaptive.moveLevel(GCLogs, threadpool.Low, true)
		step("the controller's", nil, threadpool.High)
		var order []Code
		release := make(chan struct{})
		if _, err := r.Submit(context.Background(), OpenReplica, "", func(context.Context, *threadpool.Turn) error { <-release; return nil }); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		for _, c := range []Code{LoadPrivateLog, GCLogs} {
			if _, err := r.Submit(context.Background(), c, "", func(context.Context, *threadpool.Turn) error { order = append(order, c); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		close(release)
		synctest.Wait()
		if got := fmt.Sprint(order); got != "[gc_logs load_private_log]" {
			t.Errorf("ran %s", got)
		}
		step("the floor's end", r.SetFloor(GCLogs, threadpool.Low), threadpool.Common)
		if err := r.SetFloor("gardening", threadpool.High); !errors.Is(err, ErrUnknownCode) {
			t.Errorf("a floor of an unknown task: %v", err)
		}
	})
}

func TestParseOverride(t *testing.T) {
	for in, want := range map[string]string{
		"checkpoint=high":                         "checkpoint.priority=high",
		"checkpoint.priority=COMMON":              "checkpoint.priority=COMMON",
		"gc_logs.period=1m30s":                    "gc_logs.period=1m30s",
		"gc_logs.retry.busy.max_attempts=3":       "gc_logs.retry.busy.max_attempts=3",
		"disk_stat.jitter=0.5":                    "disk_stat.jitter=0.5",
		"checkpoint.max_started=2":                "checkpoint.max_started=2",
		"load_private_log.retry.other.factor=1.5": "load_private_log.retry.other.factor=1.5",
	} {
		o, err := ParseOverride(in)
		if err != nil || o.String() != want {
			t.Errorf("%s: %v, %v", in, o, err)
			continue
		}
		if _, err := ApplyOverrides(DefaultSpecs(), []Override{o}); err != nil {
			t.Error(err)
		}
	}
	for _, in := range []string{"", "=", "x=", "=low", "checkpoint", "checkpoint=urgent", "checkpoint.nonsense=1", "checkpoint.period=fast", "checkpoint.retry.busy=1",
		"checkpoint.retry.permanent.initial=1s", "checkpoint.retry.busy.nonsense=1", "Check Point=low", "checkpoint.=low", ".priority=low"} {
		if o, err := ParseOverride(in); err == nil {
			t.Errorf("%q accepted as %v", in, o)
		}
	}
	for _, in := range []string{"nonsense=low", "checkpoint.period=-1s", "checkpoint.jitter=2", "checkpoint.jitter=NaN", "checkpoint.retry.busy.factor=0.5", "checkpoint.max_running=-1", "checkpoint.retry.busy.max=1ms"} {
		o, err := ParseOverride(in)
		if err != nil {
			t.Errorf("%q: %v", in, err)
			continue
		}
		if _, err := ApplyOverrides(DefaultSpecs(), []Override{o}); err == nil {
			t.Errorf("%q applied", in)
		}
	}
}

func FuzzParseOverride(f *testing.F) {
	for _, s := range []string{"checkpoint=high", "gc_logs.retry.busy.max_attempts=3", "a.b.c=d", "=.="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o, err := ParseOverride(s)
		if err != nil {
			return
		}
		again, err := ParseOverride(o.String())
		if err != nil || again != o {
			t.Errorf("%q reads as %v, which reads as %v, %v", s, o, again, err)
		}
	})
}

func TestStopCancelsJobs(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{}, func(t *testing.T, r *Runner) {
		j1, err := r.Submit(context.Background(), Checkpoint, "1", func(ctx context.Context, turn *threadpool.Turn) error { return turn.Sleep(time.Hour) })
		if err != nil {
			t.Fatal(err)
		}
		j2, err := r.Submit(context.Background(), Checkpoint, "1", nop)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if err := r.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(j1.Err(), context.Canceled) || !errors.Is(j2.Err(), context.Canceled) {
			t.Errorf("jobs ended with %v and %v", j1.Err(), j2.Err())
		}
		if _, err := r.Submit(t.Context(), Checkpoint, "", nop); !errors.Is(err, ErrStopped) {
			t.Errorf("submit after stop: %v", err)
		}
		if _, err := r.Every(Checkpoint, "", nop); !errors.Is(err, ErrStopped) {
			t.Errorf("every after stop: %v", err)
		}
	})
}

func TestOptionsAreValidated(t *testing.T) {
	pool, err := threadpool.New(threadpool.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []Options{
		{},
		{Pool: pool, Specs: []Spec{{Code: "Bad"}}},
		{Pool: pool, Specs: []Spec{{Code: "a"}, {Code: "a"}}},
		{Pool: pool, Specs: []Spec{{Code: "a", Jitter: 2}}},
		{Pool: pool, Adaptive: AdaptiveOptions{Tick: time.Nanosecond}},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%+v accepted", o)
		}
	}
	if err := pool.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
