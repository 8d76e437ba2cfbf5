package replica

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"replicanode/plog"
)

func brokenNode(t *testing.T) (*testNode, *brokenFS) {
	dir := testDir(t)
	fs := newBrokenFS(filepath.Join(dir, PartitionDir(0)))
	o := testOptions(t, dir)
	o.Partitions, o.FS, o.Tick = 2, fs, time.Millisecond
	return startNode(t, o), fs
}

func TestFailedSyncStopsOnePartition(t *testing.T) {
	n, fs := brokenNode(t)
	p, other := n.Partition(0), n.Partition(1)
	set(t, p, "k", "v")
	broken := errors.New("the disk is gone")
	fs.failSync.Store(&broken)
	err := try(p, func(tx *Tx) { _ = tx.Put([]byte("k"), []byte("w"), 0) })
	if !errors.As(err, new(*FailedError)) || !errors.Is(err, broken) {
		t.Errorf("pending command: %v", err)
	}
	if err := try(p, func(*Tx) {}); !errors.As(err, new(*FailedError)) {
		t.Errorf("new command: %v", err)
	}
	if err := p.View(t.Context(), func(*View) error { return nil }); !errors.As(err, new(*FailedError)) {
		t.Errorf("view: %v", err)
	}
	if !errors.Is(p.Err(), broken) || p.Status().Error == "" || p.Ready() {
		t.Errorf("%v, status %+v", p.Err(), p.Status())
	}
	if err := n.WaitReady(t.Context()); !errors.Is(err, broken) {
		t.Errorf("wait: %v", err)
	}
	set(t, other, "k", "v")
	if err := n.Stop(t.Context()); !errors.Is(err, broken) {
		t.Errorf("stop: %v", err)
	}
	must(t, n.syncer.Stop(t.Context()))
}

// TestNothingFinishesBeforeItsSync, neither the writes themselves nor reads that could have seen them.
func TestNothingFinishesBeforeItsSync(t *testing.T) {
	n, fs := brokenNode(t)
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "k", "old")
	applied := p.Applied()
	hold := make(chan struct{})
	fs.holdSync.Store(&hold)
	seen := make(chan string, 10)
	var calls []*call
	for i := range 10 {
		calls = append(calls, newCall(func(tx *Tx) {
			v, _, err := tx.Get([]byte("k"))
			must(t, err)
			seen <- string(v.Data)
			if i%2 == 0 {
				must(t, tx.Put([]byte("k"), fmt.Append(nil, i), 0))
			}
		}))
		must(t, p.Propose(calls[i]))
	}
	// The first write at least is evaluated, and everything that is sees it.
	<-seen
	for range 1000 {
		runtime.Gosched()
	}
	for i, c := range calls {
		if len(c.done) > 0 {
			t.Errorf("command %d finished before the sync", i)
		}
	}
	if v, _ := get(t, p, "k"); v != "old" || p.Applied() != applied {
		t.Errorf("a view sees %q at %d before the sync", v, p.Applied())
	}
	fs.holdSync.Store(nil)
	close(hold)
	for _, c := range calls {
		must(t, <-c.done)
	}
}

func TestFullDiskRefusesWritesUntilThereIsSpace(t *testing.T) {
	n, fs := brokenNode(t)
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "k", "before")
	full := error(&os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC})
	fs.failWrite.Store(&full)

	var calls []*call
	for i := range 100 {
		c := newCall(func(tx *Tx) { _ = tx.Put([]byte("k"), fmt.Append(nil, i), 0) })
		if err := p.Propose(c); err != nil {
			if !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			continue
		}
		calls = append(calls, c)
	}
	// What waited is refused. What was proposed may be committed later, so nobody may be told that it is not.
	unknown := false
	for i, c := range calls {
		err := <-c.done
		unknown = unknown || errors.Is(err, ErrResultUnknown)
		if refused := errors.Is(err, ErrNoSpace); !refused && !errors.Is(err, ErrResultUnknown) || refused && i == 0 {
			t.Errorf("pending %d: %v", i, err)
		}
	}
	if !unknown {
		t.Error("no command was proposed")
	}
	if err := try(p, func(*Tx) {}); !errors.Is(err, ErrNoSpace) {
		t.Errorf("new: %v", err)
	}
	if v, ok := get(t, p, "k"); !ok || v != "before" {
		t.Errorf("%q %v on a full disk", v, ok)
	}
	set(t, n.Partition(1), "k", "other")
	if p.Err() != nil || p.Status().Refusing == "" {
		t.Errorf("%v, %+v", p.Err(), p.Status())
	}

	fs.failWrite.Store(nil)
	deadline := time.Now().Add(20 * time.Second)
	for {
		err := try(p, func(tx *Tx) { _ = tx.Put([]byte("k"), []byte("after"), 0) })
		if err == nil {
			break
		}
		if !errors.Is(err, ErrNoSpace) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	if v, _ := get(t, p, "k"); v != "after" {
		t.Errorf("%q after there was space", v)
	}
}

// A disk that is behind is not a full one.
func TestStallReasons(t *testing.T) {
	for _, test := range []struct{ err, want error }{
		{fmt.Errorf("append: %w", plog.ErrDiskFull), ErrNoSpace},
		{fmt.Errorf("append: %w", plog.ErrBacklog), ErrBacklog},
		{errors.New("input/output error"), nil},
	} {
		if got := reasonToStall(test.err); got != test.want {
			t.Errorf("%v: %v", test.err, got)
		}
	}
}

// TestRefusedWriteNeverTakesEffect: what is refused for lack of space stays undone; only what was proposed before, and said to
// be unknown, may show up later.
func TestRefusedWriteNeverTakesEffect(t *testing.T) {
	n, fs := brokenNode(t)
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "k", "before")
	full := error(&os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC})
	fs.failWrite.Store(&full)
	refused := make(map[string]bool)
	for i := range 50 {
		value := fmt.Sprint(i)
		err := try(p, func(tx *Tx) { must(t, tx.Put([]byte(value), []byte(value), 0)) })
		switch {
		case errors.Is(err, ErrNoSpace):
			refused[value] = true
		case !errors.Is(err, ErrResultUnknown):
			t.Fatal(err)
		}
	}
	if len(refused) == 0 {
		t.Fatal("nothing was refused")
	}
	fs.failWrite.Store(nil)
	for deadline := time.Now().Add(20 * time.Second); try(p, func(tx *Tx) { must(t, tx.Put([]byte("k"), nil, 0)) }) != nil; {
		if time.Now().After(deadline) {
			t.Fatal("writes do not resume")
		}
	}
	for value := range refused {
		if _, ok := get(t, p, value); ok {
			t.Errorf("write %s was refused, but took effect", value)
		}
	}
}

func TestStopOnAFullDiskEnds(t *testing.T) {
	n, fs := brokenNode(t)
	full := error(&os.PathError{Op: "write", Path: "log", Err: syscall.ENOSPC})
	fs.failWrite.Store(&full)
	if err := try(n.Partition(0), func(tx *Tx) { _ = tx.Put([]byte("k"), nil, 0) }); !errors.Is(err, ErrResultUnknown) {
		t.Fatal(err)
	}
	_ = n.Stop(t.Context())
	must(t, n.syncer.Stop(t.Context()))
}

func TestQueueIsBounded(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.QueueCommands = 10
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	entered, leave := make(chan struct{}), make(chan struct{})
	blocker := newCall(func(*Tx) { close(entered); <-leave })
	must(t, p.Propose(blocker))
	<-entered
	var calls []*call
	for range 10 {
		c := newCall(func(*Tx) {})
		if err := p.Propose(c); err != nil {
			break
		}
		calls = append(calls, c)
	}
	if err := p.Propose(newCall(func(*Tx) {})); !errors.Is(err, ErrBusy) {
		t.Errorf("%v", err)
	}
	close(leave)
	for _, c := range append(calls, blocker) {
		must(t, <-c.done)
	}
}

func TestRefuseWrites(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "k", "v")
	full := errors.New("disk is nearly full")
	n.RefuseWrites(full)
	if err := p.Propose(newCall(func(*Tx) {})); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if v, _ := get(t, p, "k"); v != "v" {
		t.Errorf("%q", v)
	}
	if _, err := applyBatch(p, counterBatch(0, 1)); err != nil {
		t.Errorf("duplication: %v", err)
	}
	n.RefuseWrites(nil)
	set(t, p, "k", "w")
}

// TestStopUnderLoad: every command ends exactly once, and what ended well is there afterwards.
func TestStopUnderLoad(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	p := n.Partition(0)
	var calls []*call
	stopped := make(chan error, 1)
	for i := 0; ; i++ {
		c := newCall(func(tx *Tx) { _ = tx.Put([]byte(key(i)), []byte("v"), 0) })
		if err := p.Propose(c); err != nil {
			if !errors.Is(err, ErrBusy) {
				if !errors.Is(err, ErrStopped) {
					t.Errorf("%v", err)
				}
				break
			}
			c = nil
		}
		calls = append(calls, c)
		if i == 2000 {
			go func() { stopped <- n.Stop(context.Background()) }()
		}
	}
	must(t, <-stopped)
	must(t, n.syncer.Stop(t.Context()))
	n = startNode(t, o)
	defer n.stop(t)
	for i, c := range calls {
		if c == nil {
			continue
		}
		err := <-c.done
		if _, ok := get(t, n.Partition(0), key(i)); err == nil && !ok {
			t.Fatalf("command %d finished well and is lost", i)
		}
		if len(c.done) > 0 {
			t.Fatalf("command %d finished twice", i)
		}
	}
	if err := n.Partition(0).Err(); err != nil {
		t.Error(err)
	}
}

func TestNothingIsServedBeforeStartAndAfterStop(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.Syncer = plog.NewSyncer(plog.SyncerOptions{})
	must(t, o.Syncer.Start(t.Context()))
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	p := h.Partition(0)
	if err := p.Propose(newCall(func(*Tx) {})); !errors.Is(err, ErrNotReady) {
		t.Errorf("before: %v", err)
	}
	if p.Log() != nil || p.DB() != nil || p.Durable() != 0 || p.Status().Phase != "waiting" {
		t.Error("there is something before the start")
	}
	must(t, h.Start(t.Context()))
	if err := h.Start(t.Context()); err == nil {
		t.Error("started twice")
	}
	must(t, h.WaitReady(t.Context()))
	must(t, h.Stop(t.Context()))
	must(t, h.Stop(t.Context()))
	must(t, o.Syncer.Stop(t.Context()))
	if err := p.Propose(newCall(func(*Tx) {})); !errors.Is(err, ErrStopped) {
		t.Errorf("after: %v", err)
	}
	if err := p.View(t.Context(), func(*View) error { return nil }); !errors.Is(err, ErrStopped) {
		t.Errorf("view after: %v", err)
	}
	if err := h.Start(t.Context()); err == nil {
		t.Error("started after the stop")
	}
}

// refusingRunner runs nothing.
type refusingRunner struct{ err error }

func (r refusingRunner) Run(context.Context, string, func(context.Context) error) error { return r.err }

func TestRunnerThatRefusesIsWhyAPartitionDoesNotServe(t *testing.T) {
	o := testOptions(t, testDir(t))
	queueFull := errors.New("queue full")
	o.Runner = refusingRunner{queueFull}
	n, err := openNode(o)
	if err != nil {
		t.Fatal(err)
	}
	defer n.stop(t)
	if err := n.WaitReady(t.Context()); !errors.Is(err, queueFull) {
		t.Fatal(err)
	}
}
