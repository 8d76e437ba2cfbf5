package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"pgregory.net/rapid"
)

var ctx = context.Background()

func TestRestoredEqualsSource(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 3000, 300)
	src.write(t, map[string]*cell{"big": {value: make([]byte, 1000_000)}, "empty": {value: nil}, "hot-0": nil})
	store := NewStore(vfs.NewMem(), "ckpt")
	m, err := store.Create(ctx, &turn{}, src, CreateOptions{ChunkBytes: 64 << 10, ClusterID: 5, Partitions: 8})
	must(t, err)
	if len(m.Chunks) < 2 || m.Decree != src.applied || m.Term != 7 {
		t.Fatalf("manifest %+v", m)
	}
	db, state := restore(t, store, 1, m.Decree)
	src.check(t, db, m.Decree)
	want := RestoredState{ClusterID: 5, Partition: 1, Partitions: 8, Decree: m.Decree, Term: 7, Entries: m.Entries, MaxVersion: m.Decree}
	if state != want {
		t.Fatalf("state %+v, want %+v", state, want)
	}
	if src.pins != 0 {
		t.Fatalf("%d pins left", src.pins)
	}
}

// TestStateAtDecree writes while the copy is made: the copy must be of the pinned decree.
func TestStateAtDecree(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 500, 100)
	store := NewStore(vfs.NewMem(), "ckpt")
	keys := slices.Sorted(maps.Keys(src.state(src.applied)))
	rng := rand.New(rand.NewPCG(3, 4))
	u := &turn{}
	u.onYield = func(int) error {
		if u.yields < 200 {
			src.write(t, map[string]*cell{
				keys[rng.IntN(len(keys))]:         {value: []byte("later")},
				keys[rng.IntN(len(keys))] + "new": {value: []byte("new")},
				keys[rng.IntN(len(keys))]:         nil,
			})
		}
		return nil
	}
	m, err := store.Create(ctx, u, src, CreateOptions{ChunkBytes: 4 << 10, Slice: 1})
	must(t, err)
	if u.yields < 50 || src.applied == m.Decree {
		t.Fatalf("the source did not change while it was copied: %d yields", u.yields)
	}
	compareState(t, readAll(t, store, 1, m.Decree), src.state(m.Decree))
}

// TestChains is a model test of full and incremental copies.
func TestChains(t *testing.T) {
	fewerChecks(t, "8")
	rapid.Check(t, func(t *rapid.T) {
		src := newSource(t, 3)
		defer src.db.Close()
		store := NewStore(vfs.NewMem(), "ckpt")
		key := rapid.Map(rapid.IntRange(0, 30), func(i int) string { return fmt.Sprintf("k%02d", i) })
		size := rapid.SampledFrom([]int{0, 1, 50, 3000, 200_000})
		clock := time.Unix(1_800_000_000, 0)
		var made []*Manifest
		changed := false // the store, since it was last checked
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				changes := make(map[string]*cell)
				for _, k := range rapid.SliceOfNDistinct(key, 1, 5, rapid.ID).Draw(t, "keys") {
					if rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
						changes[k] = nil
						continue
					}
					v := make([]byte, size.Draw(t, "size"))
					for i := range v {
						v[i] = byte(rand.IntN(4))
					}
					changes[k] = &cell{value: v, userMeta: rapid.Byte().Draw(t, "meta"),
						expiresAt: rapid.SampledFrom([]uint64{0, 1 << 40}).Draw(t, "expiry")}
				}
				src.write(t, changes)
			},
			"checkpoint": func(t *rapid.T) {
				clock, changed = clock.Add(time.Hour), true
				m, err := store.Create(ctx, nil, src, CreateOptions{
					ChunkBytes: 4 << 10, Incremental: rapid.Bool().Draw(t, "incremental"), MaxAge: 90 * time.Minute, MaxDepth: 3,
					Now: func() time.Time { return clock },
				})
				if src.applied == 0 {
					if !errors.Is(err, ErrNothingApplied) {
						t.Fatalf("err %v", err)
					}
					return
				}
				must(t, err)
				if m.Depth > 3 {
					t.Fatalf("depth %d", m.Depth)
				}
				made = append(made, m)
			},
			"prune": func(t *rapid.T) {
				changed = true
				_, err := store.Prune(ctx, nil, 3, Retention{KeepLast: rapid.IntRange(1, 3).Draw(t, "keep")}, clock)
				must(t, err)
			},
			"": func(t *rapid.T) {
				if !changed {
					return
				}
				changed = false
				infos, err := store.List(ctx, 3)
				must(t, err)
				if len(made) > 0 && (len(infos) == 0 || infos[len(infos)-1].Decree != made[len(made)-1].Decree) {
					t.Fatalf("the newest checkpoint is not listed")
				}
				for _, info := range infos {
					must(t, info.Err)
					compareState(t, readAll(t, store, 3, info.Decree), src.state(info.Decree))
				}
			},
		})
	})
}

func TestIncrementalIsSmall(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 4000, 200)
	store := NewStore(vfs.NewMem(), "ckpt")
	o := CreateOptions{Incremental: true, MaxAge: time.Hour}
	full, err := store.Create(ctx, nil, src, o)
	must(t, err)
	src.fill(t, 40, 200)
	inc, err := store.Create(ctx, nil, src, o)
	must(t, err)
	if !full.Full() || inc.Full() || inc.Bytes*20 > full.Bytes {
		t.Fatalf("full %d bytes, incremental %d", full.Bytes, inc.Bytes)
	}
	again, err := store.Create(ctx, nil, src, o)
	must(t, err)
	if again.CRC != inc.CRC {
		t.Fatal("an unchanged partition was copied again")
	}
}

// TestChainsAreBounded checks when a copy may be incremental.
func TestChainsAreBounded(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	store := NewStore(vfs.NewMem(), "ckpt")
	clock := time.Unix(1_800_000_000, 0)
	for i, c := range []struct {
		pause time.Duration
		depth int
	}{{0, 0}, {time.Minute, 1}, {time.Minute, 2}, {time.Minute, 0}, {time.Minute, 1}, {2 * time.Hour, 0}, {-time.Minute, 0}, {time.Hour, 1}} {
		src.fill(t, 5, 10)
		clock = clock.Add(c.pause)
		m, err := store.Create(ctx, nil, src, CreateOptions{Incremental: true, MaxAge: time.Hour, MaxDepth: 2, Now: func() time.Time { return clock }})
		must(t, err)
		if m.Depth != c.depth {
			t.Fatalf("copy %d has depth %d, want %d", i, m.Depth, c.depth)
		}
	}
}

// TestSlices checks that hardly anything happens between two yields.
func TestSlices(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 2000, 500)
	src.write(t, map[string]*cell{"big": {value: make([]byte, 1000_000)}})
	for range 300 {
		src.write(t, map[string]*cell{"hot-1": {value: []byte("many versions of one key")}})
	}
	var p Progress
	var lastEntries, lastRaw uint64
	u := &turn{}
	u.onYield = func(n int) error {
		if d := p.Entries.Load() - lastEntries; d > stepsPerClock {
			t.Errorf("%d entries within a slice", d)
		}
		if n > 2*blockRawBytes {
			t.Errorf("%d bytes written within a slice", n)
		}
		lastEntries, lastRaw = p.Entries.Load(), p.RawBytes.Load()
		return nil
	}
	m, err := NewStore(vfs.NewMem(), "ckpt").Create(ctx, u, src, CreateOptions{Slice: 1, Progress: &p})
	must(t, err)
	if u.yields < int(m.Entries)/stepsPerClock || int64(u.bytes) < m.Bytes || lastRaw == 0 {
		t.Fatalf("%d yields, %d bytes charged for %d entries, %d bytes", u.yields, u.bytes, m.Entries, m.Bytes)
	}
}

func TestCancelLeavesNothing(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 300, 100)
	stop := errors.New("cancelled")
	for at := 1; ; at++ {
		fs := vfs.NewMem()
		u := &turn{}
		u.onYield = func(int) error {
			if u.yields == at {
				return stop
			}
			return nil
		}
		_, err := NewStore(fs, "ckpt").Create(ctx, u, src, CreateOptions{Slice: 1, ChunkBytes: 4 << 10})
		if err == nil {
			break
		}
		if !errors.Is(err, stop) {
			t.Fatalf("err %v", err)
		}
		if names, _ := fs.List("ckpt/0001"); len(names) != 0 {
			t.Fatalf("left behind: %v", names)
		}
	}
	if src.pins != 0 {
		t.Fatalf("%d pins left", src.pins)
	}
}

// observed is the outcome of looking at a store after a crash.
func checkAfterCrash(t *testing.T, store *Store, src *source, partition uint32, atLeast int) {
	t.Helper()
	infos, err := store.List(ctx, partition)
	must(t, err)
	if len(infos) < atLeast {
		t.Fatalf("%d checkpoints, want at least %d", len(infos), atLeast)
	}
	for _, info := range infos {
		must(t, info.Err)
		v, err := store.Verify(ctx, nil, partition, info.Decree)
		must(t, err)
		must(t, v.Err())
		compareState(t, readAll(t, store, partition, info.Decree), src.state(info.Decree))
	}
}

// TestCrashAtEveryOperation crashes Create, then Prune, before every operation
// on the file system, with none, some and all of the unsynced data kept.
func TestCrashAtEveryOperation(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 40, 300)
	mem := vfs.NewCrashableMem()
	rng := rand.New(rand.NewPCG(1, 2))
	type crash struct {
		fs *vfs.MemFS
		// atLeast is how many checkpoints were promised when it happened.
		atLeast int
	}
	var crashes []crash
	promised, pruning := 0, false
	injector := errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsRead {
			return nil // nothing has changed since the operation before
		}
		percents := []int{0, 50, 100}
		if pruning {
			percents = []int{0, 100, 20, 30, 40, 50, 50, 60, 70, 80}
		}
		for _, percent := range percents {
			crashes = append(crashes, crash{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), promised})
		}
		return nil
	})
	fs := errorfs.Wrap(mem, injector)
	store := NewStore(fs, "data/ckpt")
	for i := range 4 {
		_, err := store.Create(ctx, nil, src, CreateOptions{ChunkBytes: 4 << 10, Incremental: i%2 == 1, MaxAge: time.Hour})
		must(t, err)
		promised++
		src.fill(t, 5, 200)
	}
	promised, pruning = 2, true
	removed, err := store.Prune(ctx, nil, 1, Retention{KeepLast: 2}, time.Now())
	must(t, err)
	if len(removed) != 2 {
		t.Fatalf("removed %v", removed)
	}
	if len(crashes) < 60 {
		t.Fatalf("only %d crashes", len(crashes))
	}
	for i, c := range crashes {
		after := NewStore(c.fs, "data/ckpt")
		checkAfterCrash(t, after, src, 1, c.atLeast)
		if i%25 == 0 {
			must(t, after.Clean(ctx, nil, 1))
			_, err := after.Create(ctx, nil, src, CreateOptions{ChunkBytes: 4 << 10})
			must(t, err)
			checkAfterCrash(t, after, src, 1, c.atLeast+1)
			names, err := c.fs.List("data/ckpt/0001")
			must(t, err)
			infos, _ := after.List(ctx, 1)
			if len(names) != len(infos) {
				t.Fatalf("leftovers among %v", names)
			}
		}
	}
}

// TestErrorAtEveryOperation fails each operation in turn.
func TestErrorAtEveryOperation(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 40, 200)
	base := vfs.NewMem()
	_, err := NewStore(base, "ckpt").Create(ctx, nil, src, CreateOptions{})
	must(t, err)
	first := src.applied
	src.fill(t, 40, 200)
	for at := 0; ; at++ {
		mem := vfs.NewMem()
		_, err := vfs.Clone(base, mem, "ckpt", "ckpt")
		must(t, err)
		count, failed := 0, false
		fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
			count++
			if count == at+1 {
				failed = true
				return errors.New("injected")
			}
			return nil
		}))
		m, err := NewStore(fs, "ckpt").Create(ctx, nil, src, CreateOptions{ChunkBytes: 4 << 10})
		plain := NewStore(mem, "ckpt")
		if err == nil {
			checkAfterCrash(t, plain, src, 1, 2)
			if m.Decree != src.applied {
				t.Fatalf("decree %d", m.Decree)
			}
		} else {
			checkAfterCrash(t, plain, src, 1, 1)
		}
		must(t, plain.Clean(ctx, nil, 1))
		_, err = plain.Create(ctx, nil, src, CreateOptions{ChunkBytes: 4 << 10})
		must(t, err)
		if !failed {
			break
		}
	}
	if src.pins != 0 || first == 0 {
		t.Fatalf("%d pins left", src.pins)
	}
}

func TestOptionsAreValidated(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 1, 1)
	store := NewStore(vfs.NewMem(), "ckpt")
	for _, o := range []CreateOptions{{ChunkBytes: 1}, {ChunkBytes: 2 << 30}, {Slice: -1}, {MaxAge: -1}, {MaxDepth: -1}} {
		if _, err := store.Create(ctx, nil, src, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
