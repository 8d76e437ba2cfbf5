package plog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

var stress = os.Getenv("REPLICANODE_STRESS") == "1"

// state is what a log must hold: the oracle of the crash and model tests.
type state struct {
	base, baseTerm uint64
	hs             HardState
	entries        []Entry
}

func (s *state) last() uint64 { return s.base + uint64(len(s.entries)) }

func (s *state) lastTerm() uint64 {
	if len(s.entries) == 0 {
		return s.baseTerm
	}
	return s.entries[len(s.entries)-1].Term
}

func (s *state) append(es []Entry, hs *HardState) {
	if len(es) > 0 {
		s.entries = append(s.entries[:es[0].Index-s.base-1:es[0].Index-s.base-1], es...)
	}
	if hs != nil {
		s.hs = *hs
	}
}

func (s *state) release(index uint64) {
	s.baseTerm = s.entries[index-s.base-1].Term
	s.entries = slices.Clone(s.entries[index-s.base:])
	s.base = index
}

func (s *state) reset(index, term uint64) {
	s.base, s.baseTerm, s.entries = index, term, nil
}

// diff says how the log differs from s.
func (s *state) diff(l *Log) error {
	hs := s.hs
	hs.Commit = max(hs.Commit, s.base)
	if got := l.HardState(); got != hs {
		return fmt.Errorf("hard state %v, want %v", got, hs)
	}
	if l.FirstIndex() != s.base+1 || l.LastIndex() != s.last() || l.DurableIndex() != s.last() {
		return fmt.Errorf("log is [%d,%d], want [%d,%d]", l.FirstIndex(), l.LastIndex(), s.base+1, s.last())
	}
	if term, err := l.Term(s.base); err != nil || term != s.baseTerm {
		return fmt.Errorf("base term %d %v, want %d", term, err, s.baseTerm)
	}
	got, err := l.Entries(s.base+1, s.last()+1, 1<<40)
	if err != nil {
		return err
	}
	for i, w := range s.entries {
		if g := got[i]; g.Index != w.Index || g.Term != w.Term || g.Type != w.Type || string(g.Data) != string(w.Data) {
			return fmt.Errorf("entry %d is %d/%d, want %d/%d, or its data differs", i, g.Index, g.Term, w.Index, w.Term)
		}
		if term, err := l.Term(w.Index); err != nil || term != w.Term {
			return fmt.Errorf("term of %d: %d %v, want %d", w.Index, term, err, w.Term)
		}
	}
	return nil
}

// crasher takes crash clones of a file system before its write operations, with what was acknowledged then.
type crasher struct {
	mem   *vfs.MemFS
	every int // percentage of operations that are followed by a crash
	rng   *rand.Rand

	mu     sync.Mutex
	states []state // all states the log was asked to take, in order
	acked  int     // the last one acknowledged
	armed  bool
	clones []crashClone
	ops    int
}

type crashClone struct {
	fs       *vfs.MemFS
	from, to int // any of these states is right
	op       string
}

func (c *crasher) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops++
	if c.armed && c.rng.IntN(100) < c.every {
		c.take(fmt.Sprintf("before op %d (kind %d) on %s", c.ops, op.Kind, op.Path))
	}
	return nil
}

func (c *crasher) String() string { return "crasher" }

func (c *crasher) take(op string) {
	for _, percent := range []int{0, 50, 100} {
		fs := c.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: c.rng})
		c.clones = append(c.clones, crashClone{fs: fs, from: c.acked, to: len(c.states) - 1, op: fmt.Sprintf("%d%% kept, %s", percent, op)})
	}
}

// propose adds the state the log will have if the coming operation is done; the clones after accept both.
func (c *crasher) propose(change func(*state)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.states[len(c.states)-1]
	change(&s)
	c.states = append(c.states, s)
}

func (c *crasher) ack(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.acked = max(c.acked, n)
}

func (c *crasher) current() state {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.states[len(c.states)-1]
}

// world runs operations against a log whose file system crashes.
type world struct {
	t    testing.TB
	c    *crasher
	fs   vfs.FS
	l    *Log
	opts Options

	openLog func(fs vfs.FS) (*Log, error) // nil: at the usual place
	killed  func() bool                   // nil: never
}

// must ends the test because of an error, unless the process was killed.
func (w *world) must(err error) {
	w.t.Helper()
	if err != nil && (w.killed == nil || !w.killed()) {
		w.t.Fatal(err)
	}
}

func newWorld(t testing.TB, mem *vfs.MemFS, s state, syncer *Syncer, every int, rng *rand.Rand) *world {
	c := &crasher{mem: mem, every: every, rng: rand.New(rand.NewPCG(rng.Uint64(), 5)), states: []state{s}}
	w := &world{t: t, c: c, fs: errorfs.Wrap(mem, c), opts: Options{Syncer: syncer, SegmentBytes: 16 << 10, CacheBytes: 1}}
	return w
}

func (w *world) tryOpen(fs vfs.FS) (*Log, error) {
	if w.openLog != nil {
		return w.openLog(fs)
	}
	return tryOpen(fs, w.opts)
}

func (w *world) open() {
	w.t.Helper()
	l, err := w.tryOpen(w.fs)
	w.must(err)
	w.l = l
}

func (w *world) append(es []Entry, hs *HardState) {
	w.c.propose(func(s *state) { s.append(es, hs) })
	n := len(w.c.states) - 1
	done := make(chan error, 1)
	if err := w.l.Append(es, hs, func(err error) {
		if err == nil {
			w.c.ack(n)
		}
		done <- err
	}); err != nil {
		w.must(err)
		return
	}
	w.must(<-done)
}

// do runs one operation of the small language of the crash tests.
func (w *world) do(op byte) {
	s := w.c.current()
	hs := &HardState{Term: s.hs.Term + 1, Vote: s.last(), Commit: 0}
	switch op {
	case 'a': // one small entry
		w.append(batch(s.last()+1, 1, s.lastTerm(), 300), nil)
	case 'h': // hard state alone
		w.append(nil, hs)
	case 'A': // several blocks, two terms, hard state
		es := append(batch(s.last()+1, 2, s.lastTerm(), 2000), batch(s.last()+3, 2, s.lastTerm()+1, 1500)...)
		w.append(es, hs)
	case 'b': // a segment of its own
		w.append(batch(s.last()+1, 2, s.lastTerm(), 11000), hs)
	case 't', 'T': // replace one entry, or nearly all
		if len(s.entries) == 0 {
			return
		}
		at := s.last()
		if op == 'T' {
			at = s.base + 1 + uint64(len(s.entries))/4
		}
		w.append(batch(at, 2, s.lastTerm()+1, 700), hs)
	case 'r', 'R': // release half, or all
		if len(s.entries) == 0 {
			return
		}
		index := s.base + 1 + uint64(len(s.entries)-1)/2
		if op == 'R' {
			index = s.last()
		}
		w.c.propose(func(s *state) { s.release(index) })
		w.change(w.l.Release(index))
	case 'o': // reopen
		w.must(w.l.Close())
		w.open()
	case 'z': // start anew
		w.c.propose(func(s *state) { s.reset(s.last()+100, s.lastTerm()+3) })
		s := w.c.current()
		w.change(w.l.Reset(s.base, s.baseTerm))
	}
}

// change takes the result of what is done when it returns.
func (w *world) change(err error) {
	w.t.Helper()
	if w.must(err); err == nil {
		w.c.ack(len(w.c.states) - 1)
	}
}

// verify opens a clone and returns the state it is in.
func (w *world) verify(cl crashClone) (state, *Log) {
	w.t.Helper()
	l, err := w.tryOpen(cl.fs)
	if err != nil {
		w.t.Fatalf("%s: %v", cl.op, err)
	}
	var errs []error
	for i := cl.from; i <= cl.to; i++ {
		err := w.c.states[i].diff(l)
		if err == nil {
			return w.c.states[i], l
		}
		errs = append(errs, fmt.Errorf("state %d: %w", i, err))
	}
	w.t.Fatalf("%s: none of the states %d..%d: %v", cl.op, cl.from, cl.to, errors.Join(errs...))
	return state{}, nil
}

func startSyncer(t testing.TB) *Syncer {
	s := NewSyncer(SyncerOptions{Workers: 2})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.stop() })
	return s
}

// crashWorkload runs ops on a prepared log, crashing at every file operation, and goes on after each crash.
func crashWorkload(t testing.TB, syncer *Syncer, prepared string, ops string, seed uint64) int {
	rng := rand.New(rand.NewPCG(seed, 1))
	w := newWorld(t, vfs.NewCrashableMem(), state{}, syncer, 100, rng)
	w.open()
	for i := range len(prepared) {
		w.do(prepared[i])
	}
	w.c.mu.Lock()
	w.c.armed, w.c.acked = true, len(w.c.states)-1
	w.c.mu.Unlock()
	for i := range len(ops) {
		w.do(ops[i])
	}
	closeLog(t, w.l)
	w.c.take("at the end")
	for _, cl := range w.c.clones {
		cl.op = prepared + "|" + ops + ": " + cl.op
		s, l := w.verify(cl)
		es := batch(s.last()+1, 2, s.lastTerm()+1, 500)
		mustAppend(t, l, es, nil)
		s.append(es, nil)
		after := cl.fs.CrashClone(vfs.CrashCloneCfg{})
		closeLog(t, l)
		l2 := open(t, after, w.opts)
		if err := s.diff(l2); err != nil {
			t.Fatalf("%s: after one more batch and a crash: %v", cl.op, err)
		}
		closeLog(t, l2)
	}
	return len(w.c.clones)
}

const crashOps = "ahAbtTrRoz"

func TestCrashExhaustive(t *testing.T) {
	var workloads []string
	for i := range len(crashOps) {
		workloads = append(workloads, crashOps[i:i+1])
		for j := range len(crashOps) {
			workloads = append(workloads, string([]byte{crashOps[i], crashOps[j]}))
			for k := range len(crashOps) {
				workloads = append(workloads, string([]byte{crashOps[i], crashOps[j], crashOps[k]}))
			}
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	if !stress {
		rng.Shuffle(len(workloads), func(i, j int) { workloads[i], workloads[j] = workloads[j], workloads[i] })
		workloads = workloads[:30]
	}
	syncer := startSyncer(t)
	crashes := 0
	for i, ops := range workloads {
		for _, prepared := range []string{"", "AaA"} {
			crashes += crashWorkload(t, syncer, prepared, ops, uint64(i))
		}
	}
	t.Logf("%d workloads, %d crashes", len(workloads)*2, crashes)
}

// TestCrashRandom runs long random workloads, each of which goes on from one of its crashes, again and again.
func TestCrashRandom(t *testing.T) {
	cycles := 3000
	if stress {
		cycles = 100000
	}
	syncer := startSyncer(t)
	rng := rand.New(rand.NewPCG(3, 4))
	mem, s := vfs.NewCrashableMem(), state{}
	for n := 0; n < cycles; {
		w := newWorld(t, mem, s, syncer, 10, rng)
		w.c.armed = true
		w.open()
		if err := s.diff(w.l); err != nil {
			t.Fatal(err)
		}
		var trace []byte
		for range 1 + rng.IntN(12) {
			op := crashOps[rng.IntN(len(crashOps))]
			trace = append(trace, op)
			w.do(op)
		}
		w.c.mu.Lock()
		w.c.take("while open")
		clones := w.c.clones
		w.c.mu.Unlock()
		closeLog(t, w.l)
		pick := rng.IntN(len(clones))
		for i, cl := range clones {
			cl.op = string(trace) + ": " + cl.op
			got, l := w.verify(cl)
			n++
			if i == pick {
				s, mem = got, cl.fs.CrashClone(vfs.CrashCloneCfg{})
				s.entries = slices.Clone(s.entries)
			}
			closeLog(t, l)
		}
		if len(s.entries) > 300 {
			mem, s = vfs.NewCrashableMem(), state{}
		}
	}
}
