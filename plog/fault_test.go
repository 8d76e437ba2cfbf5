package plog

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// faults fails the n-th write operation, and all after it while sticky.
type faults struct {
	mu     sync.Mutex
	n      int // operations until the failure; negative: never
	err    error
	sticky bool
	only   func(errorfs.Op) bool
	hit    string
}

func (f *faults) String() string { return "faults" }

func (f *faults) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead || op.Kind == errorfs.OpRemove || f.only != nil && !f.only(op) {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n--
	if f.n == 0 || f.n < 0 && f.sticky && f.hit != "" {
		f.hit = fmt.Sprintf("kind %d on %s", op.Kind, op.Path)
		return fmt.Errorf("%s: %w", f.hit, f.err)
	}
	return nil
}

func (f *faults) heal() (hit string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.n, f.sticky = -1, false
	return f.hit
}

// faultRun applies ops, one of which meets an error, and returns the acknowledged states.
type faultRun struct {
	t      *testing.T
	l      *Log
	states []state // [0] is acknowledged for sure, later ones may be in the log
}

func (r *faultRun) try(change func(*state), do func() error) error {
	s := r.states[len(r.states)-1]
	change(&s)
	err := do()
	if err == nil {
		r.states = []state{s}
	} else {
		r.states = append(r.states[:1:1], s)
	}
	return err
}

func (r *faultRun) do(op byte) error {
	s := r.states[0]
	r.states = r.states[:1]
	hs := &HardState{Term: s.hs.Term + 1}
	add := func(es []Entry, hs *HardState) error {
		return r.try(func(s *state) { s.append(es, hs) }, func() error { return appendSync(r.l, es, hs) })
	}
	switch op {
	case 'a':
		return add(batch(s.last()+1, 1, s.lastTerm(), 300), hs)
	case 'b':
		return add(batch(s.last()+1, 2, s.lastTerm(), 11000), nil)
	case 't':
		return add(batch(s.last(), 2, s.lastTerm()+1, 900), hs)
	case 'r':
		index := s.base + 1 + uint64(len(s.entries)-1)/2
		return r.try(func(s *state) { s.release(index) }, func() error { return r.l.Release(index) })
	case 'z':
		return r.try(func(s *state) { s.reset(s.last()+9, s.lastTerm()+1) }, func() error { return r.l.Reset(s.last()+9, s.lastTerm()+1) })
	}
	return nil
}

const faultOps = "aabatabraabzatarab"

// TestDiskFull lets every single operation fail with ENOSPC in turn: each append fails as ErrDiskFull or works, the
// log shows exactly what was acknowledged, and goes on once there is space.
func TestDiskFull(t *testing.T) {
	syncer := startSyncer(t)
	for n := 1; ; n++ {
		f := &faults{n: n, err: syscall.ENOSPC, sticky: true, only: func(op errorfs.Op) bool {
			return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite || op.Kind == errorfs.OpFileWriteAt ||
				op.Kind == errorfs.OpFilePreallocate || op.Kind == errorfs.OpMkdirAll
		}}
		mem := vfs.NewMem()
		opts := Options{Syncer: syncer, SegmentBytes: 16 << 10, CacheBytes: 1, MaxSpares: -1}
		l, err := tryOpen(errorfs.Wrap(mem, f), opts)
		if err != nil {
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			continue
		}
		r := &faultRun{t: t, l: l, states: []state{{}}}
		for i := range len(faultOps) {
			err := r.do(faultOps[i])
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrDiskFull) {
				t.Fatalf("n=%d, %c: %v is not ErrDiskFull", n, faultOps[i], err)
			}
			r.states = r.states[:1]
			if err := r.states[0].diff(l); err != nil {
				t.Fatalf("n=%d, %c, full: %v", n, faultOps[i], err)
			}
			f.heal()
			err = r.do(faultOps[i])
			if errors.Is(err, ErrDiskFull) {
				err = r.do(faultOps[i]) // the first append after it is refused
			}
			if err != nil {
				t.Fatalf("n=%d, %c, space again: %v", n, faultOps[i], err)
			}
		}
		if err := r.states[0].diff(l); err != nil {
			t.Fatalf("n=%d: %v", n, err)
		}
		hit := f.heal()
		closeLog(t, l)
		l = open(t, mem, opts)
		if err := r.states[0].diff(l); err != nil {
			t.Fatalf("n=%d, reopened: %v", n, err)
		}
		closeLog(t, l)
		if hit == "" {
			if n < 20 {
				t.Fatalf("only %d operations", n)
			}
			return
		}
	}
}

// TestFailure lets every single operation fail with EIO in turn. The log either does not need it or is dead; then
// nothing is acknowledged any more, whatever a later sync says, and what was acknowledged is there after reopening.
func TestFailure(t *testing.T) {
	syncer := startSyncer(t)
	for n := 1; ; n++ {
		f := &faults{n: n, err: syscall.EIO}
		mem := vfs.NewCrashableMem()
		opts := Options{Syncer: syncer, SegmentBytes: 16 << 10, CacheBytes: 1}
		l, err := tryOpen(errorfs.Wrap(mem, f), opts)
		if err != nil {
			if !errors.Is(err, syscall.EIO) {
				t.Fatal(err)
			}
			continue
		}
		r := &faultRun{t: t, l: l, states: []state{{}}}
		var failed error
		for i := range len(faultOps) {
			if failed = r.do(faultOps[i]); failed == nil {
				continue
			}
			if !errors.Is(failed, syscall.EIO) || !errors.Is(l.Failed(), ErrFailed) {
				t.Fatalf("n=%d, %c: %v, %v", n, faultOps[i], failed, l.Failed())
			}
			states := slices.Clone(r.states)
			for _, op := range []byte("abza") {
				if err := r.do(op); !errors.Is(err, ErrFailed) {
					t.Fatalf("n=%d: %c on a dead log: %v", n, op, err)
				}
				r.states = slices.Clone(states)
			}
			break
		}
		hit := f.heal()
		_ = l.Close()
		l = open(t, mem.CrashClone(vfs.CrashCloneCfg{}), opts)
		if err := r.states[0].diff(l); err != nil && (len(r.states) < 2 || r.states[1].diff(l) != nil) {
			t.Fatalf("n=%d, %s, reopened: %v", n, hit, err)
		}
		closeLog(t, l)
		if hit == "" {
			return
		}
	}
}

// TestDiskFullPipelined fails one of many batches in flight: the acknowledged ones are a prefix, and exactly it is left.
func TestDiskFullPipelined(t *testing.T) {
	syncer := startSyncer(t)
	for n := 1; n < 60; n++ {
		f := &faults{n: 1 << 30, err: syscall.ENOSPC, only: func(op errorfs.Op) bool { return op.Kind != errorfs.OpFileSyncData && op.Kind != errorfs.OpFileSync }}
		l, err := tryOpen(errorfs.Wrap(vfs.NewMem(), f), Options{Syncer: syncer, SegmentBytes: 16 << 10, CacheBytes: 1})
		if err != nil {
			t.Fatal(err)
		}
		f.mu.Lock()
		f.n = n
		f.mu.Unlock()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var s, acked state
		bad := 0
		add := func(es []Entry) bool {
			wg.Add(1)
			after := s
			after.append(es, nil)
			err := l.Append(es, nil, func(err error) {
				defer wg.Done()
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil && bad > 0:
					t.Errorf("n=%d: acknowledged after a failed one", n)
				case err == nil:
					acked = after
				case !errors.Is(err, ErrDiskFull):
					t.Errorf("n=%d: %v", n, err)
				default:
					bad++
				}
			})
			if err != nil {
				wg.Done()
				return false
			}
			s = after
			return true
		}
		for i := range 80 {
			es := batch(s.last()+1, 2, s.lastTerm(), 500)
			if i%13 == 12 || i%13 == 5 {
				es = batch(s.last()-1, 3, s.lastTerm()+1, 400)
			}
			if !add(es) {
				break
			}
		}
		wg.Wait()
		if err := acked.diff(l); err != nil {
			t.Fatalf("n=%d: %v", n, err)
		}
		f.heal()
		es := batch(acked.last()+1, 2, acked.lastTerm(), 5000)
		if err := appendSync(l, es, nil); errors.Is(err, ErrDiskFull) {
			mustAppend(t, l, es, nil)
		}
		acked.append(es, nil)
		if err := acked.diff(l); err != nil {
			t.Fatalf("n=%d, space again: %v", n, err)
		}
		closeLog(t, l)
	}
}

// TestBallast releases on a disk so full that only the ballast makes room for the manifest.
func TestBallast(t *testing.T) {
	mem := vfs.NewMem()
	full := false
	var mu sync.Mutex
	f := errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := mem.Stat("/plog/" + ballastName)
		if full && err == nil && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite) {
			return syscall.ENOSPC
		}
		return nil
	})
	l, err := tryOpen(errorfs.Wrap(mem, f), Options{BallastBytes: 4096})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, batch(1, 5, 1, 100), nil)
	mu.Lock()
	full = true
	mu.Unlock()
	if err := l.Release(3); err != nil {
		t.Fatal(err)
	}
	check(t, l, 3, batch(1, 5, 1, 100)[3:])
	mu.Lock()
	full = false
	mu.Unlock()
	if err := l.Release(4); err != nil {
		t.Fatal(err)
	}
	if _, err := mem.Stat("/plog/" + ballastName); err != nil {
		t.Fatalf("ballast not taken back: %v", err)
	}
	closeLog(t, l)
}

// TestAllocations holds appends and reads to no allocation per record.
func TestAllocations(t *testing.T) {
	l := open(t, vfs.NewMem(), Options{SegmentBytes: 8 << 20, CacheBytes: 64 << 10})
	es := batch(1, 64, 1, 100)
	done := make(chan error, 1)
	ack := func(err error) { done <- err }
	add := func() {
		next := l.LastIndex() + 1
		for i := range es {
			es[i].Index = next + uint64(i)
		}
		if err := l.Append(es, nil, ack); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	for range 50 {
		add()
	}
	if n := testing.AllocsPerRun(200, add); n >= 16 {
		t.Errorf("%v allocations per batch of 64", n)
	}
	l.SetCommitted(l.LastIndex())
	r, err := l.NewReader(1)
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(10000, func() {
		if _, err := r.Next(); err != nil {
			t.Fatal(err)
		}
	}); n > 0.1 {
		t.Errorf("%v allocations per read record", n)
	}
	_ = r.Close()
	closeLog(t, l)
}
