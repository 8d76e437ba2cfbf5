package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	goredis "github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"replicanode/duplication"
	"replicanode/server/admin"
	"replicanode/tasks"
	"replicanode/threadpool"
)

func TestMain(m *testing.M) {
	// ants starts two goroutines of its default pool when it is loaded.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

const waitBound = 30 * time.Second

// launch runs a node on loopback with ports that it picks, and stops it at the end of the test.
func launch(t *testing.T, o Options) *Node {
	t.Helper()
	o.Listen, o.Admin = "127.0.0.1:0", "127.0.0.1:0"
	if o.Peer == "" {
		o.Peer = "127.0.0.1:0"
	}
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Start(t.Context()); err != nil {
		halt(t, n)
		t.Fatal(err)
	}
	t.Cleanup(func() { halt(t, n) })
	return n
}

func halt(t *testing.T, n *Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitBound)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func client(t *testing.T, n *Node) *goredis.Client {
	t.Helper()
	c := goredis.NewClient(&goredis.Options{Addr: n.Addresses().Listen, ReadTimeout: waitBound, WriteTimeout: waitBound})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func api(t *testing.T, n *Node) *admin.Client {
	t.Helper()
	c := admin.NewClient(n.Addresses().Admin, "")
	t.Cleanup(c.Close)
	return c
}

// eventually asks until ok says yes, with pauses that leave the processor to what is waited for.
func eventually(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	deadline := time.Now().Add(waitBound)
	pace := time.NewTicker(2 * time.Millisecond)
	defer pace.Stop()
	for ; ; <-pace.C {
		yes, state := ok()
		if yes {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s did not come true: %s", what, state)
		}
	}
}

func fill(t *testing.T, c *goredis.Client, from, to int) {
	t.Helper()
	pipe := c.Pipeline()
	for i := from; i < to; i++ {
		pipe.Set(t.Context(), fmt.Sprintf("key-%d", i), i, 0)
		pipe.HSet(t.Context(), fmt.Sprintf("hash-%d", i%10), fmt.Sprintf("field-%d", i), i)
	}
	if _, err := pipe.Exec(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func check(t *testing.T, c *goredis.Client, n int) {
	t.Helper()
	for i := range n {
		if got, err := c.Get(t.Context(), fmt.Sprintf("key-%d", i)).Int(); err != nil || got != i {
			t.Fatalf("key-%d: %d, %v", i, got, err)
		}
		if got, err := c.HGet(t.Context(), fmt.Sprintf("hash-%d", i%10), fmt.Sprintf("field-%d", i)).Int(); err != nil || got != i {
			t.Fatalf("hash-%d field-%d: %d, %v", i%10, i, got, err)
		}
	}
}

func TestNodeServesAndKeepsItsDataOverRestarts(t *testing.T) {
	dir := t.TempDir()
	n := launch(t, Options{DataDir: dir, Partitions: 2})
	fill(t, client(t, n), 0, 200)
	addresses, err := os.ReadFile(filepath.Join(dir, addressesFile))
	if err != nil || !strings.Contains(string(addresses), n.Addresses().Listen) {
		t.Fatalf("addresses file: %s, %v", addresses, err)
	}
	halt(t, n)
	if _, err := os.Stat(filepath.Join(dir, addressesFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the addresses of a stopped node remain: %v", err)
	}
	again := launch(t, Options{DataDir: dir})
	check(t, client(t, again), 200)
}

func TestNodeDuplicatesToAnother(t *testing.T) {
	backup := launch(t, Options{DataDir: t.TempDir(), Partitions: 2})
	primary := launch(t, Options{
		DataDir: t.TempDir(), Partitions: 2, DupTailBytes: -1,
		DuplicateTo: []duplication.Remote{{Name: "backup", Addresses: []string{backup.Addresses().Peer}}},
	})
	fill(t, client(t, primary), 0, 300)
	for range 50 {
		if err := client(t, primary).Incr(t.Context(), "counter").Err(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the backup has everything", func() (bool, string) {
		a, err := admin.Get[LagAnswer](t.Context(), api(t, primary), "/v1/duplications/backup/lag")
		return err == nil && a.Lag.Decrees == 0, fmt.Sprintf("%+v %v", a, err)
	})
	check(t, client(t, backup), 300)
	if got, err := client(t, backup).Get(t.Context(), "counter").Int(); err != nil || got != 50 {
		t.Fatalf("counter on the backup: %d, %v", got, err)
	}
	var refusal *admin.Error
	if _, err := admin.Get[LagAnswer](t.Context(), api(t, primary), "/v1/duplications/nobody/lag"); !errors.As(err, &refusal) || refusal.Status != http.StatusNotFound {
		t.Fatalf("lag of an unknown remote: %v", err)
	}
}

func TestCheckpointsRestoreIntoAServingNode(t *testing.T) {
	dir, to := t.TempDir(), filepath.Join(t.TempDir(), "restored")
	n := launch(t, Options{DataDir: dir, Partitions: 2})
	fill(t, client(t, n), 0, 200)
	jobs, err := admin.Post[JobsAnswer](t.Context(), api(t, n), "/v1/checkpoints", CheckpointRequest{All: true})
	if err != nil || len(jobs.Jobs) != 1 {
		t.Fatalf("create: %+v, %v", jobs, err)
	}
	for _, job := range jobs.Jobs {
		eventually(t, "the checkpoint is done", func() (bool, string) {
			s, err := admin.Get[JobStatus](t.Context(), api(t, n), fmt.Sprintf("/v1/jobs/%d", job.ID))
			if s.Error != "" {
				t.Fatal(s.Error)
			}
			return err == nil && s.Done, fmt.Sprintf("%+v %v", s, err)
		})
	}
	fill(t, client(t, n), 200, 300) // after the checkpoint: must not be restored
	store, err := foldersStore([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	infos, err := ListCheckpoints(t.Context(), store, nil)
	if err != nil || len(infos) != 2 {
		t.Fatalf("list: %+v, %v", infos, err)
	}
	if _, err := VerifyCheckpoints(t.Context(), store, infos); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreCheckpoints(t.Context(), RestoreOptions{Store: store, Sources: []string{dir}, To: to}); err != nil {
		t.Fatal(err)
	}
	var flag *FlagError
	if _, err := RestoreCheckpoints(t.Context(), RestoreOptions{Store: store, Sources: []string{dir}, To: to}); !errors.As(err, &flag) {
		t.Fatalf("restore over a folder that is in use: %v", err)
	}
	restored := launch(t, Options{DataDir: to})
	c := client(t, restored)
	check(t, c, 200)
	if n, err := c.Exists(t.Context(), "key-200", "key-299").Result(); err != nil || n != 0 {
		t.Fatalf("keys written after the checkpoint: %d, %v", n, err)
	}
	fill(t, c, 200, 220)
	halt(t, restored)
	check(t, client(t, launch(t, Options{DataDir: to})), 220)
}

func TestAPIRefusesWithReasons(t *testing.T) {
	n := launch(t, Options{DataDir: t.TempDir(), Partitions: 1})
	c := api(t, n)
	for _, tc := range []struct {
		path   string
		body   any
		status int
	}{
		{"/v1/checkpoints", CheckpointRequest{}, http.StatusBadRequest},
		{"/v1/checkpoints", CheckpointRequest{Partition: partitionNumber(9)}, http.StatusNotFound},
		{"/v1/tasks/nonsense", change("priority", "high"), http.StatusNotFound},
		{"/v1/tasks/checkpoint", change("priority", "urgent"), http.StatusBadRequest},
		{"/v1/tasks/checkpoint", change("colour", "red"), http.StatusBadRequest},
		{"/v1/tasks/checkpoint", TaskChange{}, http.StatusBadRequest},
		{"/v1/tasks/checkpoint", change("priority", "high", "max_running", "1", "timeout", "never"), http.StatusBadRequest},
		{"/v1/tasks/checkpoint", change("priority", "high", "max_running", "1", "timeout", "-1s"), http.StatusBadRequest},
		{"/v1/tasks/load_private_log/run", nil, http.StatusNotFound},
		{"/v1/pool", TaskChange{}, http.StatusBadRequest},
		{"/v1/pool", change("colour", "red"), http.StatusBadRequest},
		{"/v1/pool", change("workers", "9", "low_share", "0.9"), http.StatusBadRequest},
		{"/v1/pool", change("workers", "9", "low_limit", "9"), http.StatusBadRequest},
		{"/v1/pool", change("workers", "off"), http.StatusBadRequest},
		{"/v1/pool", change("workers", "9", "colour", "default"), http.StatusBadRequest},
		{"/v1/pool", change("*", "9"), http.StatusBadRequest},
		{"/v1/duplications/nobody/pause", nil, http.StatusNotFound},
		{"/v1/checkpoints/prune", PruneRequest{Keep: -1}, http.StatusBadRequest},
		{"/v1/checkpoints/prune", PruneRequest{KeepForSeconds: -1}, http.StatusBadRequest},
		{"/v1/checkpoints/prune", PruneRequest{Partition: partitionNumber(9)}, http.StatusNotFound},
	} {
		_, err := admin.Post[struct{}](t.Context(), c, tc.path, tc.body)
		var refusal *admin.Error
		if !errors.As(err, &refusal) || refusal.Status != tc.status {
			t.Errorf("%s %+v: got %v, want status %d", tc.path, tc.body, err, tc.status)
		}
	}
	if _, err := admin.Post[TasksAnswer](t.Context(), c, "/v1/tasks/nonsense", change("priority", "high")); err == nil || !strings.Contains(err.Error(), "load_private_log") {
		t.Errorf("the answer does not say which task codes there are: %v", err)
	}
	for _, spec := range n.tasks.Specs() {
		if spec.Code == tasks.Checkpoint && (spec.Priority != threadpool.Low || spec.MaxRunning == 1) {
			t.Errorf("a refused change took effect in part: %+v", spec)
		}
	}
	if _, err := admin.Post[TasksAnswer](t.Context(), c, "/v1/tasks/checkpoint", change("priority", "high")); err != nil {
		t.Error(err)
	}
	before := n.pool.Settings()
	if before.Workers == 9 {
		t.Error("a refused change of the pool took effect in part")
	}
	if s, err := admin.Post[threadpool.Settings](t.Context(), c, "/v1/pool", change("workers", "2", "io_rate", "1048576", "max_wait", "off")); err != nil ||
		s.Workers != 2 || s.MaxRunning[threadpool.Low] != 1 || s.IO.BytesPerSecond != 1<<20 || s.Guards.MaxWait != 0 || s.Guards.LowShare != before.Guards.LowShare {
		t.Errorf("pool: %+v, %v", s, err)
	}
	if s, err := admin.Post[threadpool.Settings](t.Context(), c, "/v1/pool", change("low_limit", "default", "max_wait", "default")); err != nil ||
		s.Workers != 2 || s.MaxRunning[threadpool.Low] != 1 || s.Guards != before.Guards || s.IO.BytesPerSecond != 1<<20 {
		t.Errorf("pool with some changes taken back: %+v, %v", s, err)
	}
	if s, err := admin.Post[threadpool.Settings](t.Context(), c, "/v1/pool", change("*", "default")); err != nil || s != before {
		t.Errorf("pool with all changes taken back: %+v, %v, was %+v", s, err, before)
	}
	explanation, err := admin.Get[ExplainAnswer](t.Context(), c, "/v1/tasks/explain")
	if err != nil || explanation.Pool.Workers == 0 {
		t.Errorf("explain: %+v, %v", explanation, err)
	}
	if _, err := admin.Get[GCAnswer](t.Context(), c, "/v1/gc"); err != nil {
		t.Error(err)
	}
}

func TestPortInUseWritesNothing(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := filepath.Join(t.TempDir(), "data")
	n, err := New(Options{DataDir: dir, Listen: "127.0.0.1:0", Admin: l.Addr().String(), Peer: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	err = n.Start(t.Context())
	halt(t, n)
	var flag *FlagError
	if !errors.As(err, &flag) || flag.Flag != "admin" {
		t.Fatalf("start: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the data folder was touched: %v", err)
	}
}

// A damaged partition does not serve and says why; the others go on.
func TestDamagedPartitionDoesNotStopTheOthers(t *testing.T) {
	dir := t.TempDir()
	n := launch(t, Options{DataDir: dir, Partitions: 2})
	fill(t, client(t, n), 0, 100)
	halt(t, n)
	logs, err := filepath.Glob(filepath.Join(dir, partitionsDir, "0001", "plog", "*"))
	if err != nil || len(logs) == 0 {
		t.Fatalf("log files: %v, %v", logs, err)
	}
	for _, name := range logs {
		if strings.Contains(strings.ToLower(filepath.Base(name)), "manifest") {
			if err := os.WriteFile(name, []byte("garbage"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	n = launch(t, Options{DataDir: dir})
	r, err := admin.Get[admin.Readiness](t.Context(), api(t, n), "/readyz")
	if err != nil || r.Ready || len(r.Reasons) != 1 || !strings.Contains(r.Reasons[0], "partition 1") {
		t.Fatalf("readyz: %+v, %v", r, err)
	}
	served, refused := 0, 0
	for i := range 100 {
		if err := client(t, n).Get(t.Context(), fmt.Sprintf("key-%d", i)).Err(); err != nil {
			refused++
		} else {
			served++
		}
	}
	if served == 0 || refused == 0 {
		t.Fatalf("%d keys served, %d refused; want some of both", served, refused)
	}
}

// change is a change of one or more fields, each followed by its value.
func change(fields ...string) TaskChange {
	var c TaskChange
	for i := 0; i < len(fields); i += 2 {
		c.Fields = append(c.Fields, FieldChange{Field: fields[i], Value: fields[i+1]})
	}
	return c
}

func partitionNumber(n uint32) *uint32 { return &n }
