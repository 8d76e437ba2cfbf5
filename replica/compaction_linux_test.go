package replica

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"replicanode/internal/fixture"
	"replicanode/replica/mapped"
)

// TestCompactionOnFullDiskLosesNothing: the node takes its own disk, so that it is a compaction that finds no room for a table. Everything
// acknowledged is there while the disk is full, when there is room again, and after a restart.
func TestCompactionOnFullDiskLosesNothing(t *testing.T) {
	dir := fixture.SmallDisk(t, 192<<20)
	o := testOptions(t, filepath.Join(dir, "partitions"))
	o.ReserveBytes = 1
	n := startNode(t, o)
	stopped := false
	defer func() {
		if !stopped {
			n.stop(t)
		}
	}()
	held := filepath.Join(dir, "held")
	must(t, os.WriteFile(held, make([]byte, 80<<20), 0o644))
	p, w := n.Partition(0), newScattered(1, 2)
	for deadline := time.Now().Add(20 * time.Second); w.refused < 3 && time.Now().Before(deadline); {
		w.write(t, p)
	}
	if w.refused == 0 {
		t.Fatal("nothing was refused")
	}
	w.check(t, p, "full")
	must(t, os.Remove(held))
	waitForSpace(t, p)
	w.check(t, p, "with room again")
	n.stop(t)
	stopped = true
	n = startNode(t, o)
	defer n.stop(t)
	p = n.Partition(0)
	w.check(t, p, "started again")
}

// TestStopWhileACompactionWaitsForRoom: a node on a full disk stops at once, says which database it left open, and has lost nothing when it starts again.
func TestStopWhileACompactionWaitsForRoom(t *testing.T) {
	dir := fixture.SmallDisk(t, 192<<20)
	o := testOptions(t, filepath.Join(dir, "partitions"))
	o.ReserveBytes = 1
	n := startNode(t, o)
	held := filepath.Join(dir, "held")
	must(t, os.WriteFile(held, make([]byte, 80<<20), 0o644))
	p, w := n.Partition(0), newScattered(3, 4)
	db := filepath.Join(p.dir(), DBDir)
	stopped := false
	defer func() {
		if !stopped {
			n.stop(t)
		}
	}()
	for !mapped.Waiting(db) {
		if w.refused == 300 {
			t.Fatal("no compaction waits")
		}
		w.write(t, p)
	}
	began := time.Now()
	stopped = true
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var left *LeftOpenError
	if err := n.Stop(ctx); !errors.As(err, &left) || left.Dir != db {
		t.Errorf("stopped: %v", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("stopping took %s", took)
	}
	must(t, n.syncer.Stop(ctx))
	must(t, os.Remove(held))
	if left != nil {
		<-left.Closed
	}
	n = startNode(t, o)
	defer n.stop(t)
	p = n.Partition(0)
	w.check(t, p, "started again")
}

// scattered writes keys in no order, so that every compaction meets all tables of the next level, and knows which were acknowledged.
type scattered struct {
	value          []byte
	acked, refused int
}

func newScattered(seed1, seed2 uint64) *scattered {
	rng := rand.New(rand.NewPCG(seed1, seed2))
	w := &scattered{value: make([]byte, 4000)}
	for i := range w.value {
		w.value[i] = byte(rng.Uint32())
	}
	return w
}

func (*scattered) name(i int) string { return fmt.Sprintf("%08x", uint32(i)*2654435761) }

// write writes the next key, or the same again when it was refused for want of space.
func (w *scattered) write(t *testing.T, p *Partition) {
	t.Helper()
	name := []byte(w.name(w.acked))
	err := try(p, func(tx *Tx) { _ = tx.Put(name, append(name[:len(name):len(name)], w.value...), 0) })
	switch {
	case err == nil:
		w.acked++
	case errors.Is(err, ErrNoSpace), errors.Is(err, ErrResultUnknown):
		w.refused++
		<-time.After(20 * time.Millisecond) // it is the database that takes the disk, in its own time
	default:
		t.Fatal(err)
	}
}

// check wants everything that was acknowledged.
func (w *scattered) check(t *testing.T, p *Partition, when string) {
	t.Helper()
	lost := 0
	for i := range w.acked {
		if v, ok := get(t, p, w.name(i)); !ok || v[:8] != w.name(i) {
			lost++
		}
	}
	if lost > 0 {
		t.Fatalf("%s: %d of %d acknowledged writes are lost", when, lost, w.acked)
	}
}
