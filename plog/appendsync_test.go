package plog

import (
	"errors"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// TestAppendSyncNeedsNoWorker while nothing else is written: the caller commits in place.
func TestAppendSyncNeedsNoWorker(t *testing.T) {
	fs := vfs.NewMem()
	s := NewSyncer(SyncerOptions{Workers: 1})
	s.wg.Add(1)
	go s.background1()
	l := open(t, fs, Options{Syncer: s})
	for i := range uint64(20) {
		if err := l.AppendSync(batch(i+1, 1, 1, 600), nil); err != nil {
			t.Fatal(err)
		}
		if l.DurableIndex() != i+1 {
			t.Fatalf("durable is %d after decree %d", l.DurableIndex(), i+1)
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s.stop()
	if err := l.AppendSync(batch(21, 1, 1, 10), nil); !errors.Is(err, ErrClosed) {
		t.Fatalf("append to a closed log: %v", err)
	}
}

// TestAppendSyncBesideAppend: however the callers come, each log's batches are durable in order and nobody waits for ever.
func TestAppendSyncBesideAppend(t *testing.T) {
	fs := vfs.NewMem()
	s := NewSyncer(SyncerOptions{Workers: 2})
	s.start()
	defer s.stop()
	var wg sync.WaitGroup
	for i := range 4 {
		l, err := Open(fs.PathJoin("/", string(rune('a'+i))), uint32(i), Options{FS: fs, Syncer: s, SegmentBytes: MinSegmentBytes})
		if err != nil {
			t.Fatal(err)
		}
		var mu sync.Mutex
		next := uint64(1)
		for j := range 4 {
			wg.Go(func() {
				for range 50 {
					done := make(chan error, 1)
					mu.Lock()
					es := batch(next, 1, 1, 50)
					next++
					if j == 0 {
						done <- l.AppendSync(es, nil)
					} else if err := l.Append(es, nil, func(err error) { done <- err }); err != nil {
						done <- err
					}
					mu.Unlock()
					if err := <-done; err != nil || l.DurableIndex() < es[0].Index {
						t.Errorf("decree %d: durable is %d: %v", es[0].Index, l.DurableIndex(), err)
					}
				}
			})
		}
		defer func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
}
