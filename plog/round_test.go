package plog

import (
	"errors"
	"os"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"
)

// appendTo appends n bytes to l and returns what is told when they are durable.
func appendTo(t testing.TB, l *Log, n int) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	if err := l.Append(batch(l.LastIndex()+1, 1, 1, n), nil, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	return done
}

func durable(t testing.TB, what string, done <-chan error) {
	t.Helper()
	select {
	case err := <-done:
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: not written", what)
	}
}

// startedFleet is a fleet whose logs hold a few batches, and whose workers wait; lone logs are committed by themselves.
func startedFleet(t testing.TB) *fleet {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.start()
	f.syncer.mu.Lock()
	f.syncer.always = false
	f.syncer.mu.Unlock()
	for range 3 {
		f.do('+', 0)
	}
	waitFor(t, func() bool { // what was appended is durable before its worker is done
		f.syncer.mu.Lock()
		defer f.syncer.mu.Unlock()
		return f.syncer.busy == 0 && f.syncer.queue.n == 0 && f.syncer.direct.n == 0
	})
	return f
}

// TestRoundHeldUp: a log that somebody holds for long, as Release does while it refills the ballast, holds up no other.
func TestRoundHeldUp(t *testing.T) {
	f := startedFleet(t)
	held := f.worlds[0].l
	held.ioMu.Lock()
	first := appendTo(t, held, 100)
	waitFor(t, func() bool { // a worker has found it waiting alone
		f.syncer.mu.Lock()
		defer f.syncer.mu.Unlock()
		return f.syncer.queue.n == 0 && (f.syncer.leading || f.syncer.single > 0)
	})
	durable(t, "beside a held log", appendTo(t, f.worlds[1].l, 100))
	held.ioMu.Unlock()
	durable(t, "held log", first)
	f.stop()
}

// TestQueuedBesideDirect: a log that was appended to while it was committed by itself is not left in the queue when its worker goes on with
// another one.
func TestQueuedBesideDirect(t *testing.T) {
	f := startedFleet(t)
	s := f.syncer
	// Two of three workers wait for two logs, the third log waits for one of them, the third worker for work.
	for _, w := range f.worlds {
		w.l.ioMu.Lock()
	}
	s.mu.Lock()
	for _, w := range f.worlds {
		l := w.l
		s.mu.Unlock()
		_, err := l.buffer(batch(l.LastIndex()+1, 1, 1, 100), nil, nil)
		s.mu.Lock()
		if err != nil {
			t.Fatal(err)
		}
		s.direct.push(l)
	}
	s.mu.Unlock()
	s.work.Broadcast()
	waitFor(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.single == 2 && s.direct.n == 1
	})
	// Log 0 gets more when its worker has taken what there was.
	l := f.worlds[0].l
	more := make(chan (<-chan error), 1)
	l.mu.Lock()
	l.pend.dones[0] = func(error) { more <- appendTo(t, l, 100) }
	l.mu.Unlock()
	l.ioMu.Unlock()
	durable(t, "appended meanwhile", <-more)
	for _, w := range f.worlds[1:] {
		w.l.ioMu.Unlock()
	}
	f.stop()
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	for began := time.Now(); !ok(); runtime.Gosched() {
		if time.Since(began) > 10*time.Second {
			t.Fatal("waited in vain")
		}
	}
}

// TestRoundWithoutRoom: what found no room in a block comes before what was appended later.
func TestRoundWithoutRoom(t *testing.T) {
	f := startedFleet(t)
	s := f.syncer
	s.mu.Lock()
	s.leading = true // no round begins
	s.mu.Unlock()
	var dones []<-chan error
	for i, n := range [fleetLogs]int{5 << 10, 5 << 10, 5 << 10} {
		dones = append(dones, appendTo(t, f.worlds[i].l, n))
	}
	// The area has room for a block of two.
	j := s.opts.Journal
	j.mu.Lock()
	j.areas[j.cur].off = j.areaEnd(j.cur) - 3*journalAlign
	j.mu.Unlock()
	again := make(chan (<-chan error), 1)
	l := f.worlds[0].l
	l.mu.Lock()
	l.pend.dones[0] = func(error) { again <- appendTo(t, l, 100) }
	l.mu.Unlock()
	s.mu.Lock()
	s.leading = false
	s.lead()
	first := s.queue.logs[s.queue.head]
	waiting := s.queue.n
	s.mu.Unlock()
	if waiting != 2 || first != f.worlds[2].l {
		t.Errorf("%d wait, first partition %d", waiting, first.Partition())
	}
	s.work.Signal()
	durable(t, "appended meanwhile", <-again)
	for _, done := range dones[1:] {
		durable(t, "one of the round", done)
	}
	f.stop()
}

// TestJournalUnreadableLog: what the journal holds of a log that cannot be read at the moment, or is not in its place, is not forgotten.
func TestJournalUnreadableLog(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.bytes = 1 << 20 // no area is emptied
	f.start()
	for range 5 {
		f.do('+', 0)
	}
	lost := f.mem.CrashClone(vfs.CrashCloneCfg{})
	f.stop()
	cl := fleetClone{mem: lost}
	for i, w := range f.worlds {
		cl.from[i], cl.to[i] = len(w.c.states)-1, len(w.c.states)-1
	}
	manifest := fleetDir(1) + "/" + manifestName
	var reads atomic.Int64
	unreadable := errorfs.Wrap(lost, errorfs.InjectorFunc(func(op errorfs.Op) (err error) {
		if op.Path == manifest && op.Kind == errorfs.OpFileReadAt {
			if reads.Add(1) <= 2 { // by whoever looks for an older copy of the journal, and by redo
				return syscall.EIO
			}
		}
		return err
	}))
	for _, without := range []struct {
		fs    vfs.FS
		aside bool
		is    error
	}{{unreadable, false, syscall.EIO}, {lost, true, os.ErrNotExist}} {
		if without.aside {
			if err := lost.Rename(fleetDir(1), "/d/aside"); err != nil {
				t.Fatal(err)
			}
		}
		s, report, err := startJournaled(t, without.fs, f.bytes)
		if err != nil || report.Away == nil || !errors.Is(report.Away, without.is) || report.Away.Partition != 1 {
			t.Fatalf("%v, %+v", err, report.Away)
		}
		if !without.aside {
			var away *ErrUnreachable
			if _, err := f.openLog(s, lost, 1); !errors.As(err, &away) {
				t.Errorf("opened without what the journal has: %v", err)
			}
		}
		// The others go on meanwhile.
		l, err := f.openLog(s, lost, 0)
		if err != nil {
			t.Fatal(err)
		}
		c := f.worlds[0].c
		last := c.states[len(c.states)-1]
		es := batch(last.last()+1, 2, last.lastTerm()+1, 500)
		mustAppend(t, l, es, nil)
		last.entries = slices.Clone(last.entries)
		last.append(es, nil)
		c.states = append(c.states, last)
		cl.from[0], cl.to[0] = len(c.states)-1, len(c.states)-1
		closeLog(t, l)
		s.stop()
	}
	accepted := lost.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: newRand()})
	if j, _, err := OpenJournal("/d/journal", JournalOptions{FS: accepted, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true}); err != nil {
		t.Error(err)
	} else {
		j.close()
	}
	if err := lost.Rename("/d/aside", fleetDir(1)); err != nil {
		t.Fatal(err)
	}
	f.verify(cl)
}

// TestJournalReleasedLog: what a manifest says is synced is there without the journal.
func TestJournalReleasedLog(t *testing.T) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, newRand())
	f.bytes = 1 << 20
	f.start()
	for range 5 {
		f.do('+', 0)
	}
	f.do('r', 0)
	lost := f.mem.CrashClone(vfs.CrashCloneCfg{})
	f.stop()
	if err := lost.RemoveAll("/d/journal"); err != nil {
		t.Fatal(err)
	}
	j, _, err := OpenJournal("/d/journal", JournalOptions{FS: lost, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSyncer(SyncerOptions{Journal: j})
	s.start()
	l, err := f.openLog(s, lost, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := f.worlds[0].c.current()
	if err := want.diff(l); err != nil {
		t.Error(err)
	}
	closeLog(t, l)
	s.stop()
}

// TestJournalOff: logs that are to sync themselves fall back from nothing.
func TestJournalOff(t *testing.T) {
	mem, reg := vfs.NewMem(), prometheus.NewRegistry()
	m := NewMetrics(reg)
	makeFolders(t, mem)
	j, _, err := OpenJournal("/d/journal", JournalOptions{FS: mem, Bytes: -1, LogDir: fleetDir, Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	s := NewSyncer(SyncerOptions{Journal: j, Metrics: m})
	var logs []*Log
	var dones []<-chan error
	for i := range uint32(fleetLogs) {
		l, err := Open(fleetDir(i), i, Options{FS: mem, Syncer: s})
		if err != nil {
			t.Fatal(err)
		}
		logs, dones = append(logs, l), append(dones, appendTo(t, l, 100))
	}
	s.start()
	for _, done := range dones {
		durable(t, "without a journal", done)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "replicanode_plog_journal_fallbacks_total" && f.GetMetric()[0].GetCounter().GetValue() != 0 {
			t.Error(f)
		}
	}
	for _, l := range logs {
		closeLog(t, l)
	}
	s.stop()
}
