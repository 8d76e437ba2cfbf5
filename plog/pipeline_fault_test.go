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

// TestFailedSyncWithMoreBehind fails the sync of a group while more was appended behind it: nothing of it nor of what is behind is acknowledged, and
// what is behind was not even written. What was acknowledged before is there, whatever the disk kept of the group; other logs go on.
func TestFailedSyncWithMoreBehind(t *testing.T) {
	for name, of := range map[string]struct {
		bytes int64
		path  string
	}{"its own": {-1, fleetDir(0)}, "the journal's": {1 << 20, "/d/journal"}} {
		t.Run(name, func(t *testing.T) {
			mem := vfs.NewCrashableMem()
			f := newFleet(t, mem, [fleetLogs]state{}, 0, newRand())
			f.bytes = of.bytes
			var hold atomic.Bool
			entered, gate := make(chan struct{}, 1), make(chan struct{})
			f.startFaulty(mem, func(op errorfs.Op) error {
				if op.Kind == errorfs.OpFileSyncData && strings.HasPrefix(op.Path, of.path) && hold.CompareAndSwap(true, false) {
					entered <- struct{}{}
					<-gate
					return syscall.EIO
				}
				return nil
			})
			results := f.failBehind(&hold, entered, gate)
			for n, err := range results {
				if !errors.Is(err, ErrFailed) || !errors.Is(err, syscall.EIO) {
					t.Errorf("batch %d: %v", n, err)
				}
			}
			w := f.worlds[0]
			if err := w.l.AppendSync(batch(w.l.LastIndex()+1, 1, 9, 10), nil); !errors.Is(err, ErrFailed) {
				t.Errorf("appended to a dead log: %v", err)
			}
			var clones []fleetClone
			for _, percent := range []int{0, 50, 100} {
				cl := fleetClone{mem: mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: f.rng})}
				for i, w := range f.worlds {
					cl.from[i], cl.to[i] = w.c.acked, len(w.c.states)-1
				}
				clones = append(clones, cl)
			}
			for _, w := range f.worlds {
				_ = w.l.Close()
			}
			f.syncer.stop()
			for _, cl := range clones {
				f.verify(cl)
			}
		})
	}
}

// failBehind appends to log 0 until its sync is held, then more behind that, and to the other logs, and lets the sync fail. Only the first batch is
// one that the log may show later.
func (f *fleet) failBehind(hold *atomic.Bool, entered <-chan struct{}, gate chan<- struct{}) (results []error) {
	f.t.Helper()
	w := f.worlds[0]
	for _, w := range f.worlds {
		w.c.ack(len(w.c.states) - 1)
	}
	now := w.c.current()
	done := make(chan error, 5)
	add := func(n int, size int) {
		if err := w.l.Append(batch(now.last()+1+uint64(n), 1, now.lastTerm()+1, size), nil, func(err error) { done <- err }); err != nil {
			f.t.Fatal(err)
		}
	}
	hold.Store(true)
	w.c.propose(func(s *state) { s.append(batch(s.last()+1, 1, s.lastTerm()+1, 100), nil) })
	add(0, 100)
	<-entered
	for n, size := range []int{100, 20000, 70000, 100} {
		add(1+n, size)
	}
	close(gate)
	for range cap(done) {
		results = append(results, <-done)
	}
	f.do('a', 1)
	f.do('h', 2)
	return results
}
