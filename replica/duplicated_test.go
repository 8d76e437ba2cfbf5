package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// shipper collects a partition's user mutations, as duplication does.
type shipper struct {
	mu        sync.Mutex
	mutations []mutation.SourceMutation
	last      uint64
}

func (s *shipper) Applied(entries []plog.Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if s.last != 0 && e.Index != s.last+1 {
			panic("decrees with a gap")
		}
		s.last = e.Index
		if e.Type != 0 || len(e.Data) == 0 {
			continue
		}
		if h, err := mutation.ParseHeader(e.Data); err == nil && h.Kind == mutation.User {
			s.mutations = append(s.mutations, mutation.SourceMutation{Decree: e.Index, Data: bytes.Clone(e.Data)})
		}
	}
}

// batch is what comes after a decree, at most n mutations.
func (s *shipper) batch(cluster, after uint64, n int) mutation.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := mutation.Batch{Cluster: cluster, Prev: after, Last: after}
	for _, m := range s.mutations {
		if m.Decree > after && n > 0 {
			b.Mutations = append(b.Mutations, m)
			b.Last, n = m.Decree, n-1
		}
	}
	return b
}

func applyBatch(p *Partition, b mutation.Batch) (confirmed uint64, err error) {
	done := make(chan struct{})
	p.ApplyDuplicated(context.Background(), b, func(c uint64, e error) {
		confirmed, err = c, e
		close(done)
	})
	<-done
	return confirmed, err
}

// visible is all that a partition's readers see.
func visible(t testing.TB, p *Partition) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := p.View(contextBackground, func(v *View) error {
		var keys []string
		for cursor, first := uint64(0), true; first || cursor != 0; first = false {
			var err error
			if cursor, err = v.Scan(cursor, 100, func(k []byte, _ Kind) { keys = append(keys, string(k)) }); err != nil {
				return err
			}
		}
		for _, k := range keys {
			value, _, err := v.Get([]byte(k))
			if err != nil {
				return err
			}
			all[k] = fmt.Sprint(value.Kind, string(value.Data), value.ExpireAt, value.Len)
			if value.Kind == Hash {
				err = v.HashAll([]byte(k), func(f, val []byte) bool { all[k+"/"+string(f)] = string(val); return true })
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestClustersConverge: two clusters write the same keys, or one only, and ship to each other, in any interleaving. In the end
// both show the same, whatever won.
func TestClustersConverge(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := newFakeClock()
		var nodes [2]*testNode
		var ships [2]*shipper
		for i := range nodes {
			o := testOptions(t, testDir(rt))
			o.ClusterID, o.Clock = uint64(i+1), clock.now
			nodes[i] = startNode(t, o)
			defer nodes[i].stop(t)
			ships[i] = new(shipper)
			defer nodes[i].Partition(0).Subscribe(ships[i])()
		}
		ship := func(from, n int) {
			to := nodes[1-from].Partition(0)
			have, err := to.DuplicationProgress(uint64(from+1), 0)
			if err != nil {
				rt.Fatal(err)
			}
			after := have - min(have, uint64(rapid.IntRange(0, 4).Draw(rt, "again")))
			b := ships[from].batch(uint64(from+1), after, n)
			b.Last = max(b.Last, have)
			if confirmed, err := applyBatch(to, b); err != nil || confirmed != b.Last {
				rt.Fatalf("confirmed %d of %d: %v", confirmed, b.Last, err)
			}
		}
		narrow := rapid.Bool().Draw(rt, "narrow")
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			at := rapid.IntRange(0, 1).Draw(rt, "cluster")
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				ship(at, rapid.IntRange(1, 5).Draw(rt, "n"))
			case 1:
				clock.advance(time.Duration(rapid.IntRange(0, 20).Draw(rt, "ms")) * time.Millisecond)
			default:
				o := drawOp(rt)
				if narrow {
					o.key = "a"
				}
				_ = try(nodes[at].Partition(0), o.run)
			}
		}
		for at := range nodes {
			ship(at, 1000)
		}
		clock.advance(time.Duration(rapid.IntRange(0, 60).Draw(rt, "end")) * time.Millisecond)
		a, b := visible(t, nodes[0].Partition(0)), visible(t, nodes[1].Partition(0))
		if !maps.Equal(a, b) {
			rt.Fatalf("one shows %v\nthe other %v", a, b)
		}
	})
}

// TestExpiryEndsWithTheLifeOfAHash: an expiry says nothing of what begins after the hash was replaced, here or elsewhere, or
// had lost its last field.
func TestExpiryEndsWithTheLifeOfAHash(t *testing.T) {
	key, f, g := []byte("h"), []byte("f"), []byte("g")
	n := startNode(t, testOptions(t, testDir(t)))
	defer n.stop(t)
	p := n.Partition(0)
	expiry := func() (at uint64) {
		t.Helper()
		do(t, p, func(tx *Tx) {
			v, _, err := tx.Get(key)
			must(t, err)
			at = v.ExpireAt
		})
		return at
	}
	put := func(field []byte) {
		t.Helper()
		do(t, p, func(tx *Tx) { _, _ = tx.HashPut(key, field, []byte("1")) })
	}
	expire := func() {
		t.Helper()
		do(t, p, func(tx *Tx) { _, _ = tx.Expire(key, tx.NowMs()+1e6) })
		if expiry() == 0 {
			t.Fatal("no expiry was set")
		}
	}

	put(f)
	expire()
	do(t, p, func(tx *Tx) { _, _ = tx.HashDelete(key, f) })
	put(g)
	if at := expiry(); at != 0 {
		t.Errorf("a hash that was empty expires at %d", at)
	}

	// A remote replaced the hash before this cluster expired it and set another field: the field stays, the expiry does not.
	before := time.Now()
	expire()
	put(f)
	applyRemote(t, p, 1, before, func(b *mutation.Builder) { b.Put(key, []byte("s"), 0) })
	if at := expiry(); at != 0 {
		t.Errorf("a replaced hash expires at %d", at)
	}
	// Nor does one that a remote gave the life before.
	applyRemote(t, p, 2, time.Now().Add(time.Second), func(b *mutation.Builder) { b.Expire(key, 1<<50, 0, 0) })
	if at := expiry(); at != 0 {
		t.Errorf("the expiry of another life counts: %d", at)
	}
}

// TestFieldsOfConcurrentHashesMerge: clusters that set different fields of one hash keep both.
func TestFieldsOfConcurrentHashesMerge(t *testing.T) {
	p := duplicateInto(t,
		func(tx *Tx) { _, _ = tx.HashPut([]byte("h"), []byte("here"), []byte("1")) },
		func(b *mutation.Builder) { b.HashPut([]byte("h"), []byte("there"), []byte("2")) })
	if got := visible(t, p); got["h/here"] != "1" || got["h/there"] != "2" {
		t.Fatalf("%v", got)
	}
}

// TestLaterWriteWins, tombstones included.
func TestLaterWriteWins(t *testing.T) {
	put := func(tx *Tx) { _ = tx.Put([]byte("k"), []byte("local"), 0) }
	for name, c := range map[string]struct {
		local  func(tx *Tx)
		ahead  time.Duration
		remote func(b *mutation.Builder)
		want   string
	}{
		"older put":         {put, -time.Hour, func(b *mutation.Builder) { b.Put([]byte("k"), []byte("remote"), 0) }, "local"},
		"newer put":         {put, 30 * time.Second, func(b *mutation.Builder) { b.Put([]byte("k"), []byte("remote"), 0) }, "remote"},
		"older delete":      {put, -time.Hour, func(b *mutation.Builder) { b.Delete([]byte("k")) }, "local"},
		"newer delete":      {put, 30 * time.Second, func(b *mutation.Builder) { b.Delete([]byte("k")) }, ""},
		"put before delete": {func(tx *Tx) { put(tx); _, _ = tx.Delete([]byte("k")) }, -time.Hour, func(b *mutation.Builder) { b.Put([]byte("k"), []byte("remote"), 0) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			n := startNode(t, testOptions(t, testDir(t)))
			defer n.stop(t)
			p := n.Partition(0)
			do(t, p, c.local)
			applyRemote(t, p, 1, time.Now().Add(c.ahead), c.remote)
			if got, _ := get(t, p, "k"); got != c.want {
				t.Fatalf("%q, want %q", got, c.want)
			}
			// What is written here now is newer than anything that was ever seen.
			do(t, p, func(tx *Tx) { _ = tx.Put([]byte("k"), []byte("last"), 0) })
			applyRemote(t, p, 2, time.Now().Add(c.ahead), c.remote)
			if got, _ := get(t, p, "k"); c.ahead < 0 && got != "last" {
				t.Fatalf("%q after a local write", got)
			}
		})
	}
}

func duplicateInto(t *testing.T, local func(tx *Tx), remote func(b *mutation.Builder)) *Partition {
	n := startNode(t, testOptions(t, testDir(t)))
	t.Cleanup(func() { n.stop(t) })
	do(t, n.Partition(0), local)
	applyRemote(t, n.Partition(0), 1, time.Now(), remote)
	return n.Partition(0)
}

func applyRemote(t *testing.T, p *Partition, decree uint64, at time.Time, build func(b *mutation.Builder)) {
	t.Helper()
	var b mutation.Builder
	b.Reset(mutation.Header{Kind: mutation.User, Timestamp: mutation.TimestampOf(at), Cluster: 50})
	build(&b)
	_, err := applyBatch(p, mutation.Batch{Cluster: 50, Prev: decree - 1, Last: decree,
		Mutations: []mutation.SourceMutation{{Decree: decree, Data: b.Bytes()}}})
	if err != nil {
		t.Fatal(err)
	}
}

func counterBatch(from, to uint64) mutation.Batch {
	b := mutation.Batch{Cluster: 50, Partition: 3, Prev: from, Last: to}
	for d := from + 1; d <= to; d++ {
		var m mutation.Builder
		m.Reset(mutation.Header{Kind: mutation.User, Timestamp: mutation.Timestamp(d), Cluster: 50})
		m.Put([]byte("n"), fmt.Append(nil, d), 0)
		b.Mutations = append(b.Mutations, mutation.SourceMutation{Decree: d, Data: m.Bytes()})
	}
	return b
}

func TestBatchesTakeEffectOnceAndInOrder(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	p := n.Partition(0)
	for _, step := range []struct{ from, to, confirmed uint64 }{{0, 5, 5}, {0, 5, 5}, {2, 4, 5}, {3, 8, 8}, {8, 8, 8}} {
		confirmed, err := applyBatch(p, counterBatch(step.from, step.to))
		if err != nil || confirmed != step.confirmed {
			t.Fatalf("%+v: confirmed %d, %v", step, confirmed, err)
		}
	}
	applied := p.Applied()
	if _, err := applyBatch(p, counterBatch(1, 8)); err != nil || p.Applied() != applied {
		t.Fatalf("a repeated batch used a decree, %v", err)
	}
	var gap *GapError
	if _, err := applyBatch(p, counterBatch(9, 10)); !errors.As(err, &gap) || gap.Have != 8 {
		t.Fatalf("%v", err)
	}
	n.stop(t)
	n = startNode(t, o)
	p = n.Partition(0)
	if have, err := p.DuplicationProgress(50, 3); err != nil || have != 8 {
		t.Fatalf("progress %d, %v", have, err)
	}
	if v, _ := get(t, p, "n"); v != "8" {
		t.Fatalf("n is %q", v)
	}
	if have, err := p.DuplicationProgress(50, 4); err != nil || have != 0 {
		t.Fatalf("progress of another partition %d, %v", have, err)
	}
}

func TestBadBatchesAreRefused(t *testing.T) {
	o := testOptions(t, testDir(t))
	o.MaxDuplicatedBytes = 10_000
	n := startNode(t, o)
	defer n.stop(t)
	p := n.Partition(0)
	applied := p.Applied()

	own := counterBatch(0, 1)
	own.Cluster = 7
	if _, err := applyBatch(p, own); !errors.Is(err, mutation.ErrFormat) {
		t.Errorf("own cluster: %v", err)
	}
	garbage := counterBatch(0, 1)
	garbage.Mutations[0].Data = []byte("garbage")
	if _, err := applyBatch(p, garbage); !errors.Is(err, mutation.ErrFormat) {
		t.Errorf("garbage: %v", err)
	}
	if _, err := applyBatch(p, counterBatch(0, 1000)); !errors.As(err, new(*TooLargeError)) {
		t.Errorf("too large: %v", err)
	}
	future := counterBatch(0, 1)
	var m mutation.Builder
	m.Reset(mutation.Header{Kind: mutation.User, Timestamp: ^mutation.Timestamp(0), Cluster: 50})
	future.Mutations[0].Data = m.Bytes()
	if _, err := applyBatch(p, future); !errors.As(err, new(*ClockSkewError)) {
		t.Errorf("future: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var got error
	p.ApplyDuplicated(ctx, counterBatch(0, 1), func(_ uint64, err error) { got = err })
	if !errors.Is(got, context.Canceled) {
		t.Errorf("cancelled: %v", got)
	}
	if p.Applied() != applied {
		t.Error("a refused batch used a decree")
	}
}

func TestConfirmedSurvivesRestart(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	for i := range uint64(5) {
		must(t, n.Partition(0).RecordConfirmed("backup", i))
	}
	if _, ok := n.Partition(0).Confirmed("other"); ok {
		t.Error("another remote has confirmed something")
	}
	n.stop(t)
	n = startNode(t, o)
	if d, ok := n.Partition(0).Confirmed("backup"); !ok || d != 4 {
		t.Fatalf("%d %v", d, ok)
	}
	if err := n.Partition(0).RecordConfirmed("", 1); err == nil {
		t.Error("a remote without a name")
	}
}

// TestFastRemoteClockMovesNoExpiry: timestamps follow those of another cluster that is ahead, times to live do not.
func TestFastRemoteClockMovesNoExpiry(t *testing.T) {
	clock := newFakeClock()
	o := testOptions(t, testDir(t))
	o.Clock = clock.now
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	p := n.Partition(0)
	begun := clock.now()
	expireAt := uint64(begun.UnixMilli()) + 20_000
	put := func(key string) {
		do(t, p, func(tx *Tx) {
			if now := tx.NowMs(); now != uint64(clock.now().UnixMilli()) {
				t.Errorf("a command's time is %d ms from the clock's", int64(now)-clock.now().UnixMilli())
			}
			must(t, tx.Put([]byte(key), nil, expireAt))
			_, err := tx.HashPut([]byte("hash of "+key), []byte("f"), nil)
			must(t, err)
			_, err = tx.Expire([]byte("hash of "+key), expireAt)
			must(t, err)
		})
	}
	put("before")
	applyRemote(t, p, 1, begun.Add(50*time.Second), func(b *mutation.Builder) { b.Put([]byte("remote"), nil, 0) })
	put("after")
	keys := []string{"before", "hash of before", "after", "hash of after"}
	check := func(want bool) {
		t.Helper()
		for _, k := range keys {
			_, viewed := get(t, p, k)
			found := false
			do(t, p, func(tx *Tx) { _, found, _ = tx.Get([]byte(k)) })
			if viewed != want || found != want {
				t.Errorf("%s: read %v, in a command %v, expected %v", k, viewed, found, want)
			}
		}
	}
	check(true)
	clock.advance(19 * time.Second)
	do(t, p, func(tx *Tx) {
		_, err := tx.HashPut([]byte("hash of after"), []byte("g"), nil)
		must(t, err)
	})
	check(true)
	want := dumpWithExpiry(t, p)
	n = replayAll(t, n, o)
	p = n.Partition(0)
	requireSame(t, want, dumpWithExpiry(t, p))
	check(true)
	clock.advance(time.Second)
	check(false)
}
