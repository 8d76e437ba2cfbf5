package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"

	"replicanode/replica/mutation"
)

// cluster is three hosts with the same partitions.
type cluster struct {
	net   *network
	nodes []*testNode
	opts  []Options
}

func startCluster(t *testing.T, seed uint64, partitions uint32) *cluster {
	c := &cluster{net: newNetwork(seed)}
	dir := testDir(t)
	for id := uint64(1); id <= 3; id++ {
		o := testOptions(t, filepath.Join(dir, fmt.Sprint(id)))
		o.Partitions, o.NodeID, o.Voters = partitions, id, []uint64{1, 2, 3}
		o.Transport = port{c.net, id}
		o.Tick = 10 * time.Millisecond
		if seed%2 == 1 {
			o.ApplyBytes = 1 // one entry at a time
		}
		c.opts = append(c.opts, o)
		c.nodes = append(c.nodes, nil)
		c.start(t, int(id-1))
	}
	return c
}

func (c *cluster) start(t *testing.T, i int) {
	n, err := openNode(c.opts[i])
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[i] = n
	c.net.mu.Lock()
	c.net.hosts[uint64(i+1)] = n
	c.net.mu.Unlock()
}

func (c *cluster) restart(t *testing.T, i int) {
	c.net.mu.Lock()
	c.net.hosts[uint64(i+1)] = nil
	c.net.mu.Unlock()
	c.nodes[i].stop(t)
	c.start(t, i)
}

func (c *cluster) stop(t *testing.T) {
	c.net.mu.Lock()
	c.net.closed = true
	c.net.mu.Unlock()
	c.net.timers.Wait()
	for _, n := range c.nodes {
		n.stop(t)
	}
}

// leader waits for a node that serves the partition.
func (c *cluster) leader(t *testing.T, id uint32) (*Partition, int) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		for i, n := range c.nodes {
			if p := n.Partition(id); p.Ready() {
				return p, i
			}
		}
		select {
		case <-deadline:
			for _, n := range c.nodes {
				t.Logf("%+v", n.Partition(id).Status())
			}
			t.Fatal("no leader")
		case <-time.After(time.Millisecond):
		}
	}
}

// retrySet writes until a leader has confirmed it.
func (c *cluster) retry(t *testing.T, id uint32, run func(tx *Tx)) {
	t.Helper()
	for range 1000 {
		p, _ := c.leader(t, id)
		done := newCall(run)
		if p.Propose(done) != nil {
			continue
		}
		if <-done.done == nil {
			return
		}
	}
	t.Fatal("command never succeeded")
}

// converge waits until all replicas have applied the same.
func (c *cluster) converge(t *testing.T, id uint32) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		p, _ := c.leader(t, id)
		applied := p.Applied()
		same := true
		for _, n := range c.nodes {
			same = same && n.Partition(id).Applied() == applied
		}
		if same {
			return
		}
		select {
		case <-deadline:
			t.Fatal("replicas do not converge")
		case <-time.After(time.Millisecond):
		}
	}
}

// dump is every record of a partition's database at its applied decree, but for the applied record.
func dump(t *testing.T, p *Partition) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := p.viewApplied(func(v *View) error {
		it := v.txn.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			rec, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			all[string(it.Item().Key())] = rec
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	delete(all, string(appliedKey))
	return all
}

func requireSame(t *testing.T, a, b map[string][]byte) {
	t.Helper()
	for k, v := range a {
		if !bytes.Equal(v, b[k]) {
			t.Errorf("record %q: %x and %x", k, v, b[k])
		}
	}
	for k := range b {
		if _, ok := a[k]; !ok {
			t.Errorf("record %q is missing", k)
		}
	}
}

// TestReplicasAreIdentical checks that a leader's effects, which come from evaluating commands, are exactly those that
// followers get from the log; with faults, changes of leader and restarts, and duplicated batches that lose or win.
func TestReplicasAreIdentical(t *testing.T) {
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := startCluster(t, seed, 2)
			defer c.stop(t)
			c.net.setFaulty(true)
			rng := rand.New(rand.NewPCG(seed, 2))
			source := newSourceCluster(rng)
			for round := range 6 {
				for id := range uint32(2) {
					c.burst(t, rng, id, source)
				}
				switch round {
				case 1:
					_, i := c.leader(t, 0)
					c.net.isolate(uint64(i+1), true)
					defer c.net.isolate(uint64(i+1), false)
				case 2:
					for id := uint64(1); id <= 3; id++ {
						c.net.isolate(id, false)
					}
				case 3:
					_, i := c.leader(t, 1)
					c.restart(t, i)
				}
			}
			c.net.setFaulty(false)
			for id := range uint32(2) {
				c.retry(t, id, func(tx *Tx) {})
				c.converge(t, id)
				want := dump(t, c.nodes[0].Partition(id))
				for _, n := range c.nodes[1:] {
					requireSame(t, want, dump(t, n.Partition(id)))
				}
			}
		})
	}
}

func (c *cluster) burst(t *testing.T, rng *rand.Rand, id uint32, source *sourceCluster) {
	var calls []*call
	for range 200 {
		p, _ := c.leader(t, id)
		if rng.IntN(40) == 0 {
			done := make(chan error, 1)
			b := source.batch(id, p)
			p.ApplyDuplicated(context.Background(), b, func(_ uint64, err error) { done <- err })
			if err := <-done; errors.As(err, new(*GapError)) {
				t.Fatal(err)
			}
			continue
		}
		done := newCall(randomOp(rng))
		if p.Propose(done) == nil {
			calls = append(calls, done)
		}
	}
	for _, done := range calls {
		<-done.done
	}
}

// randomOp is a random command on few keys.
func randomOp(rng *rand.Rand) func(tx *Tx) {
	k, f := []byte(fmt.Sprint("k", rng.IntN(8))), []byte(fmt.Sprint("f", rng.IntN(4)))
	value := []byte(fmt.Sprint(rng.IntN(1000)))
	expireAt := uint64(0)
	if rng.IntN(8) == 0 {
		expireAt = uint64(time.Now().UnixMilli() + rng.Int64N(60) - 5)
	}
	kind := rng.IntN(8)
	return func(tx *Tx) {
		switch kind {
		case 0:
			_ = tx.Put(k, value, expireAt)
		case 1:
			_, _ = tx.Delete(k)
		case 2:
			_, _ = tx.HashDelete(k, f)
		case 3:
			_, _ = tx.Expire(k, expireAt)
		default:
			_, _ = tx.HashPut(k, f, value)
		}
	}
}

// sourceCluster makes the mutations of a remote cluster, partly older and partly newer than the local ones.
type sourceCluster struct {
	rng  *rand.Rand
	last map[uint32]uint64
}

func newSourceCluster(rng *rand.Rand) *sourceCluster {
	return &sourceCluster{rng, map[uint32]uint64{}}
}

func (s *sourceCluster) batch(id uint32, p *Partition) mutation.Batch {
	have, err := p.DuplicationProgress(99, id)
	if err != nil {
		have = 0
	}
	have = min(have, have-min(have, uint64(s.rng.IntN(3))))
	b := mutation.Batch{Cluster: 99, Partition: id, Prev: have, Last: have}
	for range 1 + s.rng.IntN(5) {
		b.Last += 1 + uint64(s.rng.IntN(2))
		at := time.Now().Add(time.Duration(s.rng.IntN(40)-20) * time.Millisecond)
		b.Mutations = append(b.Mutations, mutation.SourceMutation{Decree: b.Last, Data: s.mutation(at)})
	}
	return b
}

func (s *sourceCluster) mutation(at time.Time) []byte {
	var b mutation.Builder
	b.Reset(mutation.Header{Kind: mutation.User, Timestamp: mutation.TimestampOf(at), Cluster: 99})
	for range 1 + s.rng.IntN(3) {
		k, f := []byte(fmt.Sprint("k", s.rng.IntN(8))), []byte(fmt.Sprint("f", s.rng.IntN(4)))
		switch s.rng.IntN(8) {
		case 0:
			b.Put(k, f, 0)
		case 1:
			b.Delete(k)
		case 2:
			b.HashDelete(k, f)
		case 3:
			b.Expire(k, uint64(at.UnixMilli()+20), mutation.TimestampOfMillis(1<<40), 0)
		default:
			b.HashPut(k, f, k)
		}
	}
	return bytes.Clone(b.Bytes())
}

// TestReadsOnFollowersAreLinearizable: a view that begins after a command has finished sees it, on every node.
func TestReadsOnFollowersAreLinearizable(t *testing.T) {
	c := startCluster(t, 5, 1)
	defer c.stop(t)
	c.net.setFaulty(true)
	for i := range 30 {
		want := fmt.Sprint(i)
		c.retry(t, 0, func(tx *Tx) { _ = tx.Put([]byte("k"), []byte(want), 0) })
		for _, n := range c.nodes {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			err := n.Partition(0).View(ctx, func(v *View) error {
				got, _, err := v.Get([]byte("k"))
				if string(got.Data) != want {
					t.Errorf("node sees %q after %q was written", got.Data, want)
				}
				return err
			})
			cancel()
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestIsolatedLeaderConfirmsNothing: what a leader without a quorum takes never finishes with success.
func TestIsolatedLeaderConfirmsNothing(t *testing.T) {
	c := startCluster(t, 6, 1)
	defer c.stop(t)
	c.retry(t, 0, func(tx *Tx) { _ = tx.Put([]byte("k"), []byte("old"), 0) })
	p, i := c.leader(t, 0)
	c.net.isolate(uint64(i+1), true)
	if err := try(p, func(tx *Tx) { _, _, _ = tx.Get([]byte("k")) }); err == nil {
		t.Fatal("read without a quorum")
	}
	if err := try(p, func(tx *Tx) { _ = tx.Put([]byte("k"), []byte("lost"), 0) }); err == nil {
		t.Fatal("written without a quorum")
	}
	if err := try(p, func(*Tx) {}); !errors.As(err, new(*NotLeaderError)) {
		t.Fatalf("a leader that stepped down answers %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.View(ctx, func(*View) error { return nil }); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("read without a quorum: %v", err)
	}
	c.net.isolate(uint64(i+1), false)
	c.retry(t, 0, func(tx *Tx) {
		if v, _, _ := tx.Get([]byte("k")); string(v.Data) != "old" {
			t.Errorf("the new leader has %q", v.Data)
		}
	})
}

// TestCounterUnderLeaderChanges: increments that finished well are counted exactly once each, those whose result is
// unknown at most once, however leaders come and go.
func TestCounterUnderLeaderChanges(t *testing.T) {
	c := startCluster(t, 7, 1)
	defer c.stop(t)
	c.net.setFaulty(true)
	var known, unknown atomic.Int64
	stop := make(chan struct{})
	var workers sync.WaitGroup
	for range 3 {
		workers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
				for _, n := range c.nodes {
					increment(n.Partition(0), &known, &unknown)
				}
			}
		})
	}
	for range 3 {
		_, i := c.leader(t, 0)
		before := known.Load()
		c.net.isolate(uint64(i+1), true)
		for known.Load() < before+50 {
			runtime.Gosched()
		}
		c.net.isolate(uint64(i+1), false)
	}
	close(stop)
	workers.Wait()
	var final int64
	c.retry(t, 0, func(tx *Tx) { final = readInt(tx) })
	if final < known.Load() || final > known.Load()+unknown.Load() {
		t.Errorf("the counter is %d, %d increments finished well and %d are unknown", final, known.Load(), unknown.Load())
	}
	for _, n := range c.nodes {
		if err := n.Partition(0).Err(); err != nil {
			t.Error(err)
		}
	}
}

func readInt(tx *Tx) int64 {
	v, _, _ := tx.Get([]byte("n"))
	at, _ := strconv.ParseInt(string(v.Data), 10, 64)
	return at
}

func increment(p *Partition, known, unknown *atomic.Int64) {
	err := try(p, func(tx *Tx) { _ = tx.Put([]byte("n"), strconv.AppendInt(nil, readInt(tx)+1, 10), 0) })
	switch {
	case err == nil:
		known.Add(1)
	case errors.Is(err, ErrResultUnknown):
		unknown.Add(1)
	}
}
