package node

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"replicanode/duplication"
	"replicanode/server/admin"
)

// The tests of this file are the procedures of docs/operations.md, made with real nodes.

func backupAt(address string) []duplication.Remote {
	return []duplication.Remote{{Name: "backup", Addresses: []string{address}}}
}

// checkpointAll makes checkpoints of all partitions of a running node.
func checkpointAll(t *testing.T, n *Node) {
	t.Helper()
	jobs, err := admin.Post[JobsAnswer](t.Context(), api(t, n), "/v1/checkpoints", CheckpointRequest{All: true})
	if err != nil {
		t.Fatal(err)
	}
	c := api(t, n)
	for _, job := range jobs.Jobs {
		eventually(t, "the checkpoint is done", func() (bool, string) {
			s, err := admin.Get[JobStatus](t.Context(), c, fmt.Sprintf("/v1/jobs/%d", job.ID))
			if s.Error != "" {
				t.Fatal(s.Error)
			}
			return err == nil && s.Done, fmt.Sprintf("%+v %v", s, err)
		})
	}
}

// restored makes a data folder from the checkpoints of another.
func restored(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "restored")
	store, err := foldersStore([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreCheckpoints(t.Context(), RestoreOptions{Store: store, Sources: []string{dir}, To: to}); err != nil {
		t.Fatal(err)
	}
	return to
}

// everything is what a node's clients can see.
func everything(t *testing.T, n *Node) map[string]string {
	t.Helper()
	c := client(t, n)
	found := make(map[string]string)
	keys := c.Scan(t.Context(), 0, "", 1000).Iterator()
	for keys.Next(t.Context()) {
		k := keys.Val()
		if fields, err := c.HGetAll(t.Context(), k).Result(); err == nil {
			found[k] = fmt.Sprint(fields)
			continue
		}
		v, err := c.Get(t.Context(), k).Result()
		if err != nil {
			t.Fatal(err)
		}
		found[k] = v
	}
	if err := keys.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// awaitSame waits until a says that its remote has everything, and then that must be so.
func awaitSame(t *testing.T, a, b *Node) {
	t.Helper()
	c := api(t, a)
	eventually(t, "nothing is left to ship", func() (bool, string) {
		for _, p := range pipelines(t, c) {
			if p.State != duplication.StateShipping || p.Lag.Decrees > 0 || p.LastError != "" {
				return false, fmt.Sprintf("%+v", p)
			}
		}
		return true, ""
	})
	if here, there := everything(t, a), everything(t, b); !maps.Equal(here, there) {
		t.Fatalf("%d keys here, %d there, and they differ", len(here), len(there))
	}
}

func pipelines(t *testing.T, c *admin.Client) []duplication.PipelineStatus {
	t.Helper()
	a, err := admin.Get[DuplicationsAnswer](t.Context(), c, "/v1/duplications")
	if err != nil {
		t.Fatal(err)
	}
	return a.Pipelines
}

func awaitState(t *testing.T, n *Node, state duplication.State, errorPart string) {
	t.Helper()
	c := api(t, n)
	eventually(t, "the state is "+state.String(), func() (bool, string) {
		all := pipelines(t, c)
		for _, p := range all {
			if p.State != state || !strings.Contains(p.LastError, errorPart) {
				return false, fmt.Sprintf("%+v", p)
			}
		}
		return len(all) > 0, "no pipelines"
	})
}

func resume(t *testing.T, n *Node) {
	t.Helper()
	if _, err := admin.Post[Done](t.Context(), api(t, n), "/v1/duplications/backup/resume", nil); err != nil {
		t.Fatal(err)
	}
}

// collectLog writes until the first decrees of the only partition are in its log no more.
func collectLog(t *testing.T, n *Node) {
	t.Helper()
	c, operator := client(t, n), api(t, n)
	value := bytes.Repeat([]byte("x"), 16<<10)
	eventually(t, "the log's beginning is collected", func() (bool, string) {
		_, err := c.Pipelined(t.Context(), func(p goredis.Pipeliner) error {
			for i := range 100 {
				p.Set(t.Context(), fmt.Sprintf("bulk-%d", i), value, 0)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := admin.Post[Done](t.Context(), operator, "/v1/tasks/gc_logs/run", nil); err != nil {
			t.Fatal(err)
		}
		first := n.host.Partition(0).Log().FirstIndex()
		return first > 1, fmt.Sprintf("it begins with decree %d", first)
	})
}

// Seed a backup from a checkpoint: the log does not go back far enough for an empty one.
func TestBackupSeededFromACheckpoint(t *testing.T) {
	dir := t.TempDir()
	small := Options{DataDir: dir, Partitions: 1, MemtableBytes: 8 << 20, SegmentBytes: 1 << 20}
	primary := launch(t, small)
	fill(t, client(t, primary), 0, 100)
	collectLog(t, primary)
	halt(t, primary)

	backup := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	address := backup.Addresses().Peer
	small.DuplicateTo = backupAt(address)
	primary = launch(t, small)
	awaitState(t, primary, duplication.StateLogCollected, "checkpoint")
	checkpointAll(t, primary)
	fill(t, client(t, primary), 100, 200)
	halt(t, backup)
	backup = launch(t, Options{DataDir: restored(t, dir), Peer: address})
	resume(t, primary)
	fill(t, client(t, primary), 200, 300)
	awaitSame(t, primary, backup)
	check(t, client(t, backup), 300)
}

// Promote a restored node in place of a lost primary: the backup that the primary had goes on with it, an empty one is refused.
func TestRestoredNodeIsPromoted(t *testing.T) {
	dir := t.TempDir()
	backup := launch(t, Options{DataDir: t.TempDir(), Partitions: 2})
	address := backup.Addresses().Peer
	primary := launch(t, Options{DataDir: dir, Partitions: 2, DuplicateTo: backupAt(address)})
	fill(t, client(t, primary), 0, 200)
	checkpointAll(t, primary)
	awaitSame(t, primary, backup)
	halt(t, primary)

	promoted := launch(t, Options{DataDir: restored(t, dir), DuplicateTo: backupAt(address)})
	check(t, client(t, promoted), 200)
	fill(t, client(t, promoted), 200, 300)
	if err := client(t, promoted).Del(t.Context(), "key-7", "hash-3").Err(); err != nil {
		t.Fatal(err)
	}
	awaitSame(t, promoted, backup)
	halt(t, promoted)
	promoted = launch(t, Options{DataDir: promoted.opts.DataDir, DuplicateTo: backupAt(address)})
	fill(t, client(t, promoted), 300, 400)
	awaitSame(t, promoted, backup)
	halt(t, promoted)

	empty := launch(t, Options{DataDir: t.TempDir(), Partitions: 2})
	promoted = launch(t, Options{DataDir: promoted.opts.DataDir, DuplicateTo: backupAt(empty.Addresses().Peer)})
	awaitState(t, promoted, duplication.StateRefused, "checkpoint")
	if got := everything(t, empty); len(got) != 0 {
		t.Fatalf("%d keys on a remote that cannot have them all", len(got))
	}
	// The cure: a checkpoint of the promoted node.
	checkpointAll(t, promoted)
	address = empty.Addresses().Peer
	halt(t, empty)
	seeded := launch(t, Options{DataDir: restored(t, promoted.opts.DataDir), Peer: address})
	resume(t, promoted)
	fill(t, client(t, promoted), 400, 450)
	awaitSame(t, promoted, seeded)
}

// Fail over to a backup that was seeded from a checkpoint, and back.
func TestFailOverAndBack(t *testing.T) {
	dir := t.TempDir()
	primary := launch(t, Options{DataDir: dir, Partitions: 2})
	fill(t, client(t, primary), 0, 100)
	checkpointAll(t, primary)
	backup := launch(t, Options{DataDir: restored(t, dir)})
	address := primary.Addresses().Peer
	halt(t, primary)
	primary = launch(t, Options{DataDir: dir, Peer: address, DuplicateTo: backupAt(backup.Addresses().Peer)})
	fill(t, client(t, primary), 100, 200)
	awaitSame(t, primary, backup)
	halt(t, primary)

	halt(t, backup)
	backup = launch(t, Options{DataDir: backup.opts.DataDir, DuplicateTo: backupAt(address)})
	fill(t, client(t, backup), 200, 300)
	primary = launch(t, Options{DataDir: dir, Peer: address})
	resume(t, backup)
	awaitSame(t, backup, primary)
	check(t, client(t, primary), 300)
}

// A restored folder is another cluster, and does not keep what the origin's remotes have confirmed.
func TestRestoredFolderHasItsOwnIdentity(t *testing.T) {
	dir := t.TempDir()
	backup := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	primary := launch(t, Options{DataDir: dir, Partitions: 1, DuplicateTo: backupAt(backup.Addresses().Peer)})
	fill(t, client(t, primary), 0, 50)
	awaitSame(t, primary, backup)
	if err := primary.host.Partition(0).RecordConfirmed("backup", primary.host.Partition(0).Applied()); err != nil {
		t.Fatal(err)
	}
	checkpointAll(t, primary)
	origin := primary.folders.Identity.ClusterID
	store, err := foldersStore([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	infos, err := ListCheckpoints(t.Context(), store, nil)
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	to := restored(t, dir)
	other := launch(t, Options{DataDir: to})
	if id := other.folders.Identity; id.ClusterID == origin || id.ClusterID == 0 {
		t.Errorf("cluster id %d, that of the origin is %d", id.ClusterID, origin)
	}
	p := other.host.Partition(0)
	if decree, known := p.Confirmed("backup"); known {
		t.Errorf("it believes that a remote of the origin confirmed decree %d", decree)
	}
	b, err := p.Baseline()
	if err != nil || b.Decree != infos[0].Decree || len(b.Sources) != 1 || b.Sources[0].Cluster != origin || b.Sources[0].Decree != infos[0].Decree {
		t.Errorf("baseline %+v, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(to, identityFile)); err != nil {
		t.Error(err)
	}
}
