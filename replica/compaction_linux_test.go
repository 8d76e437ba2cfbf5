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

	"replicanode/replica/mapped"
)

// TestCompactionOnFullDiskLosesNothing: the node takes its own disk, so that it is a compaction that finds no room for a table. Everything
// acknowledged is there while the disk is full, when there is room again, and after a restart.
func TestCompactionOnFullDiskLosesNothing(t *testing.T) {
	dir := smallDisk(t, 192<<20)
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
	p, acked := n.Partition(0), 0
	rng := rand.New(rand.NewPCG(1, 2))
	value := make([]byte, 4000)
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	// Keys in no order, so that every compaction meets all tables of the next level.
	name := func(i int) string { return fmt.Sprintf("%08x", uint32(i)*2654435761) }
	refused := 0
	for deadline := time.Now().Add(20 * time.Second); refused < 3 && time.Now().Before(deadline); {
		err := try(p, func(tx *Tx) { _ = tx.Put([]byte(name(acked)), append([]byte(name(acked)), value...), 0) })
		switch {
		case err == nil:
			acked++
		case errors.Is(err, ErrNoSpace), errors.Is(err, ErrResultUnknown):
			refused++
			<-time.After(20 * time.Millisecond) // it is the database that takes the disk, in its own time
		default:
			t.Fatal(err)
		}
	}
	check := func(when string) {
		t.Helper()
		lost := 0
		for i := range acked {
			if v, ok := get(t, p, name(i)); !ok || v[:8] != name(i) {
				lost++
			}
		}
		if lost > 0 {
			t.Fatalf("%s: %d of %d acknowledged writes are lost", when, lost, acked)
		}
	}
	if refused == 0 {
		t.Fatal("nothing was refused")
	}
	check("full")
	must(t, os.Remove(held))
	waitForSpace(t, p)
	check("with room again")
	n.stop(t)
	stopped = true
	n = startNode(t, o)
	defer n.stop(t)
	p = n.Partition(0)
	check("started again")
}

// TestStopWhileACompactionWaitsForRoom: a node on a full disk stops at once, says which database it left open, and has lost nothing when it starts again.
func TestStopWhileACompactionWaitsForRoom(t *testing.T) {
	dir := smallDisk(t, 192<<20)
	o := testOptions(t, filepath.Join(dir, "partitions"))
	o.ReserveBytes = 1
	n := startNode(t, o)
	held := filepath.Join(dir, "held")
	must(t, os.WriteFile(held, make([]byte, 80<<20), 0o644))
	p, acked := n.Partition(0), 0
	value := make([]byte, 4000)
	rng := rand.New(rand.NewPCG(3, 4))
	for i := range value {
		value[i] = byte(rng.Uint32())
	}
	name := func(i int) string { return fmt.Sprintf("%08x", uint32(i)*2654435761) }
	db := filepath.Join(p.dir(), DBDir)
	stopped := false
	defer func() {
		if !stopped {
			n.stop(t)
		}
	}()
	for refused := 0; !mapped.Waiting(db); {
		if refused == 300 {
			t.Fatal("no compaction waits")
		}
		err := try(p, func(tx *Tx) { _ = tx.Put([]byte(name(acked)), append([]byte(name(acked)), value...), 0) })
		switch {
		case err == nil:
			acked++
		case errors.Is(err, ErrNoSpace), errors.Is(err, ErrResultUnknown):
			refused++
			<-time.After(20 * time.Millisecond) // it is the database that takes the disk, in its own time
		default:
			t.Fatal(err)
		}
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
	for i := range acked {
		if v, ok := get(t, p, name(i)); !ok || v[:8] != name(i) {
			t.Fatalf("write %d of %d is lost", i, acked)
		}
	}
}
