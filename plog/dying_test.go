package plog

import (
	"context"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// gateFS holds syncs of data while hold is set, telling that one has begun, and fails the n-th sync of the log's folder.
type gateFS struct {
	hold    atomic.Bool
	entered chan struct{}
	gate    chan struct{}
	failDir atomic.Int32
}

func newGateFS() *gateFS { return &gateFS{entered: make(chan struct{}, 64), gate: make(chan struct{})} }

func (g *gateFS) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData && g.hold.Load() {
			g.entered <- struct{}{}
			<-g.gate
		}
		if op.Kind == errorfs.OpFileSync && op.Path == "/plog" && g.failDir.Load() > 0 && g.failDir.Add(-1) == 0 {
			return syscall.EIO
		}
		return nil
	}))
}

func (g *gateFS) open() {
	g.hold.Store(false)
	close(g.gate)
}

// TestDeadLogAcknowledgesNothing: when the end of one chunk kills the log, the next chunk of the same group fails with it.
func TestDeadLogAcknowledgesNothing(t *testing.T) {
	g := newGateFS()
	l := open(t, g.wrap(vfs.NewMem()), Options{Syncer: startSyncer(t), SegmentBytes: 64 << 10})
	mustAppend(t, l, batch(1, 10, 1, 50), nil)
	g.hold.Store(true)
	var done [3]chan error
	for i, es := range [][]Entry{batch(11, 1, 1, 50), batch(8, 3, 2, 50), batch(9, 3, 3, 50)} {
		done[i] = make(chan error, 1)
		if err := l.Append(es, nil, func(err error) { done[i] <- err }); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			<-g.entered
		}
	}
	g.failDir.Store(3) // of the new segment, of its manifest, and of the one without the cut
	g.open()
	for i := range done {
		if err := <-done[i]; i == 2 && err == nil && l.Failed() != nil {
			t.Error("acknowledged by a dead log")
		}
	}
	if l.Failed() == nil {
		t.Error("a failed sync of the folder was ignored")
	}
	_ = l.Close()
}

// TestKilledThenPowerLost: what is acknowledged after a restart does not rest on what only the page cache held.
func TestKilledThenPowerLost(t *testing.T) {
	for name, step := range map[string]struct {
		failDir int32
		do      func(l *Log) error
	}{
		"rotate":  {2, func(l *Log) error { return appendSync(l, batch(13, 8, 1, 9000), nil) }},
		"release": {1, func(l *Log) error { return l.Release(5) }},
	} {
		t.Run(name, func(t *testing.T) {
			mem, g := vfs.NewCrashableMem(), newGateFS()
			o := Options{Syncer: startSyncer(t), SegmentBytes: 64 << 10}
			l := open(t, g.wrap(mem), o)
			mustAppend(t, l, batch(1, 10, 1, 50), nil)
			mustAppend(t, l, batch(11, 2, 1, 6000), nil)
			g.failDir.Store(step.failDir)
			if step.do(l) == nil {
				t.Fatal("the folder was not synced")
			}
			_ = l.Close()
			l = open(t, mem, o)
			mustAppend(t, l, batch(l.LastIndex()+1, 5, 5, 700), nil)
			want := l.LastIndex()
			lost := mem.CrashClone(vfs.CrashCloneCfg{})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l, err := tryOpen(lost, o)
			if err != nil {
				t.Fatalf("acknowledged %d, after power loss: %v", want, err)
			}
			if l.LastIndex() != want {
				t.Errorf("acknowledged %d, found %d", want, l.LastIndex())
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestStopBesideAppendSync: what was appended while another caller committed in place is reported, though the workers have ended.
func TestStopBesideAppendSync(t *testing.T) {
	g := newGateFS()
	s := NewSyncer(SyncerOptions{Workers: 2})
	s.start()
	l := open(t, g.wrap(vfs.NewMem()), Options{Syncer: s})
	g.hold.Store(true)
	first, second := make(chan error, 1), make(chan error, 1)
	go func() { first <- l.AppendSync(batch(1, 1, 1, 50), nil) }()
	<-g.entered
	if err := l.Append(batch(2, 1, 1, 50), nil, func(err error) { second <- err }); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(context.Background()); err != nil {
		t.Fatal(err)
	}
	g.open()
	if err := errors.Join(<-first, <-second); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// TestReplacedDecreesAreNotRead, though the replacement is not durable yet.
func TestReplacedDecreesAreNotRead(t *testing.T) {
	g := newGateFS()
	l := open(t, g.wrap(vfs.NewMem()), Options{Syncer: startSyncer(t)})
	mustAppend(t, l, batch(1, 10, 1, 50), nil)
	l.SetCommitted(7)
	g.hold.Store(true)
	done := make(chan error, 1)
	if err := l.Append(batch(8, 3, 2, 50), nil, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	l.SetCommitted(10)
	r, err := l.NewReader(8)
	if err != nil {
		t.Fatal(err)
	}
	if e, err := r.Next(); err == nil {
		t.Errorf("decree %d of term %d was replaced", e.Index, e.Term)
	}
	g.open()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if e, err := r.Next(); err != nil || e.Term != 2 {
		t.Errorf("decree %d of term %d, %v", e.Index, e.Term, err)
	}
	if err := errors.Join(r.Close(), l.Close()); err != nil {
		t.Error(err)
	}
}
