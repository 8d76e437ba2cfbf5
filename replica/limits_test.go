package replica

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"pgregory.net/rapid"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// TestAmplifiedCommandIsRefused: every field of a hash carries its key in the log.
func TestAmplifiedCommandIsRefused(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	long := bytes.Repeat([]byte("k"), 50_000)
	put := func(tx *Tx, fields int) {
		for i := range fields {
			if _, err := tx.HashPut(long, fmt.Append(nil, i), []byte("v")); err != nil {
				return
			}
		}
	}
	var tooLarge *TooLargeError
	if err := try(p, func(tx *Tx) { put(tx, 6000) }); !errors.As(err, &tooLarge) || tooLarge.What != "command" {
		t.Errorf("6000 fields of a long key: %v", err)
	}
	if _, ok := get(t, p, string(long)); ok {
		t.Error("a part of the refused command took effect")
	}
	do(t, p, func(tx *Tx) { put(tx, 100) })
	if err := p.Err(); err != nil {
		t.Error(err)
	}
}

// TestCommandsAreLimitedOneByOne: what others wrote into the same mutation does not count, and every kind of write does.
func TestCommandsAreLimitedOneByOne(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.MaxKeyBytes, o.MaxValueBytes, o.MaxFieldValueBytes, o.MaxMutationBytes = 100, 1000, 1000, 2000
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	release := make(chan struct{})
	must(t, p.Propose(newCall(func(*Tx) { <-release }))) // the others meet in one mutation
	var fitting []*call
	for i := range 10 {
		fitting = append(fitting, newCall(func(tx *Tx) { must(t, tx.Put([]byte(key(i)), make([]byte, 1000), 0)) }))
		must(t, p.Propose(fitting[i]))
	}
	close(release)
	for _, c := range fitting {
		must(t, <-c.done)
	}
	do(t, p, func(tx *Tx) { _, err := tx.HashPut([]byte("hash"), []byte("f"), nil); must(t, err) })
	name := bytes.Repeat([]byte("n"), 90)
	for what, write := range map[string]func(tx *Tx) error{
		"put":         func(tx *Tx) error { return tx.Put(name, make([]byte, 900), 0) },
		"delete":      func(tx *Tx) error { must(t, tx.Put(name, nil, 0)); _, err := tx.Delete(name); return err },
		"expire":      func(tx *Tx) error { _, err := tx.Expire([]byte("hash"), 1<<60); return err },
		"hash put":    func(tx *Tx) error { _, err := tx.HashPut([]byte("hash"), name, name); return err },
		"hash delete": func(tx *Tx) error { _, err := tx.HashDelete([]byte("hash"), []byte("f")); return err },
	} {
		var last error
		err := try(p, func(tx *Tx) {
			for range 1000 {
				if last = write(tx); last != nil {
					return
				}
				if what == "hash delete" {
					_, err := tx.HashPut([]byte("hash"), []byte("f"), nil)
					if err != nil {
						last = err
						return
					}
				}
			}
		})
		if !errors.As(last, new(*TooLargeError)) || !errors.Is(err, last) {
			t.Errorf("%s: the write says %v, the command %v", what, last, err)
		}
	}
	if _, ok := get(t, p, string(name)); ok {
		t.Error("a part of a refused command took effect")
	}
}

// TestCommandOfAWrongTypeLeavesNothing, although it does not fail.
func TestCommandOfAWrongTypeLeavesNothing(t *testing.T) {
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	set(t, p, "string", "v")
	var got error
	do(t, p, func(tx *Tx) {
		must(t, tx.Put([]byte("other"), nil, 0))
		_, got = tx.HashPut([]byte("string"), []byte("f"), nil)
	})
	if !errors.Is(got, ErrWrongType) {
		t.Errorf("hash put on a string: %v", got)
	}
	if _, ok := get(t, p, "other"); ok {
		t.Error("what the command wrote before the error took effect")
	}
}

// recordedMutations keeps the large mutations that are applied.
type recordedMutations struct {
	mu   sync.Mutex
	data [][]byte
}

func (r *recordedMutations) Applied(entries []plog.Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range entries {
		if entries[i].Type == 0 && len(entries[i].Data) > 1000 {
			r.data = append(r.data, bytes.Clone(entries[i].Data))
		}
	}
}

// TestLargestCommandCanBeDuplicated to a cluster with the same limits, after as much as a source gathers before it.
func TestLargestCommandCanBeDuplicated(t *testing.T) {
	a := startNode(t, testOptions(t, testDir(t)))
	defer a.stop(t)
	o := testOptions(t, testDir(t))
	o.ClusterID = 8
	b := startNode(t, o)
	defer b.stop(t)
	limit := a.o.MaxMutationBytes
	recorded := new(recordedMutations)
	cancel := a.Partition(0).Subscribe(recorded)
	write := func(bytes int) {
		do(t, a.Partition(0), func(tx *Tx) {
			for i := 0; bytes > 0; i++ {
				n := min(bytes, a.o.MaxValueBytes)
				must(t, tx.Put([]byte(key(i)), make([]byte, n-20), 0))
				bytes -= n
			}
		})
	}
	write(GatherBytes - 64)
	write(limit)
	cancel()
	if len(recorded.data) != 2 || len(recorded.data[1]) < limit-1000 {
		t.Fatalf("%d mutations", len(recorded.data))
	}
	batch := mutation.Batch{Cluster: 7, Last: 5, Mutations: []mutation.SourceMutation{{Decree: 4, Data: recorded.data[0]}, {Decree: 5, Data: recorded.data[1]}}}
	done := make(chan error, 1)
	b.Partition(0).ApplyDuplicated(t.Context(), batch, func(_ uint64, err error) { done <- err })
	must(t, <-done)
}

// TestLargeReadyIsSplit: everything is appended once, in order and within the limit, and nothing is answered before the last entry.
func TestLargeReadyIsSplit(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 2000).Draw(rt, "limit")
		var entries []*raftpb.Entry
		for i, n := range rapid.SliceOfN(rapid.IntRange(0, 1000), 0, 20).Draw(rt, "sizes") {
			entries = append(entries, &raftpb.Entry{Index: new(uint64(i + 10)), Data: make([]byte, n)})
		}
		hs := &plog.HardState{Term: 3, Vote: 2, Commit: uint64(rapid.IntRange(9, 9+len(entries)).Draw(rt, "commit"))}
		next := uint64(10)
		appends := splitAppend(entries, hs, []*raftpb.Message{{}}, limit)
		for i, a := range appends {
			size := 0
			for _, e := range a.entries {
				if e.GetIndex() != next {
					rt.Fatalf("decree %d where %d is due", e.GetIndex(), next)
				}
				next++
				size += len(e.GetData()) + entryOverhead
			}
			last := i == len(appends)-1
			switch {
			case size > limit && len(a.entries) > 1:
				rt.Fatalf("%d entries of %d bytes, limit %d", len(a.entries), size, limit)
			case len(a.entries) == 0 && len(entries) > 0, last != (len(a.responses) > 0):
				rt.Fatalf("append %d of %d: %d entries, %d responses", i, len(appends), len(a.entries), len(a.responses))
			case a.hs.Term != 3 || a.hs.Vote != 2 || a.hs.Commit != min(hs.Commit, next-1):
				rt.Fatalf("hard state %+v up to decree %d", a.hs, next-1)
			}
		}
		if next != uint64(len(entries)+10) {
			rt.Fatalf("appended up to %d of %d", next-1, len(entries)+9)
		}
	})
}
