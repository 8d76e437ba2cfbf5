package checkpoint

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/dgraph-io/badger/v4"

	"replicanode/replica"
)

// aging is a replica whose clock the test moves, and which forgets deletes after two seconds.
type aging struct {
	*liveNode
	dir   string
	clock *atomic.Int64 // milliseconds since 1970
}

func (a *aging) start(t *testing.T) {
	t.Helper()
	a.liveNode = startLiveWith(t, a.dir, 1, func(o *replica.Options) {
		o.TombstoneTTL = 2 * time.Second
		o.Clock = func() time.Time { return time.UnixMilli(a.clock.Load()) }
	})
}

// step is one change that can be made to several replicas alike.
func (a *aging) step(t *testing.T, kind int, key, field string, value []byte, expireAt uint64) {
	t.Helper()
	do(t, a.Partition(0), func(tx *replica.Tx) error {
		var err error
		switch kind {
		case 0:
			_, err = tx.Delete([]byte(key))
		case 1:
			err = tx.Put([]byte(key), value, expireAt)
		case 2:
			_, err = tx.HashDelete([]byte(key), []byte(field))
		default:
			_, err = tx.HashPut([]byte(key), []byte(field), value)
		}
		if errors.Is(err, replica.ErrWrongType) {
			return nil
		}
		return err
	})
}

// forget lets the replica remove what it need not remember, and its database drop every trace of that.
func (a *aging) forget(t *testing.T) {
	t.Helper()
	must(t, a.Partition(0).Sweep(ctx, nil))
	a.stop(t)
	a.start(t)
	a.Partition(0).Durable()
	must(t, a.Partition(0).DB().Flatten(1))
}

func records(t *testing.T, p *replica.Partition) int {
	t.Helper()
	txn := p.DB().NewTransactionAt(math.MaxUint64, false)
	defer txn.Discard()
	it := txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	n := 0
	for it.Rewind(); it.Valid(); it.Next() {
		n++
	}
	return n
}

// TestChainOfLiveReplica builds chains of incremental copies of a replica that sweeps, and whose database drops what was
// swept without a trace, between them. What is restored from each link equals the source at its decree, key by key and field by
// field; and it decides as the source does about everything that happens later.
func TestChainOfLiveReplica(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	clock := &atomic.Int64{}
	clock.Store(time.Now().UnixMilli())
	source := &aging{dir: filepath.Join(t.TempDir(), "partitions"), clock: clock}
	source.start(t)
	defer func() { source.stop(t) }()
	change := func(on ...*aging) {
		kind, key, field := rng.IntN(6), fmt.Sprint("k", rng.IntN(60)), fmt.Sprint("f", rng.IntN(6))
		value, expireAt := fmt.Append(nil, rng.Uint64()), uint64(0)
		if rng.IntN(40) == 0 {
			kind, value = 1, make([]byte, 1<<20+rng.IntN(1<<20)) // in chunks
		}
		if rng.IntN(2) == 0 {
			expireAt = uint64(clock.Load()) + uint64(rng.IntN(4000)) + 1
		}
		for _, a := range on {
			a.step(t, kind, key, field, value, expireAt)
		}
	}
	store := NewStore(nil, filepath.Join(t.TempDir(), "checkpoints"))
	forgotten := 0
	for link := range 4 {
		for range 150 {
			change(source)
			clock.Add(int64(rng.IntN(40)))
		}
		if link > 0 {
			source.forget(t)
		}
		p := source.Partition(0)
		m, err := store.Create(ctx, nil, FromReplica(p), CreateOptions{Incremental: true, MaxAge: time.Hour, Partitions: 1})
		must(t, err)
		if m.Depth != link {
			t.Fatalf("link %d has depth %d", link, m.Depth)
		}
		copied := &aging{dir: filepath.Join(t.TempDir(), "partitions"), clock: clock}
		_, err = store.RestoreReplica(ctx, nil, 0, m.Decree, copied.dir, RestoreOptions{Partitions: 1})
		must(t, err)
		copied.start(t)
		forgotten += max(0, records(t, copied.Partition(0))-records(t, p))
		same := func(when string) {
			t.Helper()
			want, got := contents(t, source.Partition(0)), contents(t, copied.Partition(0))
			for _, k := range slices.Sorted(maps.Keys(want)) {
				if want[k] != got[k] {
					t.Fatalf("link %d, %s: %s is %.60q, not %.60q", link, when, k, got[k], want[k])
				}
			}
			if len(got) != len(want) {
				t.Fatalf("link %d, %s: %d entries, not %d", link, when, len(got), len(want))
			}
		}
		same("restored")
		for range 60 {
			change(source, copied)
			clock.Add(int64(rng.IntN(60)))
		}
		same("after further changes")
		copied.stop(t)
	}
	if forgotten == 0 {
		t.Fatal("the database dropped nothing that an incremental copy would have needed: the test shows nothing")
	}
}

// TestBuildsOnlyOnItsOwn: a partition that began anew under the same number goes through decrees that an earlier life of it
// has checkpoints of. Nothing is built on those, and they do not push the new ones out.
func TestBuildsOnlyOnItsOwn(t *testing.T) {
	store := NewStore(vfs.NewMem(), "ckpt")
	earlier := newSource(t, 1)
	defer earlier.db.Close()
	life := func(src *source, depths ...int) (last *Manifest) {
		s, err := NewService(ServiceOptions{Store: store, Sources: []Source{src}, Runner: newRunner(t, 1), Retention: Retention{KeepLast: 2},
			Create: CreateOptions{ClusterID: 7, Partitions: 2, Incremental: true, MaxAge: time.Hour}})
		must(t, err)
		must(t, s.Start(ctx))
		defer s.Stop(ctx)
		for i, depth := range depths {
			src.fill(t, 30, 50)
			job, err := s.CreateNow(1, false)
			must(t, err)
			<-job.Done()
			must(t, job.Err())
			infos, err := store.List(ctx, 1)
			must(t, err)
			at := slices.IndexFunc(infos, func(i Info) bool { return i.Decree == src.applied })
			if at < 0 || infos[at].Manifest == nil || infos[at].Manifest.Depth != depth {
				t.Fatalf("copy %d at decree %d should have depth %d: %+v", i, src.applied, depth, infos)
			}
			last = infos[at].Manifest
			compareState(t, readAll(t, store, 1, last.Decree), src.state(last.Decree))
		}
		return last
	}
	life(earlier, 0, 1, 2)
	life(earlier, 0, 1) // another process
	anew := newSource(t, 1)
	defer anew.db.Close()
	anew.mark = "anew"
	life(anew, 0, 1, 2, 3, 4, 5, 6, 0)
}
