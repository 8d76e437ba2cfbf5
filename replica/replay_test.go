package replica

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"pgregory.net/rapid"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// replayAll restarts a partition without its database, so that its whole log is replayed.
func replayAll(t *testing.T, n *testNode, o Options) *testNode {
	t.Helper()
	n.stop(t)
	must(t, os.RemoveAll(filepath.Join(o.Dir, PartitionDir(0), DBDir)))
	return startNode(t, o)
}

// dumpWithExpiry is dump with the expiry of every record.
func dumpWithExpiry(t *testing.T, p *Partition) map[string][]byte {
	t.Helper()
	all := dump(t, p)
	must(t, p.viewApplied(func(v *View) error {
		for k := range all {
			item, err := v.txn.Get([]byte(k))
			if err != nil {
				return err
			}
			all[k] = fmt.Appendf(all[k], " until %d", item.ExpiresAt())
		}
		return nil
	}))
	return all
}

// TestReplayAfterDeletesAreForgotten: what a delete decided while it was remembered, it decides again later.
func TestReplayAfterDeletesAreForgotten(t *testing.T) {
	clock := newFakeClock()
	clock.advance(-10_000 * time.Hour)
	o := testOptions(t, testDir(t))
	o.Clock = clock.now
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	p := n.Partition(0)
	set(t, p, "k", "local")
	do(t, p, func(tx *Tx) {
		_, err := tx.Delete([]byte("k"))
		must(t, err)
	})
	applyRemote(t, p, 1, clock.now().Add(-time.Hour), func(b *mutation.Builder) { b.Put([]byte("k"), []byte("remote"), 0) })
	if v, ok := get(t, p, "k"); ok {
		t.Fatalf("%q: the older write won", v)
	}
	clock.advance(10_000 * time.Hour)
	n = replayAll(t, n, o)
	if v, ok := get(t, n.Partition(0), "k"); ok {
		t.Errorf("%q: the older write won when it was replayed", v)
	}
}

// TestDeletesAreRememberedByTheLogsTime, whatever time it is when the log is applied.
func TestDeletesAreRememberedByTheLogsTime(t *testing.T) {
	clock := newFakeClock()
	clock.advance(-10_000 * time.Hour)
	o := testOptions(t, testDir(t))
	o.Clock = clock.now
	n := startNode(t, o)
	defer func() { n.stop(t) }()
	p, deleted := n.Partition(0), clock.now()
	do(t, p, func(tx *Tx) {
		must(t, tx.Put([]byte("k"), nil, 0))
		_, err := tx.Delete([]byte("k"))
		must(t, err)
	})
	remote := func(b *mutation.Builder) { b.Put([]byte("k"), []byte("remote"), 0) }
	clock.advance(23 * time.Hour)
	applyRemote(t, p, 1, deleted.Add(-time.Minute), remote)
	if v, ok := get(t, p, "k"); ok {
		t.Errorf("%q: an older write won while the delete was remembered", v)
	}
	clock.advance(2 * time.Hour)
	applyRemote(t, p, 2, deleted.Add(-time.Minute), remote)
	if v, _ := get(t, p, "k"); v != "remote" {
		t.Errorf("%q after the delete was forgotten", v)
	}
}

// TestReplayIsTheSameAtAnyTime: a log makes the same records whenever it is applied, and whatever was swept in between.
func TestReplayIsTheSameAtAnyTime(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		clock := newFakeClock()
		clock.advance(-time.Duration(rapid.IntRange(0, 5).Draw(rt, "hours ago")) * time.Hour)
		o := testOptions(t, testDir(rt))
		o.Clock, o.TombstoneTTL = clock.now, time.Hour
		n := startNode(t, o)
		defer func() { n.stop(t) }()
		p, decree := n.Partition(0), uint64(0)
		for range rapid.IntRange(5, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				clock.advance(time.Duration(rapid.IntRange(0, 50).Draw(rt, "minutes")) * time.Minute)
			case 1:
				must(t, p.Sweep(t.Context(), nil))
			case 2, 3:
				do(t, p, func(tx *Tx) { drawWrite(rt, tx, tx.NowMs()) })
			default:
				decree++
				at := clock.now().Add(-time.Duration(rapid.IntRange(0, 150).Draw(rt, "minutes late")) * time.Minute)
				applyRemote(t, p, decree, at, func(b *mutation.Builder) { drawRemoteWrite(rt, b, uint64(at.UnixMilli())) })
			}
		}
		set(t, p, "last", "write")
		must(t, p.Sweep(t.Context(), nil))
		want := dumpWithExpiry(t, p)
		clock.advance(time.Duration(rapid.IntRange(0, 1000).Draw(rt, "hours later")) * time.Hour)
		n = replayAll(t, n, o)
		must(t, n.Partition(0).Sweep(t.Context(), nil))
		requireSame(t, want, dumpWithExpiry(t, n.Partition(0)))
		if t.Failed() {
			rt.FailNow()
		}
	})
}

func drawWrite(rt *rapid.T, tx *Tx, now uint64) {
	k := []byte(rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key"))
	field := []byte(rapid.SampledFrom([]string{"f", "g"}).Draw(rt, "field"))
	expireAt := drawExpiry(rt, now)
	switch rapid.IntRange(0, 4).Draw(rt, "write") {
	case 0:
		_ = tx.Put(k, []byte("local"), expireAt)
	case 1:
		_, _ = tx.Delete(k)
	case 2:
		_, _ = tx.HashPut(k, field, []byte("local"))
	case 3:
		_, _ = tx.HashDelete(k, field)
	case 4:
		_, _ = tx.Expire(k, expireAt)
	}
}

func drawRemoteWrite(rt *rapid.T, b *mutation.Builder, now uint64) {
	k := []byte(rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key"))
	field := []byte(rapid.SampledFrom([]string{"f", "g"}).Draw(rt, "field"))
	expireAt := drawExpiry(rt, now)
	switch rapid.IntRange(0, 4).Draw(rt, "write") {
	case 0:
		b.Put(k, []byte("remote"), expireAt)
	case 1:
		b.Delete(k)
	case 2:
		b.HashPut(k, field, []byte("remote"))
	case 3:
		b.HashDelete(k, field)
	case 4:
		b.Expire(k, expireAt, mutation.TimestampOfMillis(1<<42), 0)
	}
}

func drawExpiry(rt *rapid.T, now uint64) uint64 {
	minutes := rapid.SampledFrom([]uint64{0, 10, 40}).Draw(rt, "expires in minutes")
	if minutes == 0 {
		return 0
	}
	return now + minutes*60_000
}

// lookingRunner notes how far a partition is when it has been opened.
type lookingRunner struct {
	host    *Host
	applied chan uint64
}

func (r *lookingRunner) Run(ctx context.Context, _ string, f func(context.Context) error) error {
	err := f(ctx)
	r.applied <- r.host.Partition(0).Applied()
	return err
}

// TestReplayIsPartOfOpening, which the runner bounds, not of the goroutine that drives all partitions.
func TestReplayIsPartOfOpening(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	for i := range 200 {
		set(t, n.Partition(0), key(i), "v")
	}
	want := n.Partition(0).Applied()
	n.stop(t)
	must(t, os.RemoveAll(filepath.Join(o.Dir, PartitionDir(0), DBDir)))
	syncer := plog.NewSyncer(plog.SyncerOptions{})
	must(t, syncer.Start(t.Context()))
	r := &lookingRunner{applied: make(chan uint64, 1)}
	o.Runner, o.Syncer = r, syncer
	h, err := NewHost(o)
	if err != nil {
		t.Fatal(err)
	}
	r.host = h
	must(t, h.Start(t.Context()))
	// By then the partition may have a leader, whose first entry is one more.
	if got := <-r.applied; got < want {
		t.Errorf("opened at decree %d, the log is committed up to %d", got, want)
	}
	must(t, h.WaitReady(t.Context()))
	if s := h.Partition(0).Status().Replay; !s.Done || s.From != 1 || s.To != want || s.At != want {
		t.Errorf("%+v", s)
	}
	for i := range 200 {
		if _, ok := get(t, h.Partition(0), key(i)); !ok {
			t.Errorf("%s is missing", key(i))
		}
	}
	must(t, h.Stop(t.Context()))
	must(t, syncer.Stop(t.Context()))
}

// TestOpeningCanBeStopped while the log is replayed: nothing is left open, and the next start goes on.
func TestOpeningCanBeStopped(t *testing.T) {
	o := testOptions(t, testDir(t))
	n := startNode(t, o)
	for i := range 50 {
		set(t, n.Partition(0), key(i), "v")
	}
	n.stop(t)
	must(t, os.RemoveAll(filepath.Join(o.Dir, PartitionDir(0), DBDir)))
	for range 5 {
		n, err := openNode(o)
		if err != nil {
			t.Fatal(err)
		}
		_ = n.Stop(t.Context())
		must(t, n.syncer.Stop(t.Context()))
	}
	n = startNode(t, o)
	defer n.stop(t)
	if _, ok := get(t, n.Partition(0), key(49)); !ok {
		t.Error("a write is missing")
	}
}
