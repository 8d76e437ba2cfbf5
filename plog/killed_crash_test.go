package plog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var errKilled = errors.New("killed")

// killer is between one process and the file system. Once the process is killed nothing of it gets through any more; what did stays, synced or not.
type killer struct {
	f    *fleet
	left atomic.Int64 // changing operations until it is killed
	dead atomic.Bool
}

// never is a killer.left that is not used up.
const never = 1 << 40

func (k *killer) String() string { return "killer" }

func (k *killer) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && k.left.Add(-1) < 0 {
		k.dead.Store(true)
	}
	if k.dead.Load() {
		return errKilled
	}
	return k.f.MaybeError(op)
}

// process starts the next process on the same files, killed after some operations. The logs must be in states they may be in; what they show
// from then on is acknowledged.
func (f *fleet) process(left int64) *killer {
	f.t.Helper()
	k := &killer{f: f}
	k.left.Store(left)
	f.fs = errorfs.Wrap(f.mem, k)
	for i, w := range f.worlds {
		w.fs, w.l, w.killed = f.fs, nil, k.dead.Load
		w.openLog = func(fs vfs.FS) (*Log, error) { return f.openLog(f.syncer, fs, i) }
	}
	f.start()
	for i, w := range f.worlds {
		if w.l == nil || k.dead.Load() {
			break
		}
		from, to := w.c.acked, len(w.c.states)-1
		found := false
		for n := from; n <= to && !found; n++ {
			if found = w.c.states[n].diff(w.l) == nil; found {
				w.c.propose(func(s *state) { *s = w.c.states[n] })
				w.c.ack(to + 1)
			}
		}
		if !found && !k.dead.Load() {
			f.t.Fatalf("log %d: [%d,%d] is none of the states %d..%d, acknowledged %d", i, w.l.FirstIndex(), w.l.LastIndex(), from, to, w.c.states[from].last())
		}
	}
	return k
}

// end kills the process, if it lives.
func (f *fleet) end(k *killer) {
	k.dead.Store(true)
	for _, w := range f.worlds {
		if w.l != nil {
			_ = w.l.Close()
		}
	}
	if f.syncer != nil {
		f.syncer.stop()
	}
}

// work runs operations until the process is killed.
func (f *fleet) work(k *killer, ops string) {
	for i := 0; i < len(ops) && !k.dead.Load(); i++ {
		f.mu.Lock()
		on := f.rng.IntN(fleetLogs)
		f.mu.Unlock()
		f.do(ops[i], on)
	}
}

// killThenCrash lets processes be killed after some operations each, and then the power be lost at operations of one more process, which
// found what the others had not synced.
func killThenCrash(t testing.TB, bytes int64, works []string, kills []int64, every int, rng *rand.Rand) (crashes int, killed bool) {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 0, rng)
	f.bytes = bytes
	f.end(f.process(never))
	for i, left := range kills {
		k := f.process(left)
		f.work(k, works[i])
		killed = k.dead.Load()
		f.end(k)
	}
	f.mu.Lock()
	f.every, f.armed = every, true
	f.mu.Unlock()
	k := f.process(never)
	f.work(k, works[len(kills)])
	clones := f.disarm("at the end")
	f.end(k)
	for _, cl := range clones {
		cl.op = fmt.Sprintf("journal %d, %v killed after %v: %s", bytes, works, kills, cl.op)
		f.verify(cl)
	}
	return len(clones), killed
}

// TestKillThenCrashExhaustive kills at every operation of short workloads, and loses the power at operations of what follows.
func TestKillThenCrashExhaustive(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 42))
	crashes, kills := 0, 0
	for _, ops := range fleetOps {
		for _, before := range []string{"+", "A+ah"} {
			if !stress && rng.IntN(8) > 0 {
				continue
			}
			for _, bytes := range []int64{-1, MinJournalBytes} {
				for left, killed := int64(1), true; killed; left++ {
					if !stress {
						left += rng.Int64N(8)
					}
					var n int
					n, killed = killThenCrash(t, bytes, []string{before + string(ops), "+a"}, []int64{left}, 8, rng)
					crashes, kills = crashes+n, kills+1
				}
			}
		}
	}
	t.Logf("%d kills, %d crashes", kills, crashes)
}

// TestKillThenCrashRandom kills several processes in turn.
func TestKillThenCrashRandom(t *testing.T) {
	cycles := 200
	if stress {
		cycles = 20000
	}
	rng, crashes, kills := rand.New(rand.NewPCG(43, 44)), 0, 0
	for crashes < cycles {
		var works []string
		var lefts []int64
		for range 1 + rng.IntN(3) {
			lefts = append(lefts, 1+rng.Int64N(150))
		}
		for range len(lefts) + 1 {
			var ops strings.Builder
			for range 1 + rng.IntN(15) {
				ops.WriteByte(("++aah" + fleetOps)[rng.IntN(5+len(fleetOps))])
			}
			works = append(works, ops.String())
		}
		n, _ := killThenCrash(t, []int64{-1, MinJournalBytes, MinJournalBytes}[rng.IntN(3)], works, lefts, 5, rng)
		crashes, kills = crashes+n, kills+len(lefts)
	}
	t.Logf("%d kills, %d crashes", kills, crashes)
}
