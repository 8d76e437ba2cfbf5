package checkpoint

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
)

// TestStartsWithoutStore starts while the store is away: the node must serve. The first run after it is back cleans, and tells
// whose checkpoints lie there, before anything is written or removed.
func TestStartsWithoutStore(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 20, 100)
	mem := vfs.NewMem()
	_, err := NewStore(mem, "ckpt").Create(ctx, nil, src, CreateOptions{ClusterID: 7, Partitions: 2})
	must(t, err)
	must(t, mem.MkdirAll("ckpt/0001/tmp-left", 0o755))
	away := errors.New("no route to the store")
	var down atomic.Bool
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(errorfs.Op) error {
		if down.Load() {
			return away
		}
		return nil
	}))
	service := func(cluster uint64) *Service {
		down.Store(true)
		s, err := NewService(ServiceOptions{Store: NewStore(fs, "ckpt"), Sources: []Source{src}, Runner: newRunner(t, 1),
			Create: CreateOptions{ClusterID: cluster, Partitions: 2}, Retention: Retention{KeepLast: 1}})
		must(t, err)
		must(t, s.Start(ctx))
		t.Cleanup(func() { must(t, s.Stop(ctx)) })
		if st := s.Status()[0]; !strings.Contains(st.LastError, away.Error()) || st.Last != nil {
			t.Fatalf("status %+v", st)
		}
		job, err := s.CreateNow(1, true)
		must(t, err)
		<-job.Done()
		if !errors.Is(job.Err(), away) {
			t.Fatalf("the store is away: %v", job.Err())
		}
		down.Store(false)
		return s
	}

	other := service(8)
	for range 2 {
		job, err := other.CreateNow(1, true)
		must(t, err)
		<-job.Done()
		if !errors.Is(job.Err(), ErrOtherCluster) {
			t.Fatalf("another cluster's store: %v", job.Err())
		}
		run, err := other.Prune(nil, Retention{KeepLast: 1})
		must(t, err)
		<-run.Done()
		if !errors.Is(run.Err(), ErrOtherCluster) {
			t.Fatalf("another cluster's store: %v", run.Err())
		}
	}

	own := service(7)
	src.fill(t, 20, 100)
	job, err := own.CreateNow(1, true)
	must(t, err)
	<-job.Done()
	must(t, job.Err())
	names, err := mem.List("ckpt/0001")
	must(t, err)
	if len(names) != 1 || own.Status()[0].LastError != "" {
		t.Fatalf("left are %v, status %+v", names, own.Status()[0])
	}
}

// TestStartWaitsForStoreInVain bounds how long a store that never answers holds up Start.
func TestStartWaitsForStoreInVain(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	s, err := NewService(ServiceOptions{Store: NewStoreAt(&silent{}), Sources: []Source{src}, Runner: newRunner(t, 1)})
	must(t, err)
	begun := time.Now()
	must(t, s.Start(ctx))
	if took := time.Since(begun); took < lookFor || took > 4*lookFor {
		t.Fatalf("Start took %v", took)
	}
	must(t, s.Stop(ctx))
}

// silent is a store that answers nothing until its caller gives up.
type silent struct{ Backend }

func (*silent) Path(string) string { return "silent" }

func (*silent) List(ctx context.Context, _ string) ([]string, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (*silent) Clean(ctx context.Context, _ string, _ Each) error {
	<-ctx.Done()
	return ctx.Err()
}
