package plog

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// takesSpace says whether an operation needs space that is not there on a full disk. Bytes that are written can be replaced, except where also says so.
func takesSpace(op errorfs.Op, also string) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpMkdirAll, errorfs.OpFileWrite, errorfs.OpFilePreallocate, errorfs.OpReuseForWrite:
		return true
	case errorfs.OpFileWriteAt, errorfs.OpFileSyncData:
		return strings.HasSuffix(op.Path, also)
	}
	return strings.HasSuffix(op.Path, journalTmpName)
}

// TestJournalStartOnFullDisk kills processes after each operation of some workloads, whose next start finds no space at all, the journal's header included: all
// logs open with everything, releases go on, an append fails as ErrDiskFull at worst, and works again by itself when there is space.
func TestJournalStartOnFullDisk(t *testing.T) {
	rng, every := newRand(), 10
	if stress {
		every = 100
	}
	for _, ops := range []string{"++t", "+T+T", "+AtrT", "z+tR"} {
		for _, also := range []string{journalName, "no file"} {
			for _, bytes := range []int64{MinJournalBytes, 2 * MinJournalBytes} {
				f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, every, rng)
				f.kept = []int{0, 100}
				f.start()
				f.do('+', 0)
				f.arm()
				for i := range len(ops) {
					f.do(ops[i], 0)
				}
				clones := f.disarm("at the end")
				f.stop()
				for _, cl := range clones {
					cl.op = fmt.Sprintf("%s, %s full, %d bytes: %s", ops, also, bytes, cl.op)
					f.startFull(cl, also, bytes)
				}
			}
		}
	}
}

func (f *fleet) startFull(cl fleetClone, also string, bytes int64) {
	f.t.Helper()
	var full atomic.Bool
	full.Store(true)
	fs := errorfs.Wrap(cl.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if full.Load() && takesSpace(op, also) {
			return syscall.ENOSPC
		}
		return nil
	}))
	s, _, err := startJournaled(f.t, fs, bytes)
	if err != nil {
		f.t.Fatalf("%s: %v", cl.op, err)
	}
	var logs [fleetLogs]*Log
	for i, w := range f.worlds {
		w.openLog = func(fs vfs.FS) (*Log, error) { return f.openLog(s, fs, i) }
		l, err := w.openLog(fs)
		if err != nil {
			f.t.Fatalf("%s: log %d: %v", cl.op, i, err)
		}
		now := w.stateOf(l, cl.from[i], cl.to[i])
		if now == nil {
			f.t.Fatalf("%s: log %d: [%d,%d] is none of the states it may be in", cl.op, i, l.FirstIndex(), l.LastIndex())
		}
		for range 2 {
			es := batch(now.last()+1, 1, now.lastTerm()+1, 300)
			switch err := appendSync(l, es, nil); {
			case err == nil:
				now.append(es, nil)
			case !errors.Is(err, ErrDiskFull):
				f.t.Fatalf("%s: log %d: %v", cl.op, i, err)
			}
		}
		if err := now.diff(l); err != nil {
			f.t.Fatalf("%s: log %d, full: %v", cl.op, i, err)
		}
		w.c.states = append(w.c.states, *now)
		logs[i] = l
	}
	full.Store(false)
	var then fleetClone
	for i, l := range logs {
		w := f.worlds[i]
		now := w.c.states[len(w.c.states)-1]
		now.entries = slices.Clone(now.entries)
		es := batch(now.last()+1, 1, now.lastTerm()+1, 300)
		err := appendSync(l, es, nil)
		if errors.Is(err, ErrDiskFull) {
			err = appendSync(l, es, nil) // the first one after a failure is refused
		}
		if err != nil {
			f.t.Fatalf("%s: log %d, space again: %v", cl.op, i, err)
		}
		now.append(es, nil)
		w.c.states[len(w.c.states)-1] = now
	}
	then.mem, then.op = cl.mem.CrashClone(vfs.CrashCloneCfg{}), cl.op+", then full, then space"
	for i, l := range logs {
		then.from[i], then.to[i] = len(f.worlds[i].c.states)-1, len(f.worlds[i].c.states)-1
		closeLog(f.t, l)
	}
	s.stop()
	f.verify(then)
	for _, w := range f.worlds {
		w.c.states = w.c.states[:len(w.c.states)-1]
	}
}

// stateOf returns the state from..to that the log is in, nil when it is none of them.
func (w *world) stateOf(l *Log, from, to int) *state {
	for _, s := range w.c.states[from : to+1] {
		if s.diff(l) == nil {
			s.entries = slices.Clone(s.entries)
			return &s
		}
	}
	return nil
}

// TestJournalHeaderFails: when the header of a journal cannot be written for another reason than space the start fails with file and place, everything having been brought back; if
// loss is accepted another journal takes its place, and nothing is missing.
func TestJournalHeaderFails(t *testing.T) {
	f, cl := killedFleet(t)
	for _, kind := range []errorfs.OpKind{errorfs.OpFileWriteAt, errorfs.OpFileSyncData} {
		at := cl
		at.mem = cl.mem.CrashClone(vfs.CrashCloneCfg{})
		fs := errorfs.Wrap(at.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == kind && op.Path == fleetJournal {
				return syscall.EIO
			}
			return nil
		}))
		_, _, err := startJournaled(t, fs, f.bytes)
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), fleetJournal) {
			t.Fatalf("%v", err)
		}
		j, report, err := OpenJournal("/d/journal", JournalOptions{FS: fs, Bytes: f.bytes, LogDir: fleetDir, Partitions: fleetPartitions(), AcceptLoss: true})
		if err != nil || report.Entries == 0 && kind == errorfs.OpFileWriteAt {
			t.Fatalf("%v, %+v", err, report)
		}
		s := NewSyncer(SyncerOptions{Journal: j})
		s.start()
		for i, w := range f.worlds {
			l, err := f.openLog(s, fs, i)
			if err != nil {
				t.Fatal(err)
			}
			now := w.c.states[len(w.c.states)-1]
			if err := now.diff(l); err != nil {
				t.Errorf("log %d: %v", i, err)
			}
			closeLog(t, l)
		}
		s.stop()
		f.verify(at)
	}
}
