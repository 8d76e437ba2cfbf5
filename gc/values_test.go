package gc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/dgraph-io/badger/v4"

	"replicanode/tasks"
	"replicanode/threadpool"
)

type valuePartition struct {
	db     *badger.DB
	sweeps int
	err    error
}

func (p *valuePartition) ID() uint32     { return 4 }
func (p *valuePartition) DB() *badger.DB { return p.db }

func (p *valuePartition) Sweep(_ context.Context, yield func(int) error) error {
	p.sweeps++
	return errors.Join(yield(10), p.err)
}

// TestValues fills a value log with garbage and has it collected.
func TestValues(t *testing.T) {
	options := badger.DefaultOptions(t.TempDir()).WithLogger(nil).WithValueThreshold(1024).
		WithValueLogFileSize(1 << 20).WithMemTableSize(1 << 20).WithCompactL0OnClose(true)
	db, err := badger.OpenManaged(options)
	must(t, err)
	for version := uint64(1); version <= 20; version++ {
		wb := db.NewWriteBatchAt(version)
		for i := range 40 {
			must(t, wb.SetEntryAt(badger.NewEntry(fmt.Appendf(nil, "k%02d", i), bytes.Repeat([]byte{byte(version)}, 8000)), version))
		}
		must(t, wb.Flush())
	}
	// Only a compaction tells badger what is garbage, and only tables are compacted.
	db.SetDiscardTs(20)
	must(t, db.Close())
	db, err = badger.OpenManaged(options)
	must(t, err)
	defer db.Close()
	db.SetDiscardTs(20)
	broken := errors.New("cannot sweep")
	open, closed := &valuePartition{db: db, err: broken}, &valuePartition{}
	v, err := NewValues(ValuesOptions{Partitions: []ValuePartition{closed, open}, Runner: noRunner{}})
	must(t, err)
	if err := v.run(ctx, &turn{}); !errors.Is(err, broken) {
		t.Fatalf("err %v", err)
	}
	open.err = nil
	must(t, v.run(ctx, &turn{}))
	st := v.Status()[1]
	if st.Rewrites == 0 || st.Runs != 2 || st.LastError != "" || open.sweeps != 2 || closed.sweeps != 0 {
		t.Fatalf("status %+v, sweeps %d and %d", st, open.sweeps, closed.sweeps)
	}
	txn := db.NewTransactionAt(20, false)
	defer txn.Discard()
	for i := range 40 {
		item, err := txn.Get(fmt.Appendf(nil, "k%02d", i))
		must(t, err)
		value, err := item.ValueCopy(nil)
		must(t, err)
		if len(value) != 8000 || value[0] != 20 {
			t.Fatalf("key %d lost its value", i)
		}
	}
}

// keptRunner keeps what it is to run.
type keptRunner struct {
	run threadpool.Func
}

func (r *keptRunner) Every(_ tasks.Code, _ string, f threadpool.Func) (*tasks.Periodic, error) {
	r.run = f
	return nil, nil
}

// TestValuesKeepThePace: a run uses the turn that Paced makes of its own.
func TestValuesKeepThePace(t *testing.T) {
	db, err := badger.OpenManaged(badger.DefaultOptions("").WithInMemory(true).WithLogger(nil))
	must(t, err)
	defer db.Close()
	slow := errors.New("slowly")
	r := &keptRunner{}
	v, err := NewValues(ValuesOptions{Partitions: []ValuePartition{&valuePartition{db: db}}, Runner: r,
		Paced: func(*threadpool.Turn) Turn { return &turn{onYield: func() error { return slow }} }})
	must(t, err)
	must(t, v.Start(ctx))
	if err := r.run(ctx, nil); !errors.Is(err, slow) {
		t.Errorf("the run was not paced: %v", err)
	}
}

// TestValuesWithoutPace: Paced may be left out.
func TestValuesWithoutPace(t *testing.T) {
	r := &keptRunner{}
	v, err := NewValues(ValuesOptions{Runner: r})
	must(t, err)
	must(t, v.Start(ctx))
	must(t, r.run(ctx, nil))
}

func TestValuesStopsWhenCancelled(t *testing.T) {
	db, err := badger.OpenManaged(badger.DefaultOptions("").WithInMemory(true).WithLogger(nil))
	must(t, err)
	defer db.Close()
	gone, cancel := context.WithCancelCause(ctx)
	cause := errors.New("shutting down")
	cancel(cause)
	first, second := &valuePartition{db: db}, &valuePartition{db: db}
	v, err := NewValues(ValuesOptions{Partitions: []ValuePartition{first, second}, Runner: noRunner{}})
	must(t, err)
	if err := v.run(gone, &turn{}); !errors.Is(err, cause) || second.sweeps != 0 {
		t.Fatalf("err %v, %d sweeps", err, second.sweeps)
	}
}
