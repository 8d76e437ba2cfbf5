package threadpool

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden transcripts")

// transcript is one scenario whose every step is written down with its virtual time.
type transcript struct {
	name string
	o    Options
	run  func(t *testing.T, p *Pool)
}

// work is a task that works for the given times, with a Yield after each.
func work(code string, l Priority, slices ...time.Duration) Task {
	return Task{Code: code, Priority: l, Run: func(_ context.Context, turn *Turn) error {
		for _, d := range slices {
			time.Sleep(d)
			if err := turn.Yield(1 << 20); err != nil {
				return err
			}
		}
		return nil
	}}
}

// step submits and lets everything settle, so that the order of steps at one moment is the same in every run.
func step(t *testing.T, p *Pool, task Task) Handle {
	t.Helper()
	h := submit(t, p, task)
	synctest.Wait()
	return h
}

const ms = time.Millisecond

var transcripts = []transcript{
	{"priority", Options{Workers: 1, Guards: &Guards{}}, func(t *testing.T, p *Pool) {
		step(t, p, work("low", Low, 10*ms, 10*ms))
		time.Sleep(ms)
		step(t, p, work("common", Common, 5*ms, 5*ms))
		step(t, p, work("late low", Low, 5*ms))
		time.Sleep(12 * ms)
		step(t, p, work("high", High, 5*ms))
		time.Sleep(time.Second)
	}},
	{"aging", Options{Workers: 1, Guards: &Guards{MaxWait: 20 * ms}}, func(t *testing.T, p *Pool) {
		step(t, p, work("common", Common, 10*ms, 10*ms, 10*ms, 10*ms))
		time.Sleep(ms)
		step(t, p, work("low", Low, 5*ms, 5*ms, 5*ms))
		time.Sleep(25 * ms)
		step(t, p, work("late common", Common, 5*ms))
		time.Sleep(time.Second)
	}},
	{"share", Options{Workers: 2, Guards: &Guards{LowShare: 0.1, CommonReserve: 1}}, func(t *testing.T, p *Pool) {
		for i := range 3 {
			d := time.Duration(10+i) * ms
			step(t, p, work("common", Common, d, d, d, d, d, d, d, d))
		}
		step(t, p, work("low", Low, 5*ms, 5*ms, 5*ms, 5*ms))
		time.Sleep(time.Second)
	}},
	{"keys", Options{Workers: 2}, func(t *testing.T, p *Pool) {
		for i, l := range []Priority{Low, Low, High} {
			tk := work(fmt.Sprint("keyed", i), l, 10*ms)
			tk.Key = "k"
			step(t, p, tk)
		}
		step(t, p, work("common", Common, 11*ms, 11*ms))
		time.Sleep(time.Second)
	}},
	{"retry", Options{Workers: 1}, func(t *testing.T, p *Pool) {
		step(t, p, Task{Code: "flaky", Key: "k", Run: func(_ context.Context, turn *Turn) error {
			time.Sleep(5 * ms)
			if turn.Attempt() < 3 {
				return errors.New("not yet")
			}
			return nil
		}, Retry: func(error) (time.Duration, bool) { return 20 * ms, true }})
		step(t, p, Task{Code: "next", Key: "k", Run: func(context.Context, *Turn) error { return nil }})
		step(t, p, work("other", Low, 10*ms))
		time.Sleep(time.Second)
	}},
	{"waiting", Options{Workers: 1, IO: IORate{LowCap: 10 << 20, Burst: 1 << 20}}, func(t *testing.T, p *Pool) {
		ch := make(chan struct{})
		step(t, p, Task{Code: "sleeps", Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(30 * ms) }})
		step(t, p, Task{Code: "awaits", Run: func(_ context.Context, turn *Turn) error { return turn.Await(ch) }})
		step(t, p, work("throttled", Low, ms, ms, ms))
		h := step(t, p, Task{Code: "cancelled", Run: func(_ context.Context, turn *Turn) error { return turn.Sleep(time.Hour) }})
		late := work("too late", Low, ms)
		late.Deadline = time.Now().Add(2 * ms)
		block := work("blocks", High, 5*ms)
		step(t, p, block)
		step(t, p, late)
		time.Sleep(50 * ms)
		close(ch)
		synctest.Wait()
		h.Cancel()
		time.Sleep(time.Second)
	}},
	{"resize", Options{Workers: 3, Guards: &Guards{}}, func(t *testing.T, p *Pool) {
		for i := range 3 {
			step(t, p, work(fmt.Sprint("task", i), Priority(i), time.Duration(10+i)*ms, time.Duration(10+i)*ms, 10*ms))
		}
		time.Sleep(5 * ms)
		if err := p.SetWorkers(1); err != nil {
			t.Fatal(err)
		}
		if err := p.SetPriority("task0", High); err != nil {
			t.Fatal(err)
		}
		time.Sleep(40 * ms)
		if err := p.SetWorkers(2); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
	}},
}

func TestTranscripts(t *testing.T) {
	for _, tr := range transcripts {
		t.Run(tr.name, func(t *testing.T) {
			var b strings.Builder
			synctest.Test(t, func(t *testing.T) {
				p, err := New(tr.o)
				if err != nil {
					t.Fatal(err)
				}
				p.c.observe = func(ev event) {
					fmt.Fprintf(&b, "%8.3fms %-7s %s#%d %s", float64(ev.at)/1e6, ev.kind, ev.e.code.name, ev.e.seq, ev.e.base)
					if ev.kind == eventStart || ev.kind == eventResume {
						fmt.Fprintf(&b, " at %s by %s", ev.eff, ev.reason)
					}
					b.WriteByte('\n')
				}
				if err := p.Start(t.Context()); err != nil {
					t.Fatal(err)
				}
				tr.run(t, p)
				if err := p.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			})
			path := filepath.Join("testdata", "transcripts", tr.name+".txt")
			if *update {
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("%s differs from what happened; run with -update and look at the difference:\n%s", path, &b)
			}
		})
	}
}
