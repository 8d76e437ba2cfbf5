package checkpoint

import (
	"errors"
	runtimemetrics "runtime/metrics"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// paced is a pacer for two processors whose surroundings a test sets.
type paced struct {
	*Pace
	busy   bool
	waited time.Duration
	age    time.Duration // of all copies
	idle   float64       // below 0: unknown
}

func newPaced(share, least float64) *paced {
	p := &paced{busy: true, idle: -1}
	o := PaceOptions{Busy: func() bool { return p.busy }, Waited: func() time.Duration { return p.waited },
		Idle: func() (float64, bool) { return p.idle, p.idle >= 0 }, Share: share, Least: least}
	o.EnsureDefaults()
	p.Pace = newPace(o)
	p.processors = 2
	return p
}

// run lets copies work in slices of a millisecond from a time on, in a clock of their own, and tells what they worked
// together, in seconds of a processor per second.
func (p *paced) run(copies int, from time.Time, length time.Duration) float64 {
	at := make([]time.Time, copies)
	until := make([]time.Time, copies)
	for i := range at {
		at[i] = from
	}
	var worked time.Duration
	for {
		next := 0
		for i := range at {
			if at[i].Before(at[next]) {
				next = i
			}
		}
		now := &at[next]
		if now.Sub(from) > length {
			return worked.Seconds() / length.Seconds()
		}
		if rest := p.rest(*now, until[next]); rest > 0 {
			*now = now.Add(rest)
			continue
		}
		*now = now.Add(time.Millisecond)
		worked += time.Millisecond
		until[next] = p.used(*now, time.Millisecond, p.age)
	}
}

// around says whether got is want, but for a tenth and what the beginning of a run is off.
func around(got, want float64) bool { return got > 0.9*want && got < 1.1*want+0.02 }

// TestPaceHoldsForAnyNumberOfCopies: the share is that of all copies together, however many there are.
func TestPaceHoldsForAnyNumberOfCopies(t *testing.T) {
	for _, copies := range []int{1, 2, 8, 64} {
		if got := newPaced(0.05, 0.05).run(copies, time.Unix(1000, 0), 20*time.Second); !around(got, 0.1) {
			t.Errorf("%d copies worked %.3f of a second per second, 0.1 was theirs", copies, got)
		}
	}
}

// TestPaceFollowsWaits: the share goes down to the least one soon after others wait for a processor, and comes back.
func TestPaceFollowsWaits(t *testing.T) {
	p := newPaced(0.2, 0.02)
	at := time.Unix(1000, 0)
	run := func(length time.Duration) float64 {
		defer func() { at = at.Add(length) }()
		return p.run(4, at, length)
	}
	run(3 * time.Second)
	if got := run(10 * time.Second); !around(got, 0.4) {
		t.Errorf("copies worked %.3f of a second per second while nobody waited, 0.4 was theirs", got)
	}
	p.waited = p.o.WaitTarget + 1
	if got := run(2 * time.Second); got > 0.12 {
		t.Errorf("copies worked %.3f of a second per second after others had begun to wait", got)
	}
	if got := run(20 * time.Second); !around(got, 0.04) {
		t.Errorf("copies worked %.3f of a second per second while others waited, 0.04 was theirs", got)
	}
	p.waited = p.o.WaitTarget
	run(3 * time.Second)
	if got := run(10 * time.Second); !around(got, 0.4) {
		t.Errorf("copies worked %.3f of a second per second when nobody waited any more", got)
	}
}

// TestPaceFollowsIdleness: of what is idle without them copies take a fifth, and never less than the least share.
func TestPaceFollowsIdleness(t *testing.T) {
	p := newPaced(0.2, 0.02)
	at := time.Unix(1000, 0)
	for _, c := range []struct{ idle, want float64 }{{1, 0.4}, {0.4, 0.2}, {0.2, 0.1}, {0, 0.04}, {0.3, 0.15}} {
		p.idle = c.idle
		for i, length := range []time.Duration{10 * time.Second, 20 * time.Second} {
			if got := p.run(4, at, length); i == 1 && !around(got, c.want) {
				t.Errorf("with %.2f idle copies worked %.3f of a second per second, want %.3f", c.idle, got, c.want)
			}
			at = at.Add(length)
		}
	}
}

// TestPaceAsksOneAtATime also when the process stood still while somebody waited for an answer.
func TestPaceAsksOneAtATime(t *testing.T) {
	p := newPaced(0.3, 0.1)
	asked, answer := make(chan struct{}), make(chan struct{})
	p.o.Waited = func() time.Duration {
		close(asked)
		<-answer
		return 0
	}
	now := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.look(now)
	}()
	<-asked
	p.o.Waited = func() time.Duration { t.Error("asked again while the question before was open"); return 0 }
	p.look(now.Add(time.Minute))
	close(answer)
	<-done
	again := 0
	p.o.Waited = func() time.Duration { again++; return 0 }
	if p.look(now.Add(2 * time.Minute)); again != 1 {
		t.Errorf("asked %d times after the answer", again)
	}
}

// TestPaceEndsWithTheClients: nobody pauses long after clients have gone, and they are met with the least share when they come back.
func TestPaceEndsWithTheClients(t *testing.T) {
	p := newPaced(0.2, 0.002)
	at := time.Unix(1000, 0)
	p.waited = time.Second
	p.run(64, at, 10*time.Second)
	p.busy = false
	at = at.Add(11 * time.Second)
	if got := p.run(4, at, time.Second); got < 3.8 {
		t.Errorf("4 copies worked only %.3f of a second per second while nobody else was there", got)
	}
	now := at.Add(2 * time.Second)
	p.look(now)
	if rest := p.rest(now, now.Add(time.Hour)); rest != 0 {
		t.Errorf("a copy rests another %v", rest)
	}
	p.busy, p.waited = true, 0
	at = at.Add(3 * time.Second)
	if got := p.run(4, at, 200*time.Millisecond); got > 0.2 {
		t.Errorf("copies worked %.3f of a second per second when clients had just come", got)
	}
}

// TestPaceGrowsWithAge: however long others wait, copies that have been under way for long take more, up to the whole share.
func TestPaceGrowsWithAge(t *testing.T) {
	p := newPaced(0.2, 0.02)
	p.waited = time.Second
	for i, want := range []float64{0.04, 0.08, 0.16, 0.32, 0.4, 0.4} {
		p.age = time.Duration(i)*p.o.Patience + time.Second
		if got := p.run(4, time.Unix(int64(1000*(i+1)), 0), 20*time.Second); !around(got, want) {
			t.Errorf("copies that began %v ago worked %.3f of a second per second, want %.3f", p.age, got, want)
		}
	}
	p.age = 1000 * time.Hour
	if got := p.run(1, time.Unix(10_000, 0), 20*time.Second); !around(got, 0.4) {
		t.Errorf("a copy that began %v ago worked %.3f of a second per second", p.age, got)
	}
}

func TestPaceOptions(t *testing.T) {
	for _, o := range []PaceOptions{{Share: -1}, {Share: 1.5}, {Share: 0.1, Least: 0.2}, {Least: -1}, {WaitTarget: -1}, {Patience: -1}} {
		o.EnsureDefaults()
		if o.Validate() == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	o := PaceOptions{}
	o.EnsureDefaults()
	must(t, o.Validate())
	if _, err := NewPace(PaceOptions{Share: 2}); err == nil {
		t.Error("a pace of twice the processors was made")
	}
	if p := newPace(o); !p.used(time.Now(), time.Hour, 0).IsZero() || p.taken() != 1 {
		t.Error("a copy is to pause though nobody says that clients are there")
	}
}

// sleepingTurn is a turn that sleeps in the clock of the test.
type sleepingTurn struct {
	turn
	failure error
}

func (u *sleepingTurn) Sleep(d time.Duration) error {
	if u.failure == nil {
		time.Sleep(d)
	}
	return u.failure
}

// TestTurnsKeepThePace: copies that only wait for their disk keep the pace too, and more are not let in while some pause.
func TestTurnsKeepThePace(t *testing.T) {
	for name, step := range map[string]func(*watchedTurn) error{
		"yield": func(w *watchedTurn) error { return w.Yield(0) },
		"await": func(w *watchedTurn) error {
			done := make(chan struct{})
			close(done)
			return w.Await(done)
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := LimitOptions{Max: 64, Healthy: func() bool { return true }, Processors: 4}
				o.EnsureDefaults()
				l := newLimit(o)
				must(t, l.enter(&turn{}))
				p := newPaced(0.01, 0.005) // a pause is longer than one sleep
				p.waited = time.Second
				slot := &sleepingTurn{}
				w := l.watch(p.Turn(slot, nil))
				for _, want := range []float64{0.01, 0.02} {
					begun := time.Now()
					for range 100 {
						time.Sleep(time.Millisecond) // a slice
						must(t, step(w))
					}
					if got := 0.1 / time.Since(begun).Seconds(); got < 0.9*want || got > 1.1*want {
						t.Errorf("worked %.4f of a second per second, %.2f was its part", got, want)
					}
					time.Sleep(p.o.Patience)
					w.began = time.Now()
				}
				before, _, _ := l.figures()
				l.hold(1)
				l.waiting = append(l.waiting, make(chan struct{}))
				time.Sleep(time.Minute)
				l.look()
				if allowed, _, _ := l.figures(); allowed != before {
					t.Errorf("the limit grew from %d to %d while copies pause", before, allowed)
				}
				l.hold(-1)
				l.waiting = append(l.waiting, make(chan struct{}))
				l.look()
				if allowed, _, _ := l.figures(); allowed != 2*before {
					t.Errorf("the limit is %d while nobody pauses", allowed)
				}
				cancelled := errors.New("cancelled")
				slot.failure = cancelled
				time.Sleep(time.Millisecond)
				if err := step(w); !errors.Is(err, cancelled) || l.held != 0 {
					t.Errorf("cancelled while it paused: %v, %d held", err, l.held)
				}
			})
		})
	}
}

// TestOtherWorkKeepsThePace: what other work uses up is missing to copies, and the other way round, whatever the work does between its slices.
func TestOtherWorkKeepsThePace(t *testing.T) {
	for name, step := range map[string]func(*PacedTurn) error{
		"yield": func(w *PacedTurn) error { return w.Yield(0) },
		"await": func(w *PacedTurn) error {
			done := make(chan struct{})
			close(done)
			return w.Await(done)
		},
		"sleep": func(w *PacedTurn) error { return errors.Join(w.Sleep(time.Millisecond), w.Yield(0)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPaced(0.01, 0.01)
				begun := time.Now()
				var works sync.WaitGroup
				for range 2 {
					works.Go(func() {
						w := p.Turn(&sleepingTurn{}, nil)
						for range 100 {
							time.Sleep(time.Millisecond) // a slice
							if err := step(w); err != nil {
								t.Error(err)
							}
						}
					})
				}
				works.Wait()
				if got := 0.2 / time.Since(begun).Seconds(); !(got > 0.018 && got < 0.022) {
					t.Errorf("two works together took %.4f of a second per second, 0.02 was theirs", got)
				}
			})
		})
	}
}

// TestHurryEndsThePause: work that has to be done now does not pause, nor go on with a pause, and what it uses is not held against it later.
func TestHurryEndsThePause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPaced(0.01, 0.01)
		var hurry atomic.Bool
		w := p.Turn(&sleepingTurn{}, hurry.Load)
		begun := time.Now()
		time.AfterFunc(10*time.Millisecond, func() { hurry.Store(true) })
		time.Sleep(9 * time.Millisecond)
		must(t, w.Yield(0))
		for range 1000 {
			time.Sleep(time.Millisecond)
			must(t, w.Yield(0))
		}
		if took := time.Since(begun) - 1009*time.Millisecond; took < time.Millisecond || took > mostPause {
			t.Errorf("paused for %v, most of it in a hurry", took)
		}
		hurry.Store(false)
		begun = time.Now()
		time.Sleep(time.Millisecond)
		must(t, w.Yield(0))
		if took := time.Since(begun); took > time.Second {
			t.Errorf("paused for %v for one slice", took)
		}
	})
}

func TestSchedulerWait(t *testing.T) {
	h := &runtimemetrics.Float64Histogram{Counts: []uint64{50, 49, 1, 1}, Buckets: []float64{-1, 1, 2, 3, 4}}
	for n, want := range map[uint64]float64{1: 0, 50: 0, 51: 1, 99: 1, 100: 2, 101: 3, 102: 0} {
		if got := bound(h, n); got != want {
			t.Errorf("value %d is %v, want %v", n, got, want)
		}
	}
	w := newSchedulerWait()
	if got := w.p99(); got != 0 {
		t.Errorf("%v before there was anything to compare with", got)
	}
	if got := w.p99(); got < 0 || got > time.Minute {
		t.Errorf("p99 of the waits is %v", got)
	}
}
