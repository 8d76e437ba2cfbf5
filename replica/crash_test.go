package replica

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"replicanode/replica/mutation"
)

const crashDirEnv = "REPLICANODE_TEST_CRASH_DIR"

// crashRounds is how often the child is killed; more with REPLICANODE_STRESS=1.
func crashRounds() int {
	if os.Getenv("REPLICANODE_STRESS") == "1" {
		return 100
	}
	return 4
}

// TestKill runs a child under load, kills it without warning at a random moment, and checks in the next one that
// everything acknowledged is there, counters are exact and duplicated batches took effect once. The child's memtables
// are small, so that the moments fall into flushes and compactions too.
func TestKill(t *testing.T) {
	if os.Getenv(crashDirEnv) != "" {
		t.Skip("this is the child")
	}
	dir := testDir(t)
	want := newCrashLedger()
	for round := range crashRounds() {
		runCrashChild(t, dir, round, want)
	}
	o := testOptions(t, dir)
	o.Partitions = crashPartitions
	n := startNode(t, o)
	defer n.stop(t)
	want.check(t, n)
	want.checkReplay(t, n)
}

const crashPartitions = 2

// crashLedger is what children have acknowledged.
type crashLedger struct {
	// acked is the greatest acknowledged value of every counter, sent the greatest that may have taken effect.
	acked map[string]uint64
	sent  map[string]uint64
}

func newCrashLedger() *crashLedger {
	return &crashLedger{map[string]uint64{}, map[string]uint64{}}
}

// runCrashChild starts a child, lets it work for a random time, and kills it.
func runCrashChild(t *testing.T, dir string, round int, want *crashLedger) {
	cmd := exec.Command(os.Args[0], "-test.run=TestCrashChild$", "-test.v")
	cmd.Env = append(os.Environ(), crashDirEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var timer *time.Timer
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) == 0 {
			continue
		}
		switch f[0] {
		case "ready":
			timer = time.AfterFunc(time.Duration(50+rand.IntN(500))*time.Millisecond, func() { _ = cmd.Process.Kill() })
		case "sent", "acked":
			v, err := strconv.ParseUint(f[2], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			ledger := want.acked
			if f[0] == "sent" {
				ledger = want.sent
			}
			ledger[f[1]] = max(ledger[f[1]], v)
		case "wrong":
			t.Errorf("round %d: %s", round, lines.Text())
		}
	}
	_ = cmd.Wait()
	if timer == nil {
		t.Fatalf("round %d: the child never became ready", round)
	}
	timer.Stop()
}

// check compares the state with the ledger: every counter is between what was acknowledged and what was sent.
func (l *crashLedger) check(t *testing.T, n *testNode) {
	if len(l.acked) == 0 {
		t.Fatal("nothing was acknowledged")
	}
	for name, acked := range l.acked {
		got, err := readCounter(n, name)
		if err != nil || got < acked || got > l.sent[name] {
			t.Errorf("%s is %d, acknowledged %d, sent %d, %v", name, got, acked, l.sent[name], err)
		}
	}
}

func readCounter(n *testNode, name string) (got uint64, err error) {
	kind, _, _ := strings.Cut(name, ":")
	p := n.Route([]byte(name))
	err = p.View(contextBackground, func(v *View) (err error) {
		var data []byte
		switch kind {
		case "hash":
			data, _, err = v.HashGet([]byte(name), []byte("n"))
		default:
			var value Value
			value, _, err = v.Get([]byte(name))
			data = value.Data
		}
		text, _, _ := strings.Cut(string(data), "|")
		got, _ = strconv.ParseUint(text, 10, 64)
		return err
	})
	return got, err
}

// checkReplay replays the whole log into empty databases and compares: what recovery makes of any state that a crash
// leaves is what the log says.
func (l *crashLedger) checkReplay(t *testing.T, n *testNode) {
	for _, p := range n.Partitions() {
		must(t, p.Sweep(t.Context(), nil))
		fresh := replayLog(t, p)
		must(t, fresh.Partition(0).Sweep(t.Context(), nil))
		requireSame(t, dump(t, p), dump(t, fresh.Partition(0)))
		fresh.stop(t)
	}
}

// replayLog feeds a partition's log, entry by entry, into a new host's only partition.
func replayLog(t *testing.T, p *Partition) *testNode {
	t.Helper()
	fresh := startNode(t, testOptions(t, testDir(t)))
	q := fresh.Partition(0)
	r, err := p.Log().NewReader(1)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var ev evaluator
	ev.state = state{db: q.db, overlay: newOverlay(), applied: 1 << 20, tombstoneSeconds: uint64(q.o.TombstoneTTL.Seconds())}
	ev.tx.mu.s = &ev.state
	bytes := 0
	for decree := uint64(1); decree <= p.Applied(); decree++ {
		e, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		e.Data = slices.Clone(e.Data)
		raftEntry := toRaft(&e)
		raftEntry.Index = new(decree + 1<<20)
		if err := q.prepare(&ev, raftEntry); err != nil {
			t.Fatal(err)
		}
		if bytes += len(e.Data); bytes < 1<<20 && decree < p.Applied() {
			continue
		}
		if err := q.write(&ev, raftEntry); err != nil {
			t.Fatal(err)
		}
		ev.dropForeign()
		ev.state.moveTo(raftEntry.GetIndex())
		q.applied.Store(raftEntry.GetIndex())
		ev.applier.steps, bytes = ev.applier.steps[:0], 0
	}
	ev.state.moveTo(0)
	return fresh
}

// TestCrashChild is the child of TestKill: it loads the partitions until it is killed.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDirEnv)
	if dir == "" {
		t.Skip("only as the child of TestKill")
	}
	o := testOptions(t, dir)
	o.Logger = nil
	o.Partitions = crashPartitions
	n := startNode(t, o)
	out := &lockedOut{}
	out.printf("ready\n")
	var workers sync.WaitGroup
	for i := range 16 {
		workers.Go(func() { crashWorker(n, out, i) })
	}
	for id := range uint32(crashPartitions) {
		workers.Go(func() { crashSource(n, out, id) })
	}
	for _, p := range n.Partitions() {
		workers.Go(func() {
			for {
				_ = p.Sweep(context.Background(), nil)
			}
		})
	}
	workers.Wait()
}

type lockedOut struct{ mu sync.Mutex }

func (o *lockedOut) printf(format string, v ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Printf(format, v...)
}

// crashWorker counts one key up: read, add one, write; as a string, a long string, or a field of a hash that is
// overwritten and deleted now and then.
func crashWorker(n *testNode, out *lockedOut, i int) {
	kind := []string{"string", "long", "hash"}[i%3]
	name := fmt.Sprintf("%s:%d", kind, i)
	p := n.Route([]byte(name))
	pad := strings.Repeat("x", 100)
	if kind == "long" {
		pad = strings.Repeat("y", 1000+i*i*i*400)
	}
	at, err := readCounter(n, name)
	if err != nil {
		out.printf("wrong %s: %v\n", name, err)
		return
	}
	out.printf("sent %s %d\nacked %s %d\n", name, at+1, name, at)
	for {
		var next uint64
		c := newCall(func(tx *Tx) { next = countUp(tx, kind, []byte(name), pad) })
		if err := p.Propose(c); err != nil {
			out.printf("wrong %s: %v\n", name, err)
			return
		}
		err := <-c.done
		if err != nil {
			out.printf("wrong %s: %v\n", name, err)
			return
		}
		out.printf("sent %s %d\nacked %s %d\n", name, next+1, name, next)
	}
}

func countUp(tx *Tx, kind string, key []byte, pad string) uint64 {
	if kind == "hash" {
		data, _, _ := tx.HashGet(key, []byte("n"))
		at, _ := strconv.ParseUint(string(data), 10, 64)
		at++
		switch at % 7 {
		case 0:
			_ = tx.Put(key, []byte("gone"), 0)
			_, _ = tx.Delete(key)
		case 3:
			_, _ = tx.HashDelete(key, []byte("other"))
		}
		_, _ = tx.HashPut(key, []byte("other"), []byte(pad))
		_, _ = tx.HashPut(key, []byte("n"), strconv.AppendUint(nil, at, 10))
		return at
	}
	v, _, _ := tx.Get(key)
	text, _, _ := strings.Cut(string(v.Data), "|")
	at, _ := strconv.ParseUint(text, 10, 64)
	at++
	_ = tx.Put(key, []byte(strconv.FormatUint(at, 10)+"|"+pad), 0)
	return at
}

// crashSource sends duplicated batches with gaps and repeats, and checks that progress never goes back.
func crashSource(n *testNode, out *lockedOut, id uint32) {
	p := n.Partition(id)
	name := fmt.Sprintf("source:%d", id)
	for {
		have, err := p.DuplicationProgress(99, id)
		if err != nil {
			out.printf("wrong progress: %v\n", err)
			return
		}
		b := mutation.Batch{Cluster: 99, Partition: id, Prev: have - min(have, 3), Last: have + 2}
		for d := b.Prev + 1; d <= b.Last; d++ {
			var m mutation.Builder
			m.Reset(mutation.Header{Kind: mutation.User, Timestamp: mutation.Timestamp(1000 + d), Cluster: 99})
			m.HashPut([]byte(name), []byte("n"), strconv.AppendUint(nil, d, 10))
			m.HashPut([]byte(name), strconv.AppendUint(nil, d%50, 10), []byte("v"))
			b.Mutations = append(b.Mutations, mutation.SourceMutation{Decree: d, Data: m.Bytes()})
		}
		done := make(chan uint64, 1)
		p.ApplyDuplicated(context.Background(), b, func(confirmed uint64, err error) {
			if err != nil {
				out.printf("wrong batch: %v\n", err)
			}
			done <- confirmed
		})
		if got := <-done; got != b.Last {
			out.printf("wrong confirmed %d, want %d\n", got, b.Last)
			return
		}
	}
}

// copiedTables says whether every table is in the copy: a folder that is walked while files leave it may hide others.
func copiedTables(t *testing.T, from, to string) bool {
	t.Helper()
	tables, err := filepath.Glob(filepath.Join(from, "*", DBDir, "*.sst"))
	must(t, err)
	for _, name := range tables {
		rel, err := filepath.Rel(from, name)
		must(t, err)
		if _, err := os.Stat(filepath.Join(to, rel)); err != nil {
			return false
		}
	}
	return true
}

// crashImage copies a resting host's folder as a crash of the machine would leave it: the log, and the database's
// synced files without its memtables. A compaction that goes on meanwhile makes it begin again.
func crashImage(t *testing.T, from string) string {
	t.Helper()
	manifests := func() (all string) {
		names, err := filepath.Glob(filepath.Join(from, "*", DBDir, "MANIFEST"))
		must(t, err)
		for _, name := range names {
			data, err := os.ReadFile(name)
			must(t, err)
			all += string(data)
		}
		return all
	}
	for {
		to, before := testDir(t), manifests()
		err := filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
			rel, _ := filepath.Rel(from, name)
			switch {
			case err != nil:
				return err
			case d.IsDir():
				return os.MkdirAll(filepath.Join(to, rel), 0o755)
			case filepath.Ext(name) == ".mem", d.Name() == "LOCK":
				return nil
			}
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(to, rel), data, 0o644)
		})
		if err == nil && before == manifests() && copiedTables(t, from, to) {
			return to
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
	}
}

// TestDecreeSplitOverMemtablesIsReplayedWhole: a mutation larger than several memtables is durable in part when it
// counts as the durable decree.
func TestDecreeSplitOverMemtablesIsReplayedWhole(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.MaxMutationBytes = 64 << 20
	n := startNode(t, o)
	defer n.stop(t)
	const keys = 40
	value := make([]byte, 700<<10)
	do(t, n.Partition(0), func(tx *Tx) {
		for i := range keys {
			must(t, tx.Put([]byte(key(i)), value, 0))
		}
	})
	for deadline := time.Now().Add(20 * time.Second); n.Partition(0).Durable() != n.Partition(0).Applied(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("durable %d, applied %d: the decree is not split", n.Partition(0).Durable(), n.Partition(0).Applied())
		}
	}
	o.Dir = crashImage(t, o.Dir)
	crashed := startNode(t, o)
	defer crashed.stop(t)
	for i := range keys {
		if v, ok := get(t, crashed.Partition(0), key(i)); !ok || len(v) != len(value) {
			t.Errorf("%s: %v, %d bytes", key(i), ok, len(v))
		}
	}
}

// TestCountersSurviveLosingTheMemtables: replaying repeats what the tables hold already, and reads below it.
func TestCountersSurviveLosingTheMemtables(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.BatchCommands = 1
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	pad := strings.Repeat("x", 50<<10)
	const rounds = 600
	calls := make([]*call, rounds)
	for i := range calls {
		calls[i] = newCall(func(tx *Tx) {
			countUp(tx, "string", []byte("string"), pad)
			countUp(tx, "hash", []byte("hash"), pad)
		})
		must(t, p.Propose(calls[i]))
	}
	for _, c := range calls {
		must(t, <-c.done)
	}
	if d := p.Durable(); d == 0 || d == p.Applied() {
		t.Fatalf("durable %d of %d", d, p.Applied())
	}
	o.Dir = crashImage(t, o.Dir)
	crashed := startNode(t, o)
	defer crashed.stop(t)
	for _, q := range []*Partition{p, crashed.Partition(0)} {
		must(t, q.Sweep(t.Context(), nil))
	}
	requireSame(t, dump(t, p), dump(t, crashed.Partition(0)))
}
