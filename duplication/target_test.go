package duplication

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"replicanode/replica"
	"replicanode/replica/mutation"
)

// testTarget is a receiver's partition. Like the real one it skips what it has and refuses gaps; it survives its Receiver.
type testTarget struct {
	mu       sync.Mutex
	changed  sync.Cond
	follower bool
	busy     int // how many batches to refuse
	hold     bool
	held     []func()
	progress uint64
	others   map[uint64]uint64 // progress of other clusters than the source
	applied  uint64
	refused  map[uint64]error // decrees that cannot be applied, and why
	got      []mutation.SourceMutation
	batches  int
	empty    int
}

func newTestTarget() *testTarget {
	t := &testTarget{}
	t.changed.L = &t.mu
	return t
}

func (t *testTarget) Leader() (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return 2, !t.follower
}

func (t *testTarget) DuplicationProgress(cluster uint64, _ uint32) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if cluster != clusterA {
		return t.others[cluster], nil
	}
	return t.progress, nil
}

func (t *testTarget) Applied() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

func (t *testTarget) ApplyDuplicated(_ context.Context, b mutation.Batch, done func(uint64, error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	apply := func() {
		confirmed, err := t.apply(b)
		go done(confirmed, err)
	}
	if t.hold {
		t.held = append(t.held, apply)
		t.changed.Broadcast()
		return
	}
	apply()
}

func (t *testTarget) apply(b mutation.Batch) (uint64, error) {
	if t.busy > 0 {
		t.busy--
		return 0, replica.ErrBusy
	}
	if b.Prev > t.progress {
		return 0, &replica.GapError{Have: t.progress}
	}
	for _, m := range b.Mutations {
		if err := t.refused[m.Decree]; err != nil && m.Decree > t.progress {
			return 0, err
		}
	}
	t.batches++
	if len(b.Mutations) == 0 {
		t.empty++
	}
	for _, m := range b.Mutations {
		if m.Decree > t.progress {
			t.got = append(t.got, mutation.SourceMutation{Decree: m.Decree, Data: bytes.Clone(m.Data)})
		}
	}
	t.progress = max(t.progress, b.Last)
	t.changed.Broadcast()
	return t.progress, nil
}

// setHold makes batches wait, or lets those that wait go on.
func (t *testTarget) setHold(hold bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hold = hold
	if !hold {
		for _, apply := range t.held {
			apply()
		}
		t.held = nil
	}
}

// await blocks until f, called under the target's lock, is true.
func (t *testTarget) await(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	expired := false
	timer := time.AfterFunc(20*time.Second, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		expired = true
		t.changed.Broadcast()
	})
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !f() && !expired {
		t.changed.Wait()
	}
	if !f() {
		tb.Fatalf("timed out: %s (progress %d, %d mutations)", what, t.progress, len(t.got))
	}
}

// mustEqual waits until the target has everything and checks that it has it exactly once and in order.
func (t *testTarget) mustEqual(tb testing.TB, p *testPartition) {
	tb.Helper()
	last := p.last()
	t.await(tb, fmt.Sprintf("progress to %d", last), func() bool { return t.progress >= last })
	t.mu.Lock()
	defer t.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(t.got) != len(p.own) {
		tb.Fatalf("partition %d: %d mutations arrived, %d were made", p.id, len(t.got), len(p.own))
	}
	for i := range t.got {
		if t.got[i].Decree != p.own[i].Decree || !bytes.Equal(t.got[i].Data, p.own[i].Data) {
			tb.Fatalf("partition %d: mutation %d: decree %d arrived, %d was made", p.id, i, t.got[i].Decree, p.own[i].Decree)
		}
	}
}
