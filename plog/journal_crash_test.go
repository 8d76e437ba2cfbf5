package plog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"replicanode/internal/dirsync"
)

const fleetLogs = 3

// fleetPartitions are those of a fleet's logs.
func fleetPartitions() (all []uint32) {
	for i := range uint32(fleetLogs) {
		all = append(all, i)
	}
	return all
}

func fleetDir(partition uint32) string { return fmt.Sprintf("/d/partitions/%d/plog", partition) }

// makeFolders makes what the logs' folders are made in, durably.
func makeFolders(t testing.TB, fs vfs.FS) {
	t.Helper()
	dirs := []string{"/", "/d", "/d/partitions"}
	for i := range uint32(fleetLogs) {
		dirs = append(dirs, fs.PathDir(fleetDir(i)))
	}
	for _, dir := range dirs[1:] {
		if err := fs.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range dirs {
		if err := dirsync.Sync(fs, dir); err != nil {
			t.Fatal(err)
		}
	}
}

// startJournaled brings back the journal of fs and starts a Syncer that uses it, for lone logs too.
func startJournaled(t testing.TB, fs vfs.FS, bytes int64) (*Syncer, JournalReport, error) {
	t.Helper()
	j, report, err := OpenJournal("/d/journal", JournalOptions{FS: fs, Bytes: bytes, LogDir: fleetDir, Partitions: fleetPartitions()})
	if err != nil {
		return nil, report, err
	}
	s := NewSyncer(SyncerOptions{Workers: 3, Journal: j})
	s.always = true
	s.start()
	return s, report, nil
}

// fleet is several logs that share a Syncer with a journal, whose file system crashes.
type fleet struct {
	t      testing.TB
	mem    *vfs.MemFS
	fs     vfs.FS
	bytes  int64
	syncer *Syncer
	worlds [fleetLogs]*world

	mu     sync.Mutex
	rng    *rand.Rand
	every  int // percentage of operations that are followed by a crash
	armed  bool
	kept   []int // percentages of unsynced data
	ops    int
	clones []fleetClone
}

type fleetClone struct {
	mem      *vfs.MemFS
	from, to [fleetLogs]int
	op       string
}

func (f *fleet) String() string { return "fleet" }

func (f *fleet) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
		return nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ops++
	if f.armed && f.rng.IntN(100) < f.every {
		f.take(fmt.Sprintf("before op %d (kind %d) on %s", f.ops, op.Kind, op.Path))
	}
	return nil
}

// take takes crash clones. mu is held.
func (f *fleet) take(op string) {
	var cl fleetClone
	for i, w := range f.worlds {
		w.c.mu.Lock()
		cl.from[i], cl.to[i] = w.c.acked, len(w.c.states)-1
		w.c.mu.Unlock()
	}
	for _, percent := range f.kept {
		cl.op = fmt.Sprintf("%d%% kept, %s", percent, op)
		cl.mem = f.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: f.rng})
		f.clones = append(f.clones, cl)
	}
}

func newFleet(t testing.TB, mem *vfs.MemFS, states [fleetLogs]state, every int, rng *rand.Rand) *fleet {
	f := &fleet{t: t, mem: mem, bytes: MinJournalBytes, every: every, kept: []int{0, 50, 100}, rng: rand.New(rand.NewPCG(rng.Uint64(), 9))}
	f.fs = errorfs.Wrap(mem, f)
	makeFolders(t, mem)
	for i := range f.worlds {
		w := newWorld(t, mem, states[i], nil, 0, rng)
		w.fs = f.fs
		w.openLog = func(fs vfs.FS) (*Log, error) { return f.openLog(f.syncer, fs, i) }
		f.worlds[i] = w
	}
	return f
}

func (f *fleet) openLog(s *Syncer, fs vfs.FS, i int) (*Log, error) {
	o := f.worlds[i].opts
	o.FS, o.Syncer = fs, s
	return Open(fleetDir(uint32(i)), uint32(i), o)
}

func (f *fleet) start() {
	f.t.Helper()
	var err error
	if f.syncer, _, err = startJournaled(f.t, f.fs, f.bytes); err != nil {
		f.worlds[0].must(err)
		return
	}
	for _, w := range f.worlds {
		w.open()
	}
}

func (f *fleet) stop() {
	for _, w := range f.worlds {
		w.must(w.l.Close())
	}
	f.syncer.stop()
}

// do runs an operation: on one log, "+": an append to all at the same time, "P": the process is stopped and started again,
// "K": it is killed, with all that was not synced.
func (f *fleet) do(op byte, on int) {
	switch op {
	case '+':
		var wg sync.WaitGroup
		for _, w := range f.worlds {
			wg.Go(func() { w.do('a') })
		}
		wg.Wait()
	case 'P':
		f.stop()
		f.start()
	case 'K':
		lost := f.mem.CrashClone(vfs.CrashCloneCfg{})
		f.stop()
		f.mem, f.fs = lost, errorfs.Wrap(lost, f)
		for i, w := range f.worlds {
			w.fs, w.c.mem = f.fs, lost
			w.openLog = func(fs vfs.FS) (*Log, error) { return f.openLog(f.syncer, fs, i) }
		}
		f.start()
	default:
		f.worlds[on].do(op)
	}
}

// settled is the state all logs are in after the operations so far.
func (f *fleet) arm() {
	for _, w := range f.worlds {
		w.c.ack(len(w.c.states) - 1)
	}
	f.mu.Lock()
	f.armed = true
	f.mu.Unlock()
}

func (f *fleet) disarm(op string) []fleetClone {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.take(op)
	f.armed = false
	return f.clones
}

// verify starts a process on a clone, in which the logs must be in states they may be in, and goes on writing.
func (f *fleet) verify(cl fleetClone) (states [fleetLogs]state) {
	f.t.Helper()
	s, _, err := startJournaled(f.t, cl.mem, f.bytes)
	if err != nil {
		f.t.Fatalf("%s: %v", cl.op, err)
	}
	var logs [fleetLogs]*Log
	for i, w := range f.worlds {
		w.openLog = func(fs vfs.FS) (*Log, error) { return f.openLog(s, fs, i) }
		states[i], logs[i] = w.verify(crashClone{fs: cl.mem, from: cl.from[i], to: cl.to[i], op: fmt.Sprintf("log %d: %s", i, cl.op)})
	}
	var after [fleetLogs]state
	for i, l := range logs {
		es := batch(states[i].last()+1, 2, states[i].lastTerm()+1, 500)
		mustAppend(f.t, l, es, nil)
		after[i] = states[i]
		after[i].entries = slices.Clone(states[i].entries)
		after[i].append(es, nil)
	}
	lost := cl.mem.CrashClone(vfs.CrashCloneCfg{})
	for _, l := range logs {
		closeLog(f.t, l)
	}
	s.stop()
	if s, _, err = startJournaled(f.t, lost, f.bytes); err != nil {
		f.t.Fatalf("%s: after one more batch and a crash: %v", cl.op, err)
	}
	for i := range logs {
		l, err := f.openLog(s, lost, i)
		if err == nil {
			err = after[i].diff(l)
		}
		if err != nil {
			f.t.Fatalf("%s: log %d after one more batch and a crash: %v", cl.op, i, err)
		}
		closeLog(f.t, l)
	}
	s.stop()
	return states
}

// crashInRedo crashes a process that brings the journal back, and returns what is left then.
func (f *fleet) crashInRedo(cl fleetClone, every int) (left []fleetClone) {
	var mu sync.Mutex
	fs := errorfs.Wrap(cl.mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if f.rng.IntN(100) < every {
			c := cl
			c.op = fmt.Sprintf("%s; in redo before kind %d on %s", cl.op, op.Kind, op.Path)
			c.mem = cl.mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: []int{0, 50, 100}[f.rng.IntN(3)], RNG: f.rng})
			left = append(left, c)
		}
		return nil
	}))
	s, _, err := startJournaled(f.t, fs, f.bytes)
	if err != nil {
		f.t.Fatal(err)
	}
	s.stop()
	return left
}

const fleetOps = crashOps + "+P"

// TestJournalCrashExhaustive crashes at every file operation of all short workloads on the first of three logs that share a journal. What was
// prepared before is covered by the journal alone.
func TestJournalCrashExhaustive(t *testing.T) {
	var workloads []string
	for i := range len(fleetOps) {
		workloads = append(workloads, fleetOps[i:i+1])
		for j := range len(fleetOps) {
			workloads = append(workloads, string([]byte{fleetOps[i], fleetOps[j]}))
			for k := range len(fleetOps) {
				workloads = append(workloads, string([]byte{fleetOps[i], fleetOps[j], fleetOps[k]}))
			}
		}
	}
	rng := rand.New(rand.NewPCG(11, 2))
	if !stress {
		rng.Shuffle(len(workloads), func(i, j int) { workloads[i], workloads[j] = workloads[j], workloads[i] })
		workloads = workloads[:6]
	}
	crashes := 0
	for _, ops := range workloads {
		for _, prepared := range []string{"+", "++a+h+"} {
			crashes += fleetWorkload(t, prepared, ops, rng)
		}
	}
	t.Logf("%d workloads, %d crashes", len(workloads)*2, crashes)
}

func fleetWorkload(t testing.TB, prepared, ops string, rng *rand.Rand) int {
	f := newFleet(t, vfs.NewCrashableMem(), [fleetLogs]state{}, 100, rng)
	f.start()
	for i := range len(prepared) {
		f.do(prepared[i], 0)
	}
	f.arm()
	for i := range len(ops) {
		f.do(ops[i], 0)
	}
	clones := f.disarm("at the end")
	f.stop()
	for _, cl := range clones {
		cl.op = prepared + "|" + ops + ": " + cl.op
		if f.rng.IntN(10) == 0 {
			for _, again := range f.crashInRedo(fleetClone{cl.mem.CrashClone(vfs.CrashCloneCfg{}), cl.from, cl.to, cl.op}, 20) {
				f.verify(again)
			}
		}
		f.verify(cl)
	}
	return len(clones)
}

// TestJournalCrashRandom runs long random workloads on all logs, which fill the areas of a small journal again and again, and goes on from one
// of the crashes.
func TestJournalCrashRandom(t *testing.T) {
	cycles := 250
	if stress {
		cycles = 30000
	}
	rng := rand.New(rand.NewPCG(13, 4))
	mem, states := vfs.NewCrashableMem(), [fleetLogs]state{}
	for n := 0; n < cycles; {
		f := newFleet(t, mem, states, 3, rng)
		f.start()
		for i, w := range f.worlds {
			if err := states[i].diff(w.l); err != nil {
				t.Fatal(err)
			}
		}
		f.arm()
		var trace strings.Builder
		for range 1 + rng.IntN(40) {
			op, on := fleetOps[rng.IntN(len(fleetOps))], rng.IntN(fleetLogs)
			if rng.IntN(2) == 0 {
				op = "ah+"[rng.IntN(3)]
			}
			fmt.Fprintf(&trace, "%c%d", op, on)
			f.do(op, on)
		}
		clones := f.disarm("while open")
		f.stop()
		pick := rng.IntN(len(clones))
		for i, cl := range clones {
			cl.op = trace.String() + ": " + cl.op
			if i == pick {
				mem = cl.mem.CrashClone(vfs.CrashCloneCfg{})
			}
			got := f.verify(cl)
			n++
			if i == pick {
				states = got
				for k := range states {
					states[k].entries = slices.Clone(states[k].entries)
				}
			}
		}
		for k := range states {
			if len(states[k].entries) > 300 {
				mem, states = vfs.NewCrashableMem(), [fleetLogs]state{}
				break
			}
		}
	}
}

func newRand() *rand.Rand { return rand.New(rand.NewPCG(21, 22)) }
