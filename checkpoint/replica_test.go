package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"replicanode/plog"
	"replicanode/replica"
)

// liveNode is a host with one voter on a real data folder.
type liveNode struct {
	*replica.Host
	syncer *plog.Syncer
}

func startLive(t *testing.T, dir string, partitions uint32) *liveNode {
	t.Helper()
	return startLiveWith(t, dir, partitions, func(*replica.Options) {})
}

func startLiveWith(t *testing.T, dir string, partitions uint32, change func(*replica.Options)) *liveNode {
	t.Helper()
	n := &liveNode{syncer: plog.NewSyncer(plog.SyncerOptions{})}
	must(t, n.syncer.Start(ctx))
	var err error
	o := replica.Options{Dir: dir, Partitions: partitions, ClusterID: 7, Syncer: n.syncer, MemTableBytes: 8 << 20}
	change(&o)
	n.Host, err = replica.NewHost(o)
	must(t, err)
	must(t, n.Start(ctx))
	must(t, n.WaitReady(ctx))
	return n
}

func (n *liveNode) stop(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	must(t, n.Stop(ctx))
	must(t, n.syncer.Stop(ctx))
}

// command is a replica.Command made of a function.
type command struct {
	run  func(tx *replica.Tx) error
	err  error
	done chan error
}

func (c *command) Execute(tx *replica.Tx) { c.err = c.run(tx) }
func (c *command) Finish(err error)       { c.done <- errors.Join(err, c.err) }

func do(t *testing.T, p *replica.Partition, run func(tx *replica.Tx) error) {
	t.Helper()
	c := &command{run: run, done: make(chan error, 1)}
	must(t, p.Propose(c))
	must(t, <-c.done)
}

// contents are all strings and hashes of a partition, as a client sees them.
func contents(t *testing.T, p *replica.Partition) map[string]string {
	t.Helper()
	got := make(map[string]string)
	must(t, p.View(ctx, func(v *replica.View) error {
		for cursor := uint64(0); ; {
			var keys []string
			next, err := v.Scan(cursor, 100, func(key []byte, _ replica.Kind) { keys = append(keys, string(key)) })
			if err != nil {
				return err
			}
			for _, k := range keys {
				value, ok, err := v.Get([]byte(k))
				if err != nil || !ok {
					return errors.Join(err, fmt.Errorf("key %s was scanned: %v", k, ok))
				}
				got[k] = fmt.Sprint(value.Kind, value.ExpireAt, value.Len, string(value.Data))
				if value.Kind == replica.Hash {
					if err := v.HashAll([]byte(k), func(f, data []byte) bool { got[k+"/"+string(f)] = string(data); return true }); err != nil {
						return err
					}
				}
			}
			if cursor = next; cursor == 0 {
				return nil
			}
		}
	}))
	return got
}

// TestNodeOnRestoredData takes checkpoints of a live replica and starts a node
// on what is restored from them: it serves the state at the checkpoint's decree,
// goes on from there, and survives a restart.
func TestNodeOnRestoredData(t *testing.T) {
	n := startLive(t, filepath.Join(t.TempDir(), "partitions"), 1)
	p := n.Partition(0)
	put := func(round int) {
		for i := range 200 {
			do(t, p, func(tx *replica.Tx) error {
				k := fmt.Appendf(nil, "k%03d", (i*7+round)%300)
				switch i % 5 {
				case 0:
					_, err := tx.Delete(k)
					return err
				case 1:
					h := fmt.Appendf(nil, "h%d", i%20)
					_, err := tx.HashPut(h, k, []byte("field"))
					return err
				case 2:
					_, err := tx.HashDelete(fmt.Appendf(nil, "h%d", i%20+1), k)
					if errors.Is(err, replica.ErrWrongType) {
						return nil
					}
					return err
				case 3:
					return tx.Put(k, fmt.Appendf(nil, "v%d", round), uint64(time.Now().Add(time.Hour).UnixMilli()))
				}
				return tx.Put(k, make([]byte, 100*i), 0)
			})
		}
	}
	store := NewStore(nil, filepath.Join(t.TempDir(), "checkpoints"))
	want := make(map[uint64]map[string]string)
	for round := range 3 {
		put(round)
		want[p.Applied()] = contents(t, p)
		m, err := store.Create(ctx, &turn{}, FromReplica(p), CreateOptions{Incremental: round > 0, MaxAge: time.Hour, Partitions: 1})
		must(t, err)
		if m.Full() != (round == 0) || m.Decree != p.Applied() {
			t.Fatalf("manifest %+v, applied %d", m, p.Applied())
		}
	}
	put(9)
	n.stop(t)
	for decree, state := range want {
		dir := filepath.Join(t.TempDir(), "partitions")
		_, err := store.RestoreReplica(ctx, nil, 0, decree, dir, RestoreOptions{Partitions: 1})
		must(t, err)
		n := startLive(t, dir, 1)
		check := func(when string) {
			t.Helper()
			got := contents(t, n.Partition(0))
			if fmt.Sprint(got) != fmt.Sprint(state) {
				t.Fatalf("decree %d, %s: %d entries, want %d", decree, when, len(got), len(state))
			}
		}
		check("after restoring")
		do(t, n.Partition(0), func(tx *replica.Tx) error { return tx.Put([]byte("new"), []byte("life"), 0) })
		state = contents(t, n.Partition(0))
		if n.Partition(0).Applied() <= decree || len(state) != len(want[decree])+1 {
			t.Fatalf("applied %d after a write on top of %d", n.Partition(0).Applied(), decree)
		}
		n.stop(t)
		n = startLive(t, dir, 1)
		check("after a restart")
		n.stop(t)
	}
}
