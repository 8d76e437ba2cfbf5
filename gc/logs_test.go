package gc

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"
)

func TestReleasable(t *testing.T) {
	dup := func(name string, decree uint64) Hold { return Hold{RuleDuplication, name, decree, true} }
	unknown := Hold{Rule: RuleDuplication, Name: "new", Decree: 99}
	for name, c := range map[string]struct {
		durable uint64
		holds   []Hold
		want    uint64
		rule    Rule
		by      string
	}{
		"nothing durable":           {0, nil, 0, RuleDurable, ""},
		"durable alone":             {10, nil, 10, RuleDurable, ""},
		"a remote behind":           {10, []Hold{dup("a", 7)}, 7, RuleDuplication, "a"},
		"a remote ahead of durable": {10, []Hold{dup("a", 12)}, 10, RuleDurable, ""},
		"the slowest of remotes":    {10, []Hold{dup("a", 7), dup("b", 3), dup("c", 9)}, 3, RuleDuplication, "b"},
		"an unknown remote is 0":    {10, []Hold{dup("a", 7), unknown}, 0, RuleDuplication, "new"},
		"raft":                      {10, []Hold{dup("a", 7), {RuleRaft, "", 5, true}}, 5, RuleRaft, ""},
		"equal: durable is named":   {10, []Hold{dup("a", 10)}, 10, RuleDurable, ""},
		"equal holds: the first":    {10, []Hold{dup("a", 4), dup("b", 4)}, 4, RuleDuplication, "a"},
	} {
		got, by := Releasable(c.durable, c.holds)
		if got != c.want || by.Rule != c.rule || by.Name != c.by {
			t.Errorf("%s: %d by %v %q, want %d by %v %q", name, got, by.Rule, by.Name, c.want, c.rule, c.by)
		}
	}
}

func TestReleasableNeverExceedsAny(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		durable := rapid.Uint64Range(0, 20).Draw(t, "durable")
		holds := rapid.SliceOf(rapid.Custom(func(t *rapid.T) Hold {
			return Hold{Rule: Rule(rapid.IntRange(1, 3).Draw(t, "rule")), Decree: rapid.Uint64Range(0, 20).Draw(t, "decree"), Known: rapid.Bool().Draw(t, "known")}
		})).Draw(t, "holds")
		got, by := Releasable(durable, holds)
		if got > durable || got != by.limit() {
			t.Fatalf("%d of %d by %+v", got, durable, by)
		}
		tight := got == durable
		for _, h := range holds {
			if !h.Known && got != 0 || h.Known && got > h.Decree {
				t.Fatalf("%d violates %+v", got, h)
			}
			tight = tight || got == h.limit()
		}
		if !tight {
			t.Fatalf("%d is less than allowed", got)
		}
	})
}

// log is a partition's log that frees whole segments of ten decrees.
type fakeLog struct {
	id                   uint32
	first, last, durable uint64
	asked                []uint64
	err                  error
	closed               bool
	excess               int64
	trimmed              []time.Time
}

func (l *fakeLog) ID() uint32      { return l.id }
func (l *fakeLog) Durable() uint64 { return l.durable }
func (l *fakeLog) LogExtent() (LogExtent, error) {
	if l.closed {
		return LogExtent{}, errors.New("sync failed")
	}
	// What is released is kept for its next use.
	return LogExtent{First: l.first, Last: l.last, Bytes: 10_000, Live: int64(l.last-l.first+1) * 100, Excess: l.excess}, nil
}

func (l *fakeLog) ReleaseLog(decree uint64) error {
	l.asked = append(l.asked, decree)
	if l.err == nil {
		l.first = max(l.first, decree/10*10+1)
	}
	return l.err
}

func (l *fakeLog) TrimLog() (freed int64) {
	if freed = min(l.excess, 16<<20); freed > 0 {
		l.excess -= freed
		l.trimmed = append(l.trimmed, time.Now())
	}
	return freed
}

func TestLogsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &fakeLog{id: 0, first: 1, last: 100, durable: 55}
		b := &fakeLog{id: 1, first: 1, last: 100, durable: 90}
		c := &fakeLog{id: 2, closed: true}
		bad := &fakeLog{id: 3, first: 1, last: 9, durable: 9, err: errors.New("disk on fire")}
		confirmed := map[uint32]Hold{1: {RuleDuplication, "paris", 0, false}}
		reg := prometheus.NewRegistry()
		l, err := NewLogs(LogsOptions{Partitions: []LogPartition{a, b, c, bad}, Runner: noRunner{}, Registerer: reg,
			Holders: []Holder{HolderFunc(func(p uint32) []Hold {
				if h, ok := confirmed[p]; ok {
					return []Hold{h}
				}
				return nil
			})}})
		must(t, err)
		u := &turn{}
		if err := l.run(ctx, u); !errors.Is(err, bad.err) || !strings.Contains(err.Error(), "partition 3") {
			t.Fatalf("err %v", err)
		}
		if a.first != 51 || b.first != 1 || len(b.asked) != 0 || len(c.asked) != 0 {
			t.Fatalf("a %+v, b %+v, c %+v", a, b, c)
		}
		time.Sleep(5 * time.Second)
		st := l.Explain()
		if st[0].HeldBy.Rule != RuleDurable || st[0].Releasable != 55 || st[0].Released != 50 || st[0].Held != 45 {
			t.Fatalf("a: %+v", st[0])
		}
		if st[1].HeldBy.Name != "paris" || st[1].Releasable != 0 || st[1].HeldSeconds != 5 || st[2].Open || st[2].LastError != "sync failed" {
			t.Fatalf("b: %+v", st[1])
		}
		if text, err := json.Marshal(st[1]); err != nil || !strings.Contains(string(text), `"rule":"duplication"`) {
			t.Fatalf("%s, %v", text, err)
		}
		confirmed[1] = Hold{RuleDuplication, "paris", 70, true}
		bad.err = nil
		must(t, l.run(ctx, u))
		if b.first != 71 || l.Explain()[1].Releasable != 70 || l.Explain()[3].LastError != "" {
			t.Fatalf("b %+v, %+v", b, l.Explain())
		}
		if _, err := reg.Gather(); err != nil {
			t.Fatal(err)
		}
		// Another run at once is put off, so that a stream of triggers costs little.
		u.slept = 0
		must(t, l.run(ctx, u))
		if u.slept != time.Second {
			t.Fatalf("slept %v", u.slept)
		}
	})
}

func TestLogsLifecycle(t *testing.T) {
	released := make(chan struct{})
	part := &signalLog{fakeLog{first: 1, last: 20, durable: 20}, released}
	l, err := NewLogs(LogsOptions{Partitions: []LogPartition{part}, Runner: newRunner(t), MinInterval: time.Millisecond})
	must(t, err)
	l.Trigger() // before Start: lost, not fatal
	l, err = NewLogs(LogsOptions{Partitions: []LogPartition{part}, Runner: newRunner(t), MinInterval: time.Millisecond})
	must(t, err)
	must(t, l.Start(ctx))
	if err := l.Start(ctx); err == nil {
		t.Fatal("started twice")
	}
	l.Trigger()
	<-released
	must(t, l.Stop(ctx))
	must(t, l.Stop(ctx))
}

type signalLog struct {
	fakeLog
	released chan struct{}
}

func (l *signalLog) ReleaseLog(decree uint64) error {
	if err := l.fakeLog.ReleaseLog(decree); err != nil {
		return err
	}
	close(l.released)
	return nil
}

// runWithin is a run of l that fails the test when it takes longer than most.
func runWithin(t *testing.T, l *Logs, most time.Duration) func() {
	return func() {
		t.Helper()
		before := time.Now()
		if err := l.run(t.Context(), &turn{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(before); took > most {
			t.Fatalf("a run took %v", took)
		}
	}
}

// TestUnusedLogFilesGoAtThePace of all other garbage, in turns, and new releases do not wait for them.
func TestUnusedLogFilesGoAtThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mib = 1 << 20
		logs := []*fakeLog{{id: 0, first: 1, last: 10, excess: 3200 * mib}, {id: 1, first: 1, last: 10, excess: 160 * mib}}
		shortage := int64(0)
		l, err := NewLogs(LogsOptions{Partitions: []LogPartition{logs[0], logs[1]}, Runner: noRunner{},
			Space: func() (Level, int64) { return LevelLow, shortage }})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		run := runWithin(t, l, 4*time.Second)
		for logs[1].excess > 0 {
			run()
		}
		if left := logs[0].excess; left < 2800*mib || left > 3100*mib {
			t.Errorf("%d MiB of the first log are left when the second has none", left/mib)
		}
		for time.Since(begun) < 10*time.Second {
			run()
		}
		freed := float64(3360*mib-logs[0].excess) / time.Since(begun).Seconds()
		if freed < 32*mib || freed > 46*mib { // baseline + backlog / 5 min
			t.Errorf("%.0f MiB/s", freed/mib)
		}
		shortage = 4000 * mib
		begun = time.Now()
		for logs[0].excess > 0 {
			run()
		}
		if took := time.Since(begun); took > 15*time.Second {
			t.Errorf("with space missing it took %v", took)
		}
	})
}

// TestReleasesDoNotWaitForThePace: where a file takes minutes at the pace, each run ends soon, and missing space ends the pause.
func TestReleasesDoNotWaitForThePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const mib = 1 << 20
		log := &fakeLog{first: 1, last: 10, excess: 48 * mib}
		shortage := int64(0)
		l, err := NewLogs(LogsOptions{Partitions: []LogPartition{log}, Runner: noRunner{}, Pacer: PacerOptions{Baseline: 64 << 10},
			Space: func() (Level, int64) { return LevelLow, shortage }})
		if err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		run := runWithin(t, l, trimFor+debtStep)
		for len(log.trimmed) < 2 {
			run()
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(begun); took < 80*time.Second || took > 256*time.Second { // 16 MiB at 64 KiB + 32 MiB / 300 s, and less in the end
			t.Errorf("the second file went after %v", took)
		}
		begun, shortage = time.Now(), 4000*mib
		run()
		if took := time.Since(begun); log.excess > 0 || took > time.Second {
			t.Errorf("with space missing %d bytes are left after %v", log.excess, took)
		}
	})
}
