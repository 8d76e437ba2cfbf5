package replica

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"

	"replicanode/plog"
)

// TestMain keeps the property tests short: every check opens databases.
func TestMain(m *testing.M) {
	checks := "12"
	if os.Getenv("REPLICANODE_STRESS") == "1" {
		checks = "300"
	}
	for name, value := range map[string]string{"rapid.checks": checks, "rapid.nofailfile": "true"} {
		if err := flag.Set(name, value); err != nil {
			panic(err)
		}
	}
	if os.Getenv(crashDirEnv) == "" {
		if err := makeTestRoot(); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if testRoot != "" {
			_ = os.RemoveAll(testRoot)
		}
		os.Exit(code)
	}))
}

var contextBackground = context.Background()

// call is a command made of a function; it tells how it ended.
type call struct {
	run  func(tx *Tx)
	done chan error
}

func newCall(run func(tx *Tx)) *call { return &call{run: run, done: make(chan error, 1)} }

func (c *call) Execute(tx *Tx)   { c.run(tx) }
func (c *call) Finish(err error) { c.done <- err }

// do proposes and waits.
func do(t testing.TB, p *Partition, run func(tx *Tx)) {
	t.Helper()
	if err := try(p, run); err != nil {
		t.Fatal(err)
	}
}

func try(p *Partition, run func(tx *Tx)) error {
	c := newCall(run)
	if err := p.Propose(c); err != nil {
		return err
	}
	return <-c.done
}

func set(t testing.TB, p *Partition, key, value string) {
	t.Helper()
	do(t, p, func(tx *Tx) { must(t, tx.Put([]byte(key), []byte(value), 0)) })
}

// setAll sets many keys, all in flight at once.
func setAll(t testing.TB, p *Partition, n int, value string) {
	t.Helper()
	calls := make([]*call, n)
	for i := range calls {
		calls[i] = newCall(func(tx *Tx) { must(t, tx.Put([]byte(key(i)), []byte(value), 0)) })
		must(t, p.Propose(calls[i]))
	}
	for _, c := range calls {
		must(t, <-c.done)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

func get(t testing.TB, p *Partition, key string) (value string, ok bool) {
	t.Helper()
	err := p.View(t.Context(), func(v *View) error {
		got, found, err := v.Get([]byte(key))
		value, ok = string(got.Data), found
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return value, ok
}

// testNode is a host with its syncer.
type testNode struct {
	*Host
	syncer *plog.Syncer
}

// testRoot is the folder of all folders of a run.
var testRoot string

// makeTestRoot prefers a place in memory, where the system has one: the tests are about what the files hold, and would
// otherwise mostly wait for a busy disk to sync. Roots of runs that were killed are removed.
func makeTestRoot() error {
	const prefix = "replicanode-replica-test-"
	parent := "/dev/shm"
	if info, err := os.Stat(parent); err != nil || !info.IsDir() {
		parent = os.TempDir()
	}
	old, err := filepath.Glob(filepath.Join(parent, prefix+"*"))
	if err != nil {
		return err
	}
	for _, dir := range old {
		if info, err := os.Stat(dir); err == nil && time.Since(info.ModTime()) > time.Hour {
			_ = os.RemoveAll(dir)
		}
	}
	testRoot, err = os.MkdirTemp(parent, prefix)
	return err
}

// scope is a test, or one check of a property test.
type scope interface {
	Cleanup(func())
	Fatalf(format string, v ...any)
}

// testDir is a folder that lives as long as the scope.
func testDir(t scope) string {
	dir, err := os.MkdirTemp(testRoot, "")
	if err != nil {
		t.Fatalf("%v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatalf("%v", err)
		}
	})
	return dir
}

func testOptions(t testing.TB, dir string) Options {
	o := Options{Dir: dir, Partitions: 1, ClusterID: 7, MemTableBytes: minMemTableBytes,
		Log: plog.Options{SegmentBytes: 1 << 20}}
	if testing.Verbose() {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return o
}

func startNode(t testing.TB, o Options) *testNode {
	t.Helper()
	n, err := openNode(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return n
}

func openNode(o Options) (*testNode, error) {
	n := &testNode{syncer: plog.NewSyncer(plog.SyncerOptions{})}
	if err := n.syncer.Start(context.Background()); err != nil {
		return nil, err
	}
	o.Syncer = n.syncer
	var err error
	if n.Host, err = NewHost(o); err != nil {
		return nil, err
	}
	return n, n.Start(context.Background())
}

func (n *testNode) stop(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
	if err := n.syncer.Stop(ctx); err != nil {
		t.Errorf("stop syncer: %v", err)
	}
}

func key(i int) string { return fmt.Sprintf("key-%06d", i) }
