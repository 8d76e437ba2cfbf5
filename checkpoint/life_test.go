package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"replicanode/replica"
)

// lives is a store with checkpoints of several lives of partition 0, each in a folder of its own.
type lives struct {
	store *Store
	keep  int
}

// live runs a service over the life in dir, whose clock is behind the machine's.
func (l *lives) live(t *testing.T, dir string, behind time.Duration, renew bool, f func(s *Service, p *replica.Partition, created chan *Manifest)) {
	t.Helper()
	n := startLiveWith(t, dir, 1, func(o *replica.Options) {
		o.Clock = func() time.Time { return time.Now().Add(-behind) }
	})
	defer n.stop(t)
	created := make(chan *Manifest, 10)
	s, err := NewService(ServiceOptions{Store: l.store, Sources: []Source{FromReplica(n.Partition(0))}, Runner: newRunner(t, 1), Renew: renew,
		Create: CreateOptions{Partitions: 1}, Retention: Retention{KeepLast: l.keep}, Created: func(m *Manifest) { created <- m }})
	must(t, err)
	must(t, s.Start(ctx))
	defer func() { must(t, s.Stop(ctx)) }()
	f(s, n.Partition(0), created)
}

func (l *lives) decrees(t *testing.T) (decrees []uint64) {
	t.Helper()
	infos, err := l.store.List(ctx, 0)
	must(t, err)
	for _, info := range infos {
		decrees = append(decrees, info.Decree)
	}
	return decrees
}

func write(t *testing.T, p *replica.Partition, n int, name string) {
	t.Helper()
	for i := range n {
		do(t, p, func(tx *replica.Tx) error { return tx.Put(fmt.Append(nil, "key-", i), []byte(name), 0) })
	}
}

func create(t *testing.T, s *Service) {
	t.Helper()
	job, err := s.CreateNow(0, false)
	must(t, err)
	<-job.Done()
	must(t, job.Err())
}

// TestEarlierLifeBroughtBack: a partition began anew, and then its earlier life was brought back, to which nothing is written. Until there
// is a new checkpoint nothing is removed; from then on it is the newest one, also when the clock went back meanwhile.
func TestEarlierLifeBroughtBack(t *testing.T) {
	for _, behind := range []time.Duration{0, time.Hour} {
		t.Run(behind.String(), func(t *testing.T) {
			l := &lives{NewStore(nil, t.TempDir()), 2}
			first, second := t.TempDir(), t.TempDir()
			var want map[string]string
			l.live(t, first, behind, false, func(s *Service, p *replica.Partition, _ chan *Manifest) {
				write(t, p, 20, "first")
				create(t, s)
				want = contents(t, p)
			})
			l.live(t, second, 0, false, func(s *Service, p *replica.Partition, _ chan *Manifest) {
				write(t, p, 3, "second")
				create(t, s)
			})
			before := l.decrees(t)
			l.keep = 1
			var made *Manifest
			l.live(t, first, behind, false, func(s *Service, p *replica.Partition, created chan *Manifest) {
				if err := prune(s, 1); !errors.Is(err, ErrOtherLife) || fmt.Sprint(l.decrees(t)) != fmt.Sprint(before) {
					t.Fatalf("%v; %v of %v are left", err, l.decrees(t), before)
				}
				create(t, s)
				made = <-created
				latest(t, l.store, made)
				must(t, prune(s, 1))
				latest(t, l.store, made)
			})
			for range 2 {
				l.live(t, first, behind, true, func(s *Service, p *replica.Partition, _ chan *Manifest) {
					must(t, prune(s, 1))
					create(t, s)
				})
			}
			newest, err := l.store.Latest(ctx, 0)
			must(t, err)
			back := startRestored(t, l.store, newest.Decree)
			defer back.stop(t)
			if got := contents(t, back.Partition(0)); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("restored %v, want %v", got, want)
			}
		})
	}
}

// TestRenewed: the checkpoint of a life that was brought back, and of one that has only begun, is made without being asked for; that of one
// which has the newest already is not.
func TestRenewed(t *testing.T) {
	l := &lives{NewStore(nil, t.TempDir()), 5}
	first, second := t.TempDir(), t.TempDir()
	l.live(t, first, 0, true, func(s *Service, p *replica.Partition, _ chan *Manifest) {
		write(t, p, 20, "first")
		create(t, s)
	})
	for _, dir := range []string{second, first, second} {
		var made *Manifest
		l.live(t, dir, 0, true, func(_ *Service, _ *replica.Partition, created chan *Manifest) {
			made = <-created
			latest(t, l.store, made)
		})
		before := l.decrees(t)
		l.live(t, dir, 0, true, func(s *Service, p *replica.Partition, _ chan *Manifest) {
			must(t, prune(s, 5))
			if len(l.decrees(t)) != len(before) {
				t.Errorf("%v became %v", before, l.decrees(t))
			}
			latest(t, l.store, made)
		})
	}
}

func latest(t *testing.T, store *Store, want *Manifest) {
	t.Helper()
	if m, err := store.Latest(ctx, 0); err != nil || m.CRC != want.CRC {
		t.Fatalf("%+v, %v; decree %d was expected", m, err, want.Decree)
	}
}

func prune(s *Service, keep int) error {
	run, err := s.Prune(nil, Retention{KeepLast: keep})
	if err != nil {
		return err
	}
	<-run.Done()
	return run.Err()
}

func startRestored(t *testing.T, store *Store, decree uint64) *liveNode {
	t.Helper()
	dir := t.TempDir()
	_, err := store.RestoreReplica(context.Background(), nil, 0, decree, dir, RestoreOptions{Partitions: 1})
	must(t, err)
	return startLive(t, dir, 1)
}
