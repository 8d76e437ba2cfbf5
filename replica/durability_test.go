package replica

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// TestPinIsNeverBelowTheDiscardTimestamp: while a batch is being written, tables can hold versions beyond the applied
// decree. A pin taken then is at the applied decree, so nothing that it sees may be dropped.
func TestPinIsNeverBelowTheDiscardTimestamp(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "k", "v")
	applied := p.Applied()
	// What applying does between the database's write and the new applied decree, with enough bytes for tables.
	wb := p.db.NewManagedWriteBatch()
	for i := range 2000 {
		e := badger.NewEntry(fmt.Appendf(nil, "zzz%06d", i), make([]byte, 16<<10))
		if err := wb.SetEntryAt(e, applied+1+uint64(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := wb.Flush(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); p.Durable() <= applied+1; {
		if time.Now().After(deadline) {
			t.Fatal("no table")
		}
	}
	decree, release, err := p.PinApplied()
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	p.durable.mu.Lock()
	defer p.durable.mu.Unlock()
	if decree < p.durable.discard {
		t.Errorf("pinned %d, but the database may drop what is superseded up to %d", decree, p.durable.discard)
	}
}

// syncFolderWith replaces how the folder of a partition's tables is synced.
func syncFolderWith(p *Partition, sync func(dir string) error) {
	p.durable.looking.Lock()
	defer p.durable.looking.Unlock()
	p.durable.sync = sync
}

// TestFailedSyncOfATablesFolderStopsThePartition: a sync that succeeds after it would not tell that names were lost, so nothing more
// counts as durable.
func TestFailedSyncOfATablesFolderStopsThePartition(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	p := n.Partition(0)
	var syncs atomic.Int32
	syncFolderWith(p, func(string) error {
		if syncs.Add(1) == 1 {
			return fmt.Errorf("%w: %w", errFolderSync, syscall.EIO)
		}
		return nil
	})
	durable, written := p.Durable(), 0
	for deadline := time.Now().Add(20 * time.Second); p.Err() == nil; {
		if err := try(p, func(tx *Tx) { must(t, tx.Put([]byte(key(written)), make([]byte, 512<<10), 0)) }); err == nil {
			written++
		}
		if time.Now().After(deadline) {
			t.Fatal("the partition goes on")
		}
	}
	if err := p.Err(); !errors.Is(err, syscall.EIO) {
		t.Errorf("failed with %v", err)
	}
	p.refreshDurable()
	if got := p.Durable(); got != durable || syncs.Load() != 1 {
		t.Errorf("%d syncs, durable up to %d after it was %d", syncs.Load(), got, durable)
	}
	n.stop(t)
	n = startNode(t, o)
	defer n.stop(t)
	for i := range written {
		if _, ok := get(t, n.Partition(0), key(i)); !ok {
			t.Fatalf("write %d of %d is lost", i, written)
		}
	}
}

// TestFolderThatCannotBeSyncedYet is looked at again: nothing was tried that could have failed.
func TestFolderThatCannotBeSyncedYet(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	p.folderNotSynced(syncDir(filepath.Join(t.TempDir(), "nothing")))
	if err := p.Err(); err != nil {
		t.Fatal(err)
	}
	set(t, p, "k", "w")
}

// TestWritesDoNotWaitForTheSyncOfATable: a new table's folder is synced off the write path, and DurableAdvanced is called once
// it is.
func TestWritesDoNotWaitForTheSyncOfATable(t *testing.T) {
	o := testOptions(t, testDir(t))
	advanced := make(chan uint32, 1024)
	o.DurableAdvanced = func(partition uint32) { advanced <- partition }
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	syncing, release := make(chan struct{}), make(chan struct{})
	var began, ended sync.Once
	letGo := func() { ended.Do(func() { close(release) }) }
	defer letGo()
	syncFolderWith(p, func(dir string) error {
		began.Do(func() { close(syncing) })
		<-release
		return syncDir(dir)
	})
	value := make([]byte, 1<<20)
	write := func() {
		c := newCall(func(tx *Tx) { must(t, tx.Put([]byte("k"), value, 0)) })
		if err := p.Propose(c); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-c.done:
			must(t, err)
		case <-time.After(20 * time.Second):
			t.Fatal("a write waits for the sync of a table's folder")
		}
	}
	blocked := func() bool {
		select {
		case <-syncing:
			return true
		default:
			return false
		}
	}
	for deadline := time.Now().Add(20 * time.Second); !blocked(); write() {
		if time.Now().After(deadline) {
			t.Fatal("no table is synced")
		}
	}
	for range 16 {
		write()
	}
	if len(advanced) > 0 {
		t.Error("told before the folder was synced")
	}
	letGo()
	select {
	case <-advanced:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told of the durable decree")
	}
	if p.Durable() == 0 {
		t.Error("nothing is durable")
	}
}
