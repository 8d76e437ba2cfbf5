package plog

import (
	"errors"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestJournalFaults lets every write operation fail in turn. A failed sync kills the logs of its round, and only them; a journal without space is not
// used, and no append fails of it. What was acknowledged is there after the crash.
func TestJournalFaults(t *testing.T) {
	for _, fault := range []error{syscall.EIO, syscall.ENOSPC} {
		rng := newRand()
		for n := 1; ; n++ {
			if !stress {
				n += rng.IntN(12)
			}
			mem := vfs.NewCrashableMem()
			f := newFleet(t, mem, [fleetLogs]state{}, 0, newRand())
			inject := &faults{n: n, err: fault, only: func(op errorfs.Op) bool {
				return fault == syscall.EIO || op.Kind != errorfs.OpFileSync && op.Kind != errorfs.OpFileSyncData
			}}
			f.fs = errorfs.Wrap(mem, inject)
			f.faulty(fault)
			hit := inject.heal()
			lost := mem.CrashClone(vfs.CrashCloneCfg{})
			for _, w := range f.worlds {
				if w.l != nil {
					_ = w.l.Close()
				}
			}
			if f.syncer != nil {
				f.syncer.stop()
				cl := fleetClone{mem: lost, op: hit}
				for i, w := range f.worlds {
					cl.from[i], cl.to[i] = w.c.acked, len(w.c.states)-1
				}
				f.verify(cl)
			}
			if hit == "" {
				if n < 100 {
					t.Fatalf("only %d operations", n)
				}
				break
			}
		}
	}
}

// faulty opens the logs and appends to them, one operation of which fails with fault.
func (f *fleet) faulty(fault error) {
	var err error
	if f.syncer, _, err = startJournaled(f.t, f.fs, f.bytes); err != nil {
		if !errors.Is(err, fault) {
			f.t.Fatal(err)
		}
		return
	}
	for i, w := range f.worlds {
		if w.l, err = f.openLog(f.syncer, f.fs, i); err != nil && !errors.Is(err, fault) {
			f.t.Fatal(err)
		}
	}
	for step := range 30 {
		for _, w := range f.worlds {
			if w.l == nil || w.l.Failed() != nil {
				continue
			}
			s := w.c.current()
			es := batch(s.last()+1, 1+step%2, s.lastTerm()+1, 200)
			w.c.propose(func(s *state) { s.append(es, nil) })
			err := appendSync(w.l, es, nil)
			switch {
			case err == nil:
				w.c.ack(len(w.c.states) - 1)
			case errors.Is(err, ErrDiskFull) && fault == syscall.ENOSPC:
				w.c.states = w.c.states[:len(w.c.states)-1]
			case !errors.Is(err, ErrFailed) || fault != syscall.EIO:
				f.t.Fatalf("append: %v after %v", err, fault)
			}
		}
	}
}

// startFaulty starts the fleet on files that may fail, and appends a little to each log.
func (f *fleet) startFaulty(mem *vfs.MemFS, fault func(op errorfs.Op) error) {
	f.fs = errorfs.Wrap(mem, errorfs.InjectorFunc(fault))
	for _, w := range f.worlds {
		w.fs = f.fs
	}
	f.start()
	for range 3 {
		f.do('+', 0)
	}
}

// TestJournalGivenUp: after a failed sync of the journal the logs of its round are dead, the others go on, and a dead one cannot be opened again before
// the journal was brought back.
func TestJournalGivenUp(t *testing.T) {
	mem := vfs.NewCrashableMem()
	f := newFleet(t, mem, [fleetLogs]state{}, 0, newRand())
	fail := false
	f.startFaulty(mem, func(op errorfs.Op) error {
		if fail && op.Kind == errorfs.OpFileSyncData && op.Path == "/d/journal/"+journalName {
			return syscall.EIO
		}
		return nil
	})
	fail = true
	w := f.worlds[0]
	s := w.c.current()
	if err := appendSync(w.l, batch(s.last()+1, 1, 5, 100), nil); !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
		t.Fatalf("acknowledged: %v", err)
	}
	f.do('a', 1)
	f.do('a', 2)
	_ = w.l.Close()
	if l, err := f.openLog(f.syncer, f.fs, 0); !errors.Is(err, ErrFailed) {
		t.Errorf("opened a log whose bytes are in the journal: %v", err)
		_ = l.Close()
	}
	lost := mem.CrashClone(vfs.CrashCloneCfg{})
	closeLog(t, f.worlds[1].l)
	closeLog(t, f.worlds[2].l)
	f.syncer.stop()
	cl := fleetClone{mem: lost}
	for i, w := range f.worlds {
		cl.from[i], cl.to[i] = len(w.c.states)-1, len(w.c.states)-1
	}
	f.verify(cl)
}

// TestJournalOfADeadLog: when the segment of a log cannot be synced, the journal keeps what it has of the log, however long the others go on.
func TestJournalOfADeadLog(t *testing.T) {
	mem := vfs.NewCrashableMem()
	f := newFleet(t, mem, [fleetLogs]state{}, 0, newRand())
	var fail atomic.Bool
	f.startFaulty(mem, func(op errorfs.Op) error {
		if fail.Load() && op.Kind == errorfs.OpFileSyncData && strings.HasPrefix(op.Path, fleetDir(0)) {
			return syscall.EIO
		}
		return nil
	})
	fail.Store(true)
	for range 100 {
		f.do('a', 1)
		f.do('h', 2)
	}
	for n := 0; f.worlds[0].l.Failed() == nil && n < 10000; n++ {
		f.do('h', 2) // until the area was looked at
	}
	if f.worlds[0].l.Failed() == nil {
		t.Error("a log whose segment cannot be synced lives")
	}
	cl := fleetClone{mem: mem.CrashClone(vfs.CrashCloneCfg{})}
	_ = f.worlds[0].l.Close()
	closeLog(t, f.worlds[1].l)
	closeLog(t, f.worlds[2].l)
	f.syncer.stop()
	for i, w := range f.worlds {
		cl.from[i], cl.to[i] = len(w.c.states)-1, len(w.c.states)-1
	}
	f.verify(cl)
}
