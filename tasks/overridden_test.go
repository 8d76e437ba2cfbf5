package tasks

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"replicanode/threadpool"
)

// shown are the changes as one line each.
func shown(r *Runner) (lines []string) {
	for _, o := range r.Overridden() {
		lines = append(lines, fmt.Sprintf("%s.%s=%s for %s by %s", o.Code, o.Field, o.Value, o.Instead, o.By))
	}
	return lines
}

func apply(t *testing.T, r *Runner, texts ...string) {
	t.Helper()
	if err := r.Apply(parsed(t, texts...)...); err != nil {
		t.Error(err)
	}
}

func parsed(t *testing.T, texts ...string) (all []Override) {
	t.Helper()
	for _, text := range texts {
		o, err := ParseOverride(text)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, o)
	}
	return all
}

func spec(r *Runner, code Code) Spec {
	all := r.Specs()
	return all[slices.IndexFunc(all, func(s Spec) bool { return s.Code == code })]
}

func TestAChangeIsTakenBackToTheConfiguredValue(t *testing.T) {
	flags := parsed(t, "gc_logs.period=1h", "gc_logs=common", "gc_logs.jitter=0.9", "gc_logs.jitter=default", "disk_stat.slice=0s")
	withRunner(t, threadpool.Options{Workers: 1}, Options{Overrides: flags}, func(t *testing.T, r *Runner) {
		expect := func(what string, want ...string) {
			t.Helper()
			if got := shown(r); !slices.Equal(got, want) {
				t.Errorf("%s: shows %q, want %q", what, got, want)
			}
		}
		configured := spec(r, GCLogs)
		if configured.Period != time.Hour || configured.Priority != threadpool.Common || configured.Jitter != 0.2 {
			t.Errorf("configured %+v", configured)
		}
		level, period := "gc_logs.priority=common for low by flag", "gc_logs.period=1h0m0s for 10s by flag"
		expect("flags", level, period)
		apply(t, r, "gc_logs.period=5m", "gc_logs.timeout=1s", "gc_logs.retry.busy.max_elapsed=1m")
		expect("set", level, "gc_logs.timeout=1s for 5m0s by operator", period, "gc_logs.period=5m0s for 1h0m0s by operator",
			"gc_logs.retry.busy.max_elapsed=1m0s for 0s by operator")
		apply(t, r, "gc_logs.period=default")
		expect("one back", level, "gc_logs.timeout=1s for 5m0s by operator", period, "gc_logs.retry.busy.max_elapsed=1m0s for 0s by operator")
		// Everything back and one thing set, at once, or none of it.
		if err := r.Apply(parsed(t, "gc_logs.*=default", "gc_logs.jitter=7")...); err == nil {
			t.Error("jitter 7 accepted")
		}
		expect("refused", level, "gc_logs.timeout=1s for 5m0s by operator", period, "gc_logs.retry.busy.max_elapsed=1m0s for 0s by operator")
		apply(t, r, "gc_logs.*=default", "gc_logs=high")
		expect("all back but one", level, "gc_logs.priority=high for common by operator", period)
		// What is set to what it is anyway is no change.
		apply(t, r, "gc_logs=common", "checkpoint.max_started=4")
		expect("set to the configured value", level, period)
		if got := spec(r, GCLogs); got != configured {
			t.Errorf("left %+v, configured %+v", got, configured)
		}
	})
}

// What follows from a change goes back with it.
func TestTakingBackAChangeTakesBackItsDefaults(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{}, func(t *testing.T, r *Runner) {
		before := spec(r, LoadPrivateLog)
		apply(t, r, "load_private_log.retry.other.initial=1s")
		if got := spec(r, LoadPrivateLog).Retry.Other; got.Max != time.Minute || got.Factor != 2 {
			t.Errorf("a retry of 1s has %+v", got)
		}
		apply(t, r, "load_private_log.retry.other.initial=default")
		if got := spec(r, LoadPrivateLog); got != before {
			t.Errorf("left %+v", got.Retry.Other)
		}
		// Bounds that hold only together may be given in any order.
		apply(t, r, "load_private_log.retry.busy.initial=30s", "load_private_log.retry.busy.max=1m")
		if err := r.Apply(parsed(t, "load_private_log.retry.busy.max=default")...); err == nil {
			t.Error("initial 30s goes with the configured max of 10s")
		}
		apply(t, r, "load_private_log.*=default")
		if got := spec(r, LoadPrivateLog); got != before {
			t.Errorf("left %+v", got)
		}
	})
}

func TestWhoMovedALevelIsShown(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 1}, Options{Overrides: parsed(t, "gc_logs=common")}, func(t *testing.T, r *Runner) {
		r.adaptive.moveLevel(Checkpoint, threadpool.Common, false)
		if err := r.SetFloor(Checkpoint, threadpool.High); err != nil {
			t.Fatal(err)
		}
		want := []string{"gc_logs.priority=common for low by flag", "checkpoint.priority=common for low by controller", "checkpoint.priority=high for common by floor"}
		if got := shown(r); !slices.Equal(got, want) {
			t.Errorf("shows %q", got)
		}
		// What stands below what an operator set moves nothing.
		apply(t, r, "checkpoint=high")
		if got := shown(r); !slices.Equal(got, []string{want[0], "checkpoint.priority=high for low by operator"}) {
			t.Errorf("with an operator's level it shows %q", got)
		}
		for o := ByFlag; o <= ByFloor; o++ {
			var back Origin
			if text, err := o.MarshalText(); err != nil || back.UnmarshalText(text) != nil || back != o {
				t.Errorf("%s is read as %s", o, back)
			}
		}
	})
}

// Every field is written as it is read.
func TestEveryFieldIsWrittenAsItIsRead(t *testing.T) {
	s := Spec{Code: "x", Priority: threadpool.High, MaxRunning: 1, MaxStarted: 2, MaxQueued: 3, Timeout: 4 * time.Second, Slice: 5 * time.Millisecond,
		Period: 6 * time.Minute, Jitter: 0.125}
	for k := Other; k < Permanent; k++ {
		n := time.Duration(k + 1)
		*s.Retry.For(k) = Backoff{Initial: n * time.Second, Max: n * time.Minute, Factor: 1.5 + float64(k), MaxAttempts: 7 + int(k), MaxElapsed: n * time.Hour}
	}
	back := Spec{Code: "x"}
	for _, field := range Fields() {
		if err := back.set(field, s.get(field)); err != nil {
			t.Error(err)
		}
	}
	if back != s {
		t.Errorf("%+v is read as %+v", s, back)
	}
	for _, text := range []string{"x.*=1", "x.nonsense=default", "x.retry.permanent.max=default", "x.retry.busy=default", "x.*"} {
		if o, err := ParseOverride(text); err == nil {
			t.Errorf("%s is read as %v", text, o)
		}
	}
	if err := (Override{"x", "retry.busy.colour", "1"}).validate(); !errors.Is(err, ErrUnknownField) {
		t.Errorf("unknown field: %v", err)
	}
}
