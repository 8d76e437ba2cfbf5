package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"replicanode/internal/fixture"
)

// diskWriter overwrites keys and remembers what must be there.
type diskWriter struct {
	p     *Partition
	id    int
	value []byte
	acked map[string]int
	tried map[string]int
	// wrote is the newest value: each is greater than all before it, in the runs before, too.
	wrote int
	ended error
}

func (w *diskWriter) run(stop <-chan struct{}, refused chan<- struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		w.wrote++
		i := w.wrote
		k := fmt.Sprintf("writer-%d-key-%d", w.id, i%300)
		w.tried[k] = i
		err := try(w.p, func(tx *Tx) { _ = tx.Put([]byte(k), append(fmt.Appendf(nil, "%d ", i), w.value...), 0) })
		switch {
		case err == nil:
			w.acked[k] = i
		case errors.Is(err, ErrNoSpace), errors.Is(err, ErrResultUnknown):
			select {
			case refused <- struct{}{}:
			default:
			}
		default:
			w.ended = err
			return
		}
	}
}

func (w *diskWriter) verify(t *testing.T) {
	t.Helper()
	if w.ended != nil {
		t.Errorf("writer %d: %v", w.id, w.ended)
	}
	for k, least := range w.acked {
		got := 0
		v, _ := get(t, w.p, k)
		if _, err := fmt.Sscan(v, &got); err != nil || got < least || got > w.tried[k] {
			t.Errorf("%s is %d (%v), acknowledged was %d, tried %d", k, got, err, least, w.tried[k])
		}
	}
}

// TestFullDiskIsSurvived: a disk that fills to its last byte while memtables become tables refuses writes, serves reads, and loses
// nothing; the process goes on. The marks below which writes are refused are out of force.
func TestFullDiskIsSurvived(t *testing.T) {
	dir := fixture.SmallDisk(t, 160<<20)
	o := testOptions(t, filepath.Join(dir, "partitions"))
	o.Partitions, o.ReserveBytes = 2, 1
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	writers := make([]*diskWriter, 4)
	for i := range writers {
		writers[i] = &diskWriter{
			p: n.Partition(uint32(i % 2)), id: i, value: []byte(strings.Repeat("x", 20_000)),
			acked: make(map[string]int), tried: make(map[string]int),
		}
	}
	for round := range 3 {
		stop, refused := make(chan struct{}), make(chan struct{}, 1)
		var running sync.WaitGroup
		for _, w := range writers {
			running.Go(func() { w.run(stop, refused) })
		}
		filler := filepath.Join(dir, "filler")
		// Each round meets the writers elsewhere; what they free meanwhile is taken, too.
		for timeout := time.After(15 * time.Second); ; {
			fixture.FillDisk(t, filler)
			select {
			case <-refused:
			case <-timeout:
				t.Fatalf("round %d: nothing was refused", round)
			default:
				continue
			}
			break
		}
		fixture.FillDisk(t, filler)
		for _, p := range n.Partitions() {
			if _, _ = get(t, p, "anything"); p.Err() != nil {
				t.Fatal(p.Err())
			}
		}
		close(stop)
		running.Wait()
		must(t, os.Remove(filler))
		for _, p := range n.Partitions() {
			waitForSpace(t, p)
		}
		for _, w := range writers {
			w.verify(t)
		}
	}
	n.stop(t)
	n = startNode(t, o)
	for i, w := range writers {
		w.p = n.Partition(uint32(i % 2))
		w.verify(t)
	}
}

func waitForSpace(t *testing.T, p *Partition) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := try(p, func(tx *Tx) { must(t, tx.Put([]byte("space"), nil, 0)) })
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("writes do not resume: %v", err)
		}
	}
}
