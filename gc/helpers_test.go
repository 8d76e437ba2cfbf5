package gc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"replicanode/tasks"
	"replicanode/threadpool"
)

func TestMain(m *testing.M) {
	// ants starts goroutines of its own when it is imported.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

type tb interface {
	Helper()
	Fatalf(format string, args ...any)
}

func must(t tb, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%v", err)
	}
}

var ctx = context.Background()

// turn is a Turn whose sleeps take the bubble's time.
type turn struct {
	yields  int
	slept   time.Duration
	onYield func() error
}

func (u *turn) Yield(int) error {
	u.yields++
	if u.onYield != nil {
		return u.onYield()
	}
	return nil
}

func (u *turn) Sleep(d time.Duration) error {
	u.slept += d
	<-time.After(d)
	return nil
}

func (u *turn) Await(ch <-chan struct{}) error { <-ch; return nil }

func (u *turn) AwaitEnd(ch <-chan struct{}) error { <-ch; return nil }

// noRunner is for tests that call run themselves.
type noRunner struct{}

func (noRunner) Every(tasks.Code, string, threadpool.Func) (*tasks.Periodic, error) {
	return nil, errors.New("no runner")
}

// newRunner is a long pool with the codes of this package, each with its default spec.
func newRunner(t *testing.T) *tasks.Runner {
	t.Helper()
	pool, err := threadpool.New(threadpool.Options{Workers: 2})
	must(t, err)
	runner, err := tasks.New(tasks.Options{Pool: pool})
	must(t, err)
	must(t, pool.Start(ctx))
	must(t, runner.Start(ctx))
	t.Cleanup(func() {
		must(t, runner.Stop(ctx))
		must(t, pool.Stop(ctx))
	})
	return runner
}

func writeFile(t tb, fs vfs.FS, path string, size int) {
	t.Helper()
	must(t, fs.MkdirAll(fs.PathDir(path), 0o755))
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	must(t, err)
	_, err = f.Write(make([]byte, size))
	must(t, err)
	must(t, f.Sync())
	must(t, f.Close())
}
