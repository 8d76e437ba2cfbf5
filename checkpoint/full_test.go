package checkpoint

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"replicanode/replica"
)

// TestFullBesideIncremental: a full copy is made although an incremental one holds the very state, which stays as it is: a checkpoint of
// the node may name it. What is restored from both is the same.
func TestFullBesideIncremental(t *testing.T) {
	n := startLive(t, t.TempDir(), 1)
	defer n.stop(t)
	p := n.Partition(0)
	set := func(i int) {
		do(t, p, func(tx *replica.Tx) error { return tx.Put(fmt.Append(nil, "key-", i), fmt.Append(nil, i), 0) })
	}
	for i := range 20 {
		set(i)
	}
	store := NewStore(nil, t.TempDir())
	src := FromReplica(p)
	incremental := CreateOptions{Incremental: true, MaxAge: time.Hour}
	full := CreateOptions{Full: true}
	first, err := store.Create(ctx, nil, src, incremental)
	must(t, err)
	if again, err := store.Create(ctx, nil, src, full); err != nil || again.Decree != first.Decree || again.CRC != first.CRC {
		t.Fatalf("a full copy of what a full copy holds: %+v, %v", again, err)
	}
	set(3)
	child, err := store.Create(ctx, nil, src, incremental)
	must(t, err)
	if child.Full() {
		t.Fatal("not incremental")
	}
	before := contents(t, p)
	whole, err := store.Create(ctx, nil, src, full)
	must(t, err)
	if !whole.Full() || whole.Decree <= child.Decree {
		t.Fatalf("full: %v, decree %d after %d", whole.Full(), whole.Decree, child.Decree)
	}
	infos, err := store.List(ctx, 0)
	must(t, err)
	if len(infos) != 3 || infos[1].Manifest.CRC != child.CRC {
		t.Fatalf("the incremental one changed: %+v", infos)
	}
	if after := contents(t, p); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Fatalf("%v became %v", before, after)
	}
	var held [2]string
	for i, m := range []*Manifest{child, whole} {
		r, err := store.Open(ctx, nil, 0, m.Decree)
		must(t, err)
		for {
			e, err := r.Next()
			if err != nil {
				break
			}
			if e.Version <= child.Decree {
				held[i] += fmt.Sprintf("%q=%q@%d\n", e.Key, e.Value, e.Version)
			}
		}
		must(t, r.Close())
	}
	if len(held[1]) == 0 || len(held[1]) > len(held[0]) {
		t.Errorf("the full one holds\n%s, the incremental one\n%s", held[1], held[0])
	}
	if m, err := store.Create(ctx, nil, src, incremental); err != nil || m.CRC != whole.CRC {
		t.Errorf("%+v, %v", m, err)
	}
}

// still is a source that has nothing but what is required of one.
type still struct{ Source }

func TestFullOfASourceThatCannotAdvance(t *testing.T) {
	src := newSource(t, 0)
	defer func() { must(t, src.db.Close()) }()
	store := NewStore(nil, t.TempDir())
	src.write(t, map[string]*cell{"a": {value: []byte("1")}})
	_, err := store.Create(ctx, nil, src, CreateOptions{})
	must(t, err)
	src.write(t, map[string]*cell{"a": {value: []byte("2")}})
	child, err := store.Create(ctx, nil, src, CreateOptions{Incremental: true, MaxAge: time.Hour})
	must(t, err)
	if m, err := store.Create(ctx, nil, still{src}, CreateOptions{Full: true}); err == nil {
		t.Fatalf("%+v instead of an error", m)
	}
	if m, err := store.Create(ctx, nil, src, CreateOptions{Full: true}); err != nil || !m.Full() || m.Decree != child.Decree+1 {
		t.Fatalf("%+v, %v", m, err)
	}
	if _, err := store.Create(ctx, nil, src, CreateOptions{Full: true, Incremental: true}); err == nil {
		t.Fatal("full and incremental")
	}
}

// TestExpectedBytes: the size of a copy is estimated before there was one of its kind.
func TestExpectedBytes(t *testing.T) {
	n := startLive(t, t.TempDir(), 1)
	defer n.stop(t)
	p := n.Partition(0)
	rng := rand.New(rand.NewPCG(1, 2))
	fill := func(from, to int) {
		for i := from; i < to; i += 100 {
			do(t, p, func(tx *replica.Tx) error {
				var errs []error
				for j := range 100 {
					value := make([]byte, 1000)
					for k := range value {
						value[k] = byte(rng.Uint32())
					}
					errs = append(errs, tx.Put(fmt.Appendf(nil, "key-%06d", i+j), value, 0))
				}
				return errors.Join(errs...)
			})
		}
	}
	store := NewStore(nil, t.TempDir())
	check := func(name string, o CreateOptions) {
		t.Helper()
		o.Progress = &Progress{}
		m, err := store.Create(ctx, nil, FromReplica(p), o)
		must(t, err)
		got := float64(o.Progress.Expected.Load())
		if want := float64(m.RawBytes); got < want*0.7 || got > want*1.5 {
			t.Errorf("%s: expected %.0f bytes, there were %.0f", name, got, want)
		}
		if o.Progress.Parent.Load() != m.Parent {
			t.Errorf("%s: parent %d", name, o.Progress.Parent.Load())
		}
	}
	fill(0, 3000)
	check("in memory", CreateOptions{})
	fill(3000, 20000)
	check("in tables and memory", CreateOptions{})
	fill(0, 500)
	check("changed", CreateOptions{Incremental: true, MaxAge: time.Hour})
}

// TestNewestOfAPartitionThatBeganAnew is of its present history, although that has lower decrees, for restoring and for the retention; whatever
// the clock said when they were made.
func TestNewestOfAPartitionThatBeganAnew(t *testing.T) {
	store := NewStore(nil, t.TempDir())
	life := func(name string, writes ...int) (made []*Manifest) {
		n := startLive(t, t.TempDir(), 1)
		defer n.stop(t)
		for i, count := range writes {
			for range count {
				do(t, n.Partition(0), func(tx *replica.Tx) error { return tx.Put([]byte("life"), []byte(name), 0) })
			}
			o := CreateOptions{Now: func() time.Time { return time.Now().Add(-time.Duration(i) * time.Hour) }}
			m, err := store.Create(ctx, nil, FromReplica(n.Partition(0)), o)
			must(t, err)
			made = append(made, m)
		}
		return made
	}
	old := life("old", 20, 5, 5)
	latest := func(want *Manifest) {
		t.Helper()
		if m, err := store.Latest(ctx, 0); err != nil || m.CRC != want.CRC {
			t.Fatalf("%+v, %v; decree %d was expected", m, err, want.Decree)
		}
	}
	latest(old[2])
	anew := life("new", 3, 3)
	if anew[1].Decree >= old[0].Decree {
		t.Fatalf("decree %d after %d", anew[1].Decree, old[0].Decree)
	}
	latest(anew[1])
	removed, err := store.Prune(ctx, nil, 0, Retention{KeepLast: 3}, time.Now())
	must(t, err)
	if fmt.Sprint(removed) != fmt.Sprint([]uint64{old[1].Decree, old[0].Decree}) {
		t.Fatalf("removed %v of %d, %d, %d", removed, old[0].Decree, old[1].Decree, old[2].Decree)
	}
	latest(anew[1])
}
