package checkpoint

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// newRunner is a long pool with the default specs, but quick retries and no period.
func newRunner(t *testing.T, attempts int) *tasks.Runner {
	t.Helper()
	pool, err := threadpool.New(threadpool.Options{Workers: 2})
	must(t, err)
	again := tasks.Backoff{Initial: time.Millisecond, MaxAttempts: attempts}
	runner, err := tasks.New(tasks.Options{Pool: pool, Specs: []tasks.Spec{{
		Code: tasks.Checkpoint, Help: "copy", Priority: threadpool.Low, MaxStarted: 4,
		Retry: tasks.RetryPolicy{Busy: again, Timeout: again, Conflict: again, Other: again},
	}}})
	must(t, err)
	must(t, pool.Start(ctx))
	must(t, runner.Start(ctx))
	t.Cleanup(func() {
		must(t, runner.Stop(ctx))
		must(t, pool.Stop(ctx))
	})
	return runner
}

func TestService(t *testing.T) {
	var sources []Source
	var parts []*source
	for id := range uint32(5) {
		src := newSource(t, id)
		defer src.db.Close()
		src.fill(t, 50, 100)
		sources, parts = append(sources, src), append(parts, src)
	}
	fs := vfs.NewMem()
	reg := prometheus.NewRegistry()
	created := make(chan *Manifest, 100)
	s, err := NewService(ServiceOptions{Store: NewStore(fs, "ckpt"), Sources: sources, Runner: newRunner(t, 1),
		Retention: Retention{KeepLast: 2}, Created: func(m *Manifest) { created <- m }, Registerer: reg})
	must(t, err)
	if _, err := s.CreateNow(1, false); !errors.Is(err, ErrStopped) {
		t.Fatalf("before Start: %v", err)
	}
	must(t, s.Start(ctx))
	if _, err := s.CreateNow(99, false); !errors.Is(err, ErrUnknownPartition) {
		t.Fatalf("unknown partition: %v", err)
	}
	for range 4 {
		run, err := s.CreateNode(true)
		must(t, err)
		<-run.Settled()
		must(t, run.Err())
		for i, o := range run.Outcomes() {
			if o.Manifest.Decree != parts[i].applied {
				t.Fatalf("outcome %+v", o)
			}
			parts[i].fill(t, 10, 100)
		}
	}
	s.Trigger(2)
	for m := range created {
		if m.Partition == 2 && m.Decree == parts[2].applied {
			break
		}
	}
	must(t, s.Stop(ctx))
	must(t, s.Stop(ctx))
	for id := range uint32(5) {
		infos, err := s.Store().List(ctx, id)
		must(t, err)
		// Stopping may cut the pruning after the triggered run short.
		if len(infos) != 2 && (id != 2 || len(infos) > 3) {
			t.Fatalf("partition %d has %d checkpoints", id, len(infos))
		}
	}
	b, err := json.Marshal(s.Status())
	must(t, err)
	if st := s.Status()[2]; st.Last == nil || st.Last.Decree != parts[2].applied || st.Running != nil || st.Queued != 0 {
		t.Fatalf("status %s", b)
	}
	families, err := reg.Gather()
	must(t, err)
	if len(families) != 17 {
		t.Fatalf("%d metric families", len(families))
	}
}

// TestOneFailureDoesNotStopOthers makes one partition's writes fail.
func TestOneFailureDoesNotStopOthers(t *testing.T) {
	var sources []Source
	for id := range uint32(3) {
		src := newSource(t, id)
		defer src.db.Close()
		src.fill(t, 20, 100)
		sources = append(sources, src)
	}
	broken := errors.New("bad sector")
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite && len(op.Path) > 9 && op.Path[:9] == "ckpt/0001" {
			return broken
		}
		return nil
	}))
	s, err := NewService(ServiceOptions{Store: NewStore(fs, "ckpt"), Sources: sources, Runner: newRunner(t, 1)})
	must(t, err)
	must(t, s.Start(ctx))
	defer s.Stop(ctx)
	run, err := s.CreateNode(false)
	must(t, err)
	<-run.Done()
	err = run.Err()
	outcomes := run.Outcomes()
	if !errors.Is(err, broken) || outcomes[0].Err != nil || !errors.Is(outcomes[1].Err, broken) || outcomes[2].Err != nil {
		t.Fatalf("%v: %+v", err, outcomes)
	}
	var failed *PartitionError
	if !errors.As(err, &failed) || failed.Partition != 1 || run.Manifest() != nil {
		t.Fatalf("the error does not name the partition: %v", err)
	}
	if nodes, err := s.Store().Nodes(ctx); err != nil || len(nodes) != 0 {
		t.Fatalf("a node's checkpoint without partition 1: %+v, %v", nodes, err)
	}
	if st := s.NodeStatus(); st.Failures != 1 || st.LastError == "" || st.Last != nil || st.Running != nil {
		t.Fatalf("status of the node %+v", st)
	}
	if st := s.Status()[1]; st.Failures == 0 || st.LastError == "" || st.Last != nil {
		t.Fatalf("status %+v", st)
	}
}

// TestStopCancelsRunning stops while a copy is held up.
func TestStopCancelsRunning(t *testing.T) {
	src := newSource(t, 1)
	defer src.db.Close()
	src.fill(t, 20, 100)
	reached, release := make(chan struct{}), make(chan struct{})
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWrite {
			select {
			case <-reached:
			default:
				close(reached)
			}
			<-release
		}
		return nil
	}))
	s, err := NewService(ServiceOptions{Store: NewStore(fs, "ckpt"), Sources: []Source{src}, Runner: newRunner(t, 1)})
	must(t, err)
	must(t, s.Start(ctx))
	job, err := s.CreateNow(1, false)
	must(t, err)
	<-reached
	if st := s.Status()[0]; st.Running == nil || st.Running.Decree != src.applied {
		t.Fatalf("status %+v", st)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if err := s.Stop(gone); err == nil {
		t.Fatal("Stop did not wait for the running copy")
	}
	close(release)
	<-job.Done()
	if job.Err() == nil {
		t.Fatal("the cancelled job succeeded")
	}
	s.pending.Wait()
	if infos, _ := s.Store().List(ctx, 1); len(infos) != 0 {
		t.Fatalf("listed after cancellation: %+v", infos)
	}
}
