package tasks

import (
	"context"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"replicanode/threadpool"
)

func TestStepOfLag(t *testing.T) {
	l := newLoop(1)
	l.run(20*time.Second, nil)
	if len(l.decisions) != 0 {
		t.Errorf("decisions while calm: %v", l.decisions)
	}
	l.lagNeed = 1
	l.run(60*time.Second, nil)
	if l.levels[LoadPrivateLog] != threadpool.High || l.lag > 3 {
		t.Errorf("loading at %s, lag %.1f s", l.levels[LoadPrivateLog], l.lag)
	}
	l.lagNeed = 0.2
	l.run(60*time.Second, nil)
	if l.levels[LoadPrivateLog] != threadpool.Common || l.lag > 1 {
		t.Errorf("loading at %s, lag %.1f s after the surge", l.levels[LoadPrivateLog], l.lag)
	}
	l.golden(t, "step")
}

func TestRampOfForegroundLoad(t *testing.T) {
	l := newLoop(2)
	l.storm = 1
	l.run(4*time.Minute, func(at time.Duration, _ *Signals) { l.load = math.Min(1, at.Seconds()/120) })
	if l.low > 0.6 || l.p99 > 0.06 {
		t.Errorf("low keeps %.2f, write p99 %.0f ms", l.low, l.p99*1000)
	}
	l.load = 0.1
	l.run(4*time.Minute, nil)
	if l.low != 1 {
		t.Errorf("low keeps %.2f after the load has gone", l.low)
	}
	l.golden(t, "ramp")
}

func TestOscillatingSignalsDoNotMakeTheLeversOscillate(t *testing.T) {
	l := newLoop(3)
	l.storm, l.load, l.lagNeed = 1, 0.6, 0.8
	l.run(10*time.Minute, func(at time.Duration, s *Signals) {
		// Around both targets, with a period of two seconds.
		wave := math.Sin(at.Seconds() * math.Pi)
		s.Lag.Value = 2 * (1 + 0.6*wave)
		s.LagLimit = LimitScheduling
		s.ForegroundWrite.Value = 0.05 * (1 + 0.6*wave)
	})
	if n := l.moves; n > 60 {
		t.Errorf("%d moves in 10 minutes", n)
	}
	downs := 0
	var up time.Time
	for _, d := range l.decisions {
		switch {
		case d.Lever != string(LoadPrivateLog):
		case d.To == threadpool.High.String():
			up = d.At
		default:
			// Each stay at High lasts its dwell time, which doubles when it was needed again at once.
			if downs++; d.At.Sub(up) < 5*time.Second<<(downs-1) {
				t.Errorf("stay %d at high lasted %v", downs, d.At.Sub(up))
			}
		}
	}
	if downs > 8 {
		t.Errorf("loading was moved back %d times", downs)
	}
	l.golden(t, "oscillating")
}

func TestALoadThatIsJustTooMuchSettles(t *testing.T) {
	l := newLoop(4)
	l.storm, l.load = 1, 0.8
	l.run(5*time.Minute, nil)
	settled := l.moves
	l.run(10*time.Minute, nil)
	if n := l.moves - settled; n > 25 {
		t.Errorf("%d moves in ten minutes of steady load", n)
	}
	l.golden(t, "settle")
}

func TestMissingSignalsRestoreTheConfiguration(t *testing.T) {
	l := newLoop(5)
	l.lagNeed, l.storm, l.load, l.free, l.write = 1, 1, 1, 0.05, 0.0105
	l.run(30*time.Second, nil)
	if l.low == 1 || l.levels[GCLogs] != threadpool.High {
		t.Errorf("low %.2f, gc %s before", l.low, l.levels[GCLogs])
	}
	frozen := l.now
	l.run(20*time.Second, func(_ time.Duration, s *Signals) {
		s.Lag.At, s.CommonWait.At, s.ForegroundWrite.At, s.DiskFree.At = frozen, frozen, frozen, frozen
	})
	for _, s := range DefaultSpecs() {
		if l.levels[s.Code] != s.Priority {
			t.Errorf("%s left at %s", s.Code, l.levels[s.Code])
		}
	}
	if l.low != 1 {
		t.Errorf("low left at %.2f", l.low)
	}
	l.golden(t, "missing")
}

func TestRemoteLimitIsLeftAlone(t *testing.T) {
	l := newLoop(6)
	l.lagNeed, l.limit = 1, LimitRemote
	l.run(5*time.Minute, nil)
	if len(l.decisions) != 0 || l.lag < 10 {
		t.Errorf("lag %.0f s, decisions %v", l.lag, l.decisions)
	}
}

// A slow remote that takes something now and then lets loading wait for a slot for a moment each time.
func TestRemoteLimitWithMomentsOfSchedulingIsLeftAlone(t *testing.T) {
	l := newLoop(1)
	now := time.Unix(5000, 0)
	for i := range 100 {
		s := Signals{Lag: Measured(9, now), LagLimit: LimitRemote}
		if i%2 != 0 {
			s.LagLimit = LimitScheduling
		}
		l.policy.step(now, s)
		now = now.Add(250 * time.Millisecond)
	}
	if len(l.decisions) != 0 {
		t.Errorf("decisions %v", l.decisions)
	}
}

// Once the remote limits the lag, loading goes back to its level: it would only take slots from others.
func TestLoadingIsMovedBackWhenTheRemoteLimitsIt(t *testing.T) {
	for _, limit := range []Limit{LimitRemote, LimitDisk} {
		l := newLoop(1)
		now := time.Unix(5000, 0)
		step := func(limit Limit) threadpool.Priority {
			for range 100 {
				now = now.Add(250 * time.Millisecond)
				l.policy.step(now, Signals{Lag: Measured(9, now), LagLimit: limit})
			}
			return l.levels[LoadPrivateLog]
		}
		if got := step(LimitScheduling); got != threadpool.High {
			t.Errorf("limited by scheduling: loading at %s", got)
		}
		if got := step(limit); got != threadpool.Common {
			t.Errorf("limited by the %s: loading at %s", limit, got)
		}
	}
}

// What an operator changes while Low is shrunk is what the controller gives back.
func TestAnOperatorsChangeOutlastsTheController(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 8}, Options{}, func(t *testing.T, r *Runner) {
		var calm atomic.Bool
		r.SetSignals(func() Signals {
			write := 1.0
			if calm.Load() {
				write = 0.01
			}
			return Signals{ForegroundWrite: Measured(write, time.Now())}
		})
		r.SetAdaptive(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		s := r.pool.Settings()
		if s.MaxRunning[threadpool.Low] != 1 {
			t.Errorf("low keeps %+v", s)
		}
		s.MaxRunning[threadpool.Low], s.IO = 5, threadpool.IORate{BytesPerSecond: 1 << 30, LowCap: 1 << 29}
		if err := r.pool.Apply(s); err != nil {
			t.Fatal(err)
		}
		calm.Store(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := r.pool.Settings(); s.MaxRunning[threadpool.Low] != 5 || s.IO.BytesPerSecond != 1<<30 || s.IO.LowCap != 1<<29 {
			t.Errorf("the operator's change has become %+v", s)
		}
	})
}

// What Low kept off before it was shrunk, it keeps off afterwards, with fewer slots than there were, too.
func TestLowIsGivenBackNoMoreThanThereIs(t *testing.T) {
	for workers, most := range map[int]int{1: 1, 2: 1, 3: 2, 4: 3, 8: 3} {
		withRunner(t, threadpool.Options{Workers: 4, MaxRunning: threadpool.Levels{3}}, Options{}, func(t *testing.T, r *Runner) {
			var calm atomic.Bool
			r.SetSignals(func() Signals {
				if calm.Load() {
					return Signals{ForegroundWrite: Measured(0.01, time.Now())}
				}
				return Signals{ForegroundWrite: Measured(1, time.Now())}
			})
			r.SetAdaptive(true)
			time.Sleep(10*time.Second + time.Millisecond)
			synctest.Wait()
			if err := r.pool.SetWorkers(workers); err != nil {
				t.Fatal(err)
			}
			calm.Store(true)
			for range 600 {
				time.Sleep(time.Second)
				synctest.Wait()
				if low := r.pool.Settings().MaxRunning[threadpool.Low]; low > most {
					t.Errorf("%d of %d slots for low", low, workers)
					break
				}
			}
			if low := r.pool.Settings().MaxRunning[threadpool.Low]; low != most {
				t.Errorf("in the end low has %d of %d slots, not %d", low, workers, most)
			}
		})
	}
}

// While the disk is low, log GC is at High; once that is over, logs that are still too big keep it at Common.
func TestBigLogsOutlastALowDisk(t *testing.T) {
	l := newLoop(1)
	l.policy.o.LogBytesTarget = 1000
	now := time.Unix(5000, 0)
	step := func(free, logs float64) threadpool.Priority {
		for range 100 {
			now = now.Add(250 * time.Millisecond)
			l.policy.step(now, Signals{DiskFree: Measured(free, now), LogBytes: Measured(logs, now)})
		}
		return l.levels[GCLogs]
	}
	for _, tc := range []struct {
		free, logs float64
		want       threadpool.Priority
	}{
		{0.5, 2000, threadpool.Common}, {0.1, 2000, threadpool.High}, {0.5, 2000, threadpool.Common}, {0.5, 100, threadpool.Low},
		{0.1, 100, threadpool.High}, {0.1, 2000, threadpool.High}, {0.5, 100, threadpool.Low},
	} {
		if got := step(tc.free, tc.logs); got != tc.want {
			t.Errorf("disk %v free, %v bytes of logs: log GC at %s, want %s", tc.free, tc.logs, got, tc.want)
		}
	}
}

func TestRulesOneByOne(t *testing.T) {
	now := time.Unix(5000, 0)
	base := func() Signals {
		return Signals{Lag: Measured(0, now), CommonWait: Measured(0, now), ForegroundWrite: Measured(0, now), DiskFree: Measured(0.5, now), LogBytes: Measured(0, now), CheckpointAge: Measured(0, now)}
	}
	for _, tc := range []struct {
		name   string
		change func(s *Signals)
		code   Code
		want   threadpool.Priority
		reason AdaptiveReason
	}{
		{"lag", func(s *Signals) { s.Lag.Value, s.LagLimit = 9, LimitScheduling }, LoadPrivateLog, threadpool.High, LagOverTarget},
		{"disk", func(s *Signals) { s.DiskFree.Value = 0.1 }, GCValues, threadpool.High, DiskLow},
		{"checkpoint", func(s *Signals) { s.CheckpointAge.Value = 1e5 }, Checkpoint, threadpool.Common, CheckpointOld},
	} {
		l := newLoop(1)
		s := base()
		tc.change(&s)
		for range scheduledTicks {
			l.policy.step(now, s)
		}
		if l.levels[tc.code] != tc.want || len(l.decisions) == 0 || l.decisions[0].Reason != tc.reason {
			t.Errorf("%s: %s at %s, decisions %v", tc.name, tc.code, l.levels[tc.code], l.decisions)
		}
		again := len(l.decisions)
		l.policy.step(now.Add(time.Second), s)
		if len(l.decisions) != again {
			t.Errorf("%s: decided twice", tc.name)
		}
	}
	// Space comes before freshness: while the disk is low, loading is not promoted, and GC is above it.
	l := newLoop(1)
	s := base()
	s.Lag.Value, s.LagLimit = 9, LimitScheduling
	for range scheduledTicks {
		l.policy.step(now, s)
	}
	s.DiskFree.Value = 0.1
	l.policy.step(now, s)
	if l.levels[LoadPrivateLog] != threadpool.Common || l.levels[GCLogs] != threadpool.High {
		t.Errorf("disk low: loading %s, gc %s", l.levels[LoadPrivateLog], l.levels[GCLogs])
	}
}

// Every switch has its hysteresis: a signal that is back at its target, but not well beyond it, changes nothing. One that is no number is
// missing.
func TestEverySwitchHasHysteresis(t *testing.T) {
	const logs, age = 1e9, 7200.0
	for _, tc := range []struct {
		code                 Code
		signal               func(s *Signals) *Signal
		over, within, beyond float64
	}{
		{LoadPrivateLog, func(s *Signals) *Signal { return &s.Lag }, 3, 1.6, 1.4},
		{GCValues, func(s *Signals) *Signal { return &s.DiskFree }, 0.14, 0.18, 0.19},
		{GCLogs, func(s *Signals) *Signal { return &s.LogBytes }, logs * 1.1, logs * 0.8, logs * 0.7},
		{Checkpoint, func(s *Signals) *Signal { return &s.CheckpointAge }, age * 1.1, age * 0.8, age * 0.7},
	} {
		l := newLoop(1)
		l.policy.o.LogBytesTarget = logs
		now := time.Unix(5000, 0)
		step := func(value float64) (changes int) {
			before := len(l.decisions)
			for range 100 {
				now = now.Add(250 * time.Millisecond)
				s := Signals{LagLimit: LimitScheduling}
				*tc.signal(&s) = Measured(value, now)
				l.policy.step(now, s)
			}
			return len(l.decisions) - before
		}
		if on, stays, off := step(tc.over), step(tc.within), step(tc.beyond); on == 0 || stays != 0 || off != on {
			t.Errorf("%s: %d changes over the target, %d within the hysteresis, %d beyond it", tc.code, on, stays, off)
		}
		step(tc.over)
		if n := step(math.NaN()); n == 0 || l.decisions[len(l.decisions)-1].Reason != SignalsStale {
			t.Errorf("%s: %d changes for a signal that is no number", tc.code, n)
		}
	}
}

// The controller only raises levels: neither a higher configured one nor one that an operator sets meanwhile is lowered by a rule.
func TestARuleNeverLowersALevel(t *testing.T) {
	logs := func() Signals { return Signals{LogBytes: Measured(2000, time.Now())} }
	withRunner(t, threadpool.Options{Workers: 2}, Options{Adaptive: AdaptiveOptions{Enabled: true, Source: logs, LogBytesTarget: 1000}}, func(t *testing.T, r *Runner) {
		inForce := func() threadpool.Priority {
			time.Sleep(20 * time.Second)
			synctest.Wait()
			for _, s := range r.Stats() {
				if s.Code == GCLogs {
					return s.Priority
				}
			}
			return threadpool.Low
		}
		if p := inForce(); p != threadpool.Common {
			t.Errorf("big logs: log GC at %s", p)
		}
		if err := r.SetPriority(GCLogs, threadpool.High); err != nil {
			t.Fatal(err)
		}
		if p := inForce(); p != threadpool.High {
			t.Errorf("set to high meanwhile: log GC at %s", p)
		}
		r.SetAdaptive(false)
		r.SetAdaptive(true)
		if p, st := inForce(), r.AdaptiveStatus(); p != threadpool.High || len(st.Levels) != 0 {
			t.Errorf("configured high: log GC at %s, %+v", p, st)
		}
	})
}

// Each phase is judged by its own metric, as far as it is beyond its target, against the best of the policies that leave the levers where they are.
func TestPhasesAgainstStaticPolicies(t *testing.T) {
	phases := []struct {
		name   string
		set    func(p *plant)
		metric func(p *plant) float64 // lower is better
	}{
		{"calm", func(p *plant) { p.lagNeed, p.storm, p.load, p.write = 0.2, 0.3, 0.3, 0 }, func(p *plant) float64 { return max(p.p99, 0.05) + p.lag }},
		{"lag surge", func(p *plant) { p.lagNeed = 1.0 }, func(p *plant) float64 { return max(p.lag, 2.5) }},
		{"foreground overload", func(p *plant) { p.lagNeed, p.storm, p.load = 0.2, 1, 1 }, func(p *plant) float64 { return max(p.p99, 0.05) }},
		{"disk low", func(p *plant) { p.storm, p.load, p.write = 0.2, 0.2, 0.004; p.free = 0.14 }, func(p *plant) float64 { return 1 - min(p.free, 0.15) }},
	}
	const length = 2 * time.Minute
	statics := []func(p *plant){
		func(*plant) {},
		func(p *plant) { p.levels[LoadPrivateLog] = threadpool.High },
		func(p *plant) { p.levels[GCLogs] = threadpool.High },
		func(p *plant) { p.low = 0.3 },
	}
	best := make([]float64, len(phases))
	for i := range best {
		best[i] = math.Inf(1)
	}
	for _, apply := range statics {
		p := newPlant(9)
		apply(p)
		for i, ph := range phases {
			ph.set(p)
			best[i] = math.Min(best[i], average(p, ph.metric, length, func() { p.step(0.25) }))
		}
	}
	l := newLoop(9)
	for i, ph := range phases {
		ph.set(l.plant)
		got := average(l.plant, ph.metric, length, func() { l.run(l.policy.o.Tick, nil) })
		if got > 1.1*best[i] {
			t.Errorf("%s: %.4f, best static policy %.4f", ph.name, got, best[i])
		}
	}
	l.golden(t, "phases")
}

// average is a metric's mean over the second half of a phase, when its start has been dealt with.
func average(p *plant, metric func(*plant) float64, d time.Duration, step func()) float64 {
	sum, n := 0.0, 0
	total := int(d / (250 * time.Millisecond))
	for i := range total {
		step()
		if i >= total/2 {
			sum += metric(p)
			n++
		}
	}
	return sum / float64(n)
}

func TestControllerOnARealPool(t *testing.T) {
	withRunner(t, threadpool.Options{Workers: 8}, Options{}, func(t *testing.T, r *Runner) {
		var s Signals
		lag, free := 9.0, 0.5
		r.SetSignals(func() Signals {
			now := time.Now()
			s = Signals{Lag: Measured(lag, now), LagLimit: LimitScheduling, ForegroundWrite: Measured(1, now), DiskFree: Measured(free, now)}
			return s
		})
		time.Sleep(10 * time.Second)
		if st := r.AdaptiveStatus(); st.Enabled || len(st.Decisions) != 0 {
			t.Errorf("it acts while off: %+v", st)
		}
		r.SetAdaptive(true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		set := r.pool.Settings()
		if set.MaxRunning[threadpool.Low] != 1 || set.IO.LowCap == 0 {
			t.Errorf("low keeps %+v", set)
		}
		for _, c := range r.Stats() {
			if c.Code == LoadPrivateLog && (c.Priority != threadpool.High || c.Configured != threadpool.Common) {
				t.Errorf("loading at %s, configured %s", c.Priority, c.Configured)
			}
		}
		j, err := r.Submit(context.Background(), LoadPrivateLog, "", nop)
		if err != nil {
			t.Fatal(err)
		}
		<-j.Done()
		d := r.Explain(1).Pool.Decisions
		if len(d) != 1 || d[0].Priority != threadpool.High || d[0].Cause != threadpool.CauseMoved {
			t.Errorf("loading ran as %+v", d)
		}
		if x := r.Explain(1).String(); !strings.Contains(x, "load_private_log to high") {
			t.Errorf("explanation: %s", x)
		}
		r.SetSignals(nil)
		time.Sleep(time.Second)
		synctest.Wait()
		if st := r.AdaptiveStatus(); st.Low != 1 || len(st.Levels) != 0 {
			t.Errorf("without a source it keeps %+v", st)
		}
		r.SetAdaptive(false)
		if set := r.pool.Settings(); set.MaxRunning[threadpool.Low] != 0 || set.IO.LowCap != 0 || set.IO.BytesPerSecond != 0 {
			t.Errorf("off leaves %+v", set)
		}
		for _, c := range r.Stats() {
			if c.Priority != c.Configured {
				t.Errorf("off leaves %s at %s", c.Code, c.Priority)
			}
		}
	})
}
