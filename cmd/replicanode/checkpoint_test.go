package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"replicanode/node"
)

// runNode starts a node on dir and returns how to stop it.
func runNode(t *testing.T, dir string, partitions uint32) (n *node.Node, stop func()) {
	t.Helper()
	n, err := node.New(node.Options{DataDir: dir, Partitions: partitions, Listen: "127.0.0.1:0", Admin: "127.0.0.1:0", Peer: "127.0.0.1:0", CheckpointPeriod: -1})
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			if err := n.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(stop)
	return n, stop
}

func put(t *testing.T, n *node.Node, from, to int) {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: n.Addresses().Listen})
	defer c.Close()
	for i := from; i < to; i++ {
		if err := c.Set(t.Context(), fmt.Sprint("key-", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
}

// succeeds runs a command that must succeed and say all of want.
func succeeds(t *testing.T, want []string, args ...string) string {
	t.Helper()
	code, stdout, stderr := command(t, args...)
	if code != 0 {
		t.Fatalf("%v: exit code %d: %s", args, code, stderr)
	}
	for _, w := range want {
		if !strings.Contains(stdout, w) {
			t.Fatalf("%v: no %q in\n%s", args, w, stdout)
		}
	}
	return stdout
}

// fails runs a command that must fail with one line that says all of want.
func fails(t *testing.T, want []string, args ...string) {
	t.Helper()
	code, _, stderr := command(t, args...)
	if code == 0 || strings.Count(stderr, "\n") != 1 {
		t.Fatalf("%v: exit code %d with %q", args, code, stderr)
	}
	for _, w := range want {
		if !strings.Contains(stderr, w) {
			t.Fatalf("%v: no %q in %q", args, w, stderr)
		}
	}
}

func TestCheckpointCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n, stop := runNode(t, dir, 3)
	put(t, n, 0, 300)
	succeeds(t, []string{"has no checkpoints"}, "checkpoint", "list", "--data-dir", dir)
	succeeds(t, []string{"has no checkpoints of the whole node"}, "checkpoint", "list", "--nodes", "--data-dir", dir)
	succeeds(t, []string{"nothing to remove"}, "checkpoint", "prune", "--data-dir", dir)
	for _, args := range [][]string{{"checkpoint", "list", "--nodes"}, {"checkpoint", "list"}, {"replica", "list"}} {
		if out := succeeds(t, nil, append(args, "--json", "--data-dir", dir)...); strings.TrimSpace(out) != "[]" {
			t.Errorf("%v: %q in JSON where there is nothing", args, out)
		}
	}
	fails(t, []string{"has no checkpoints"}, "checkpoint", "verify", "--data-dir", dir)
	fails(t, []string{"--data-dir nosuch", "NODE"}, "checkpoint", "verify", "--data-dir", "nosuch")
	succeeds(t, []string{"3 partitions, 3"}, "checkpoint", "create", "--all", "--data-dir", dir)
	put(t, n, 300, 310)
	succeeds(t, []string{"3 partitions"}, "checkpoint", "create", "--all", "--admin", n.Addresses().Admin)
	put(t, n, 310, 320)
	succeeds(t, []string{"PARTITION"}, "checkpoint", "list", "--admin", n.Addresses().Admin)
	succeeds(t, []string{"PARTITIONS"}, "checkpoint", "list", "--nodes", "--admin", n.Addresses().Admin)
	succeeds(t, []string{"ok"}, "checkpoint", "verify", "--admin", n.Addresses().Admin)
	stop()
	for _, sub := range []string{"list", "verify"} {
		fails(t, []string{n.Addresses().Admin, "--data-dir", "--checkpoint-store"}, "checkpoint", sub, "--admin", n.Addresses().Admin)
	}
	succeeds(t, []string{"3 partitions"}, "checkpoint", "create", "--all", "--data-dir", dir)
	succeeds(t, []string{"2"}, "checkpoint", "create", "--partition", "2", "--data-dir", dir)

	nodes := succeeds(t, nil, "checkpoint", "list", "--nodes", "--data-dir", dir)
	if got := strings.Count(nodes, "\n"); got != 3 {
		t.Fatalf("listed:\n%s", nodes)
	}
	succeeds(t, []string{"ok"}, "checkpoint", "verify", "--data-dir", dir)
	for _, sub := range []string{"list", "verify"} {
		fails(t, []string{"partition 99", "0 to 2"}, "checkpoint", sub, "--partition", "99", "--data-dir", dir)
	}
	fails(t, []string{"partition 99"}, "checkpoint", "prune", "--partition", "99", "--data-dir", dir)
	fails(t, []string{"partition 99"}, "checkpoint", "prune", "--partition", "99", "--dry-run", "--data-dir", dir)
	fails(t, []string{"partition 99", "0 to 2"}, "checkpoint", "create", "--partition", "99", "--data-dir", dir)
	fails(t, []string{"partition 99", "0 to 2"}, "replica", "drop", "--partition", "99", "--data-dir", dir)
	if code, stdout, _ := command(t, "checkpoint", "prune", "--data-dir", dir, "--data-dir", "nosuch"); code == 0 || stdout != "" {
		t.Errorf("prune of what cannot be opened: exit code %d, %q", code, stdout)
	}
	fails(t, []string{"--keep 0"}, "checkpoint", "prune", "--keep", "0", "--data-dir", dir)

	would := succeeds(t, []string{"node"}, "checkpoint", "prune", "--keep", "1", "--dry-run", "--data-dir", dir)
	if did := succeeds(t, nil, "checkpoint", "prune", "--keep", "1", "--data-dir", dir); did != would {
		t.Fatalf("removed\n%s, announced\n%s", did, would)
	}
	restoreCommands(t, dir)
}

// TestCheckpointsOfABroughtBackReplica: what is restored after an undelete is the life that is back, and an older checkpoint when it is asked for.
func TestCheckpointsOfABroughtBackReplica(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	n, stop := runNode(t, dir, 1)
	put(t, n, 0, 30)
	stop()
	createAll := func() string {
		succeeds(t, nil, "checkpoint", "create", "--partition", "0", "--data-dir", dir)
		lines := strings.Split(strings.TrimSpace(succeeds(t, nil, "checkpoint", "list", "--data-dir", dir)), "\n")
		return strings.Fields(lines[len(lines)-1])[1] // the newest
	}
	restored := func(args ...string) int64 {
		to := filepath.Join(t.TempDir(), "restored")
		succeeds(t, nil, append([]string{"checkpoint", "restore", "--data-dir", dir, "--to", to, "--partition", "0"}, args...)...)
		n, stop := runNode(t, to, 0)
		defer stop()
		c := redis.NewClient(&redis.Options{Addr: n.Addresses().Listen})
		defer c.Close()
		keys, err := c.DBSize(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		return keys
	}
	createAll()
	out := succeeds(t, nil, "replica", "drop", "--partition", "0", "--data-dir", dir)
	name := strings.TrimSuffix(strings.Fields(out)[2], ";")
	n, stop = runNode(t, dir, 0)
	put(t, n, 0, 3)
	stop()
	other := createAll()
	if got := restored(); got != 3 {
		t.Errorf("%d keys of the second life", got)
	}
	succeeds(t, nil, "replica", "drop", "--partition", "0", "--data-dir", dir)
	succeeds(t, []string{"back in its place", "checkpoint create"}, "gc", "undelete", name, "--data-dir", dir)
	if back := createAll(); back == other {
		t.Errorf("decree %s is the newest after %s", back, other)
	}
	if got := restored(); got != 30 {
		t.Errorf("%d keys of the first life, which is back", got)
	}
	if got := restored("--decree", other); got != 3 {
		t.Errorf("%d keys at decree %s", got, other)
	}
	fails(t, []string{"decree 12345", "checkpoint list"}, "checkpoint", "restore", "--data-dir", dir, "--to", t.TempDir(), "--partition", "0", "--decree", "12345")
	fails(t, []string{"--decree", "--partition"}, "checkpoint", "restore", "--data-dir", dir, "--to", t.TempDir(), "--decree", "3")
}

func restoreCommands(t *testing.T, dir string) {
	to := filepath.Join(t.TempDir(), "restored")
	fails(t, []string{"--to", "outside"}, "checkpoint", "restore", "--data-dir", dir, "--to", filepath.Join(dir, "inside"))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	fails(t, []string{"--to", "outside"}, "checkpoint", "restore", "--data-dir", dir, "--to", filepath.Join(link, "checkpoints", "x"))
	succeeds(t, []string{"3 partitions restored"}, "checkpoint", "restore", "--data-dir", dir, "--to", to)
	fails(t, []string{"not empty"}, "checkpoint", "restore", "--data-dir", dir, "--to", to)
	n, stop := runNode(t, to, 0)
	c := redis.NewClient(&redis.Options{Addr: n.Addresses().Listen})
	if got, err := c.DBSize(t.Context()).Result(); err != nil || got != 320 {
		t.Fatalf("%d keys restored, %v", got, err)
	}
	c.Close()
	stop()

	succeeds(t, []string{"ok"}, "checkpoint", "verify", "--data-dir", dir)
	manifests, err := filepath.Glob(filepath.Join(dir, "checkpoints", "nodes", "*.json"))
	if err != nil || len(manifests) == 0 {
		t.Fatalf("manifests of the node's checkpoints: %v, %v", manifests, err)
	}
	mend := flipBit(t, manifests[len(manifests)-1])
	fails(t, []string{"of the node", filepath.Base(manifests[len(manifests)-1]), "damaged"}, "checkpoint", "verify", "--data-dir", dir)
	succeeds(t, []string{"ok"}, "checkpoint", "verify", "--data-dir", dir, "--partition", "1")
	mend()

	chunks, err := filepath.Glob(filepath.Join(dir, "checkpoints", "0001", "*", "000001.chunk"))
	if err != nil || len(chunks) != 1 {
		t.Fatalf("chunks %v, %v", chunks, err)
	}
	b, err := os.ReadFile(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(chunks[0], b, 0o644); err != nil {
		t.Fatal(err)
	}
	fails(t, []string{"partition 1", "000001.chunk"}, "checkpoint", "verify", "--data-dir", dir)
	again := filepath.Join(t.TempDir(), "again")
	fails(t, []string{"partition 1", "000001.chunk"}, "checkpoint", "restore", "--data-dir", dir, "--to", again)
	if _, err := os.Stat(again); !os.IsNotExist(err) {
		t.Fatalf("a failed restore left something: %v", err)
	}
	if err := os.Mkdir(again, 0o755); err != nil { // as an interrupted one would
		t.Fatal(err)
	}
	for _, name := range []string{"RESTORING", "partitions"} {
		if err := os.WriteFile(filepath.Join(again, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fails(t, []string{"partition 1", "000001.chunk"}, "checkpoint", "restore", "--data-dir", dir, "--to", again, "--node", "latest")
	if left, err := os.ReadDir(again); err != nil || len(left) != 0 {
		t.Fatalf("a failed restore left %v, %v", left, err)
	}
	if err := os.Remove(chunks[0]); err != nil {
		t.Fatal(err)
	}
	fails(t, []string{"usable checkpoint of partition 1", "--partial"}, "checkpoint", "restore", "--data-dir", dir, "--to", again)
	fails(t, []string{"not complete", "partition 1"}, "checkpoint", "restore", "--data-dir", dir, "--to", again, "--node", "latest")
	succeeds(t, []string{"2 partitions restored"}, "checkpoint", "restore", "--data-dir", dir, "--to", again, "--partial")
}

func TestGCCommands(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	_, stop := runNode(t, dir, 2)
	succeeds(t, []string{"no dropped replicas"}, "gc", "list", "--data-dir", dir)
	stop()
	succeeds(t, []string{"no dropped replicas"}, "gc", "list", "--data-dir", dir)
	for _, sub := range []string{"explain", "disks"} {
		fails(t, []string{"no node runs on", dir}, "gc", sub, "--data-dir", dir)
	}
	out := succeeds(t, []string{"gc undelete 0001-"}, "replica", "drop", "--partition", "1", "--data-dir", dir)
	name := strings.TrimSuffix(strings.Fields(out)[2], ";")
	succeeds(t, []string{name, "restorable"}, "gc", "list", "--data-dir", dir)
	fails(t, []string{"gc list"}, "gc", "undelete", "0001-5", "--data-dir", dir)
	_, stop = runNode(t, dir, 0)
	succeeds(t, []string{name, "REMOVED-AFTER"}, "gc", "list", "--data-dir", dir)
	fails(t, []string{"in use"}, "gc", "undelete", name, "--data-dir", dir)
	succeeds(t, []string{dir, "ok"}, "gc", "disks", "--data-dir", dir)
	for !strings.Contains(succeeds(t, nil, "gc", "explain", "--data-dir", dir), "durable") {
		runtime.Gosched() // until the first run has looked
	}
	stop()
	fails(t, []string{"replica drop"}, "gc", "undelete", name, "--data-dir", dir)
	succeeds(t, nil, "replica", "drop", "--partition", "1", "--failed", "--data-dir", dir)
	succeeds(t, nil, "gc", "undelete", name, "--data-dir", dir)
	succeeds(t, []string{"failed"}, "gc", "list", "--data-dir", dir)
}

// TestDroppedInSeveralFolders: any one data folder of a stopped node is enough to list what is in all of them, and one that can't be read is named.
func TestDroppedInSeveralFolders(t *testing.T) {
	base := t.TempDir()
	dirs := []string{filepath.Join(base, "a"), filepath.Join(base, "b"), filepath.Join(base, "c")}
	f, err := node.OpenFolders(dirs, node.Identity{Partitions: 6})
	if err != nil {
		t.Fatal(err)
	}
	var flags []string
	for i, dir := range dirs {
		flags = append(flags, "--data-dir", dir)
		// The folders exist, as those of partitions that have served do.
		if err := os.MkdirAll(filepath.Join(dir, "partitions", fmt.Sprintf("%04d", i), "plog"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	out := succeeds(t, nil, append([]string{"replica", "drop", "--partition", "1"}, flags...)...)
	name := strings.TrimSuffix(strings.Fields(out)[2], ";")
	for _, list := range []string{"gc", "replica"} {
		for _, dir := range dirs {
			succeeds(t, []string{name, dirs[1]}, list, "list", "--data-dir", dir)
		}
	}
	if out := succeeds(t, nil, append([]string{"gc", "list"}, flags...)...); strings.Count(out, name) != 1 {
		t.Errorf("listed more than once:\n%s", out)
	}
	if err := os.Rename(dirs[1], dirs[1]+"-away"); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := command(t, "gc", "list", "--data-dir", dirs[2])
	if code != 0 || !strings.Contains(stdout, "no dropped replicas") || !strings.Contains(stderr, dirs[1]) {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	succeeds(t, []string{name}, "gc", "list", "--data-dir", dirs[2], "--data-dir", dirs[1]+"-away")
}

// flipBit damages a file, until mend is called.
func flipBit(t *testing.T, path string) (mend func()) {
	t.Helper()
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	damaged := bytes.Clone(b)
	damaged[len(b)/2] ^= 4
	write(damaged)
	return func() { write(b) }
}
