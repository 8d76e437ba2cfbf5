package checkpointbench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"

	"replicanode/checkpoint"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// source is one partition's database.
type source struct {
	id      uint32
	db      *badger.DB
	keys    int
	applied uint64
}

func (s *source) ID() uint32                          { return s.id }
func (s *source) PinApplied() (uint64, func(), error) { return s.applied, func() {}, nil }
func (s *source) Term(uint64) (uint64, error)         { return 1, nil }
func (s *source) Mark(uint64) (string, error)         { return "", nil }
func (s *source) DB() *badger.DB                      { return s.db }

// keysPerDecree is how many keys one decree writes.
const keysPerDecree = 64

// write sets every step-th key to a new value.
func (s *source) write(rng *rand.Rand, valueSize, step int) error {
	for k := 0; k < s.keys; {
		s.applied++
		wb := s.db.NewWriteBatchAt(s.applied)
		for range keysPerDecree {
			if k >= s.keys {
				break
			}
			if err := wb.SetEntryAt(badger.NewEntry([]byte(fmt.Sprintf("key:%04d:%09d", s.id, k)), value(rng, valueSize)), s.applied); err != nil {
				return fmt.Errorf("write key: %w", err)
			}
			k += step
		}
		if err := wb.Flush(); err != nil {
			return fmt.Errorf("write keys: %w", err)
		}
	}
	return nil
}

// value is text that does not compress to much less than three quarters.
func value(rng *rand.Rand, n int) []byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
	v := make([]byte, n)
	for i := range v {
		v[i] = letters[rng.IntN(len(letters))]
	}
	return v
}

// node is what a node has for checkpoints: sources, a long pool and tasks on it.
type node struct {
	o          *Options
	partitions int
	sources    []*source
	pool       *threadpool.Pool
	runner     *tasks.Runner
}

// startNode makes the databases in a folder below o.Dir, partitions of them with keys keys in all.
func startNode(ctx context.Context, o *Options, name string, partitions, keys int) (n *node, err error) {
	n = &node{o: o, partitions: partitions}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.stop())
		}
	}()
	rng := rand.New(rand.NewPCG(1, 2))
	for id := range partitions {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		db, err := badger.OpenManaged(badger.DefaultOptions(filepath.Join(o.Dir, name, fmt.Sprintf("%04d", id))).WithLogger(nil).WithSyncWrites(false).
			WithMetricsEnabled(false).WithDetectConflicts(false).WithCompression(options.None).WithBlockCacheSize(0).WithMemTableSize(16 << 20).
			WithNumCompactors(2).WithValueThreshold(1 << 20).WithValueLogFileSize(4 << 20))
		if err != nil {
			return n, fmt.Errorf("make database: %w", err)
		}
		s := &source{id: uint32(id), db: db, keys: max(1, keys/partitions)}
		n.sources = append(n.sources, s)
		if err := s.write(rng, o.ValueSize, 1); err != nil {
			return n, err
		}
	}
	if n.pool, err = threadpool.New(threadpool.Options{Workers: o.Workers}); err != nil {
		return n, fmt.Errorf("make the long pool: %w", err)
	}
	specs := tasks.DefaultSpecs()
	for i := range specs {
		if specs[i].Code == tasks.Checkpoint {
			specs[i].Period, specs[i].MaxStarted = 0, o.Parallel
		}
	}
	if n.runner, err = tasks.New(tasks.Options{Pool: n.pool, Specs: specs}); err != nil {
		return n, fmt.Errorf("make the task runner: %w", err)
	}
	if err := n.pool.Start(ctx); err != nil {
		return n, err
	}
	return n, n.runner.Start(ctx)
}

func (n *node) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if n.runner != nil {
		errs = append(errs, n.runner.Stop(ctx))
	}
	if n.pool != nil {
		errs = append(errs, n.pool.Stop(ctx))
	}
	for _, s := range n.sources {
		errs = append(errs, s.db.Close())
	}
	return errors.Join(errs...)
}

// service is a started checkpoint service that makes at most parallel checkpoints at once.
func (n *node) service(ctx context.Context, store *checkpoint.Store, parallel int, create checkpoint.CreateOptions) (*checkpoint.Service, error) {
	create.Partitions = uint32(n.partitions)
	o := checkpoint.ServiceOptions{
		Store: store, Runner: n.runner, Create: create, Retention: checkpoint.Retention{KeepLast: 2},
		Limit: checkpoint.LimitOptions{Max: parallel, Healthy: func() bool { return true }},
	}
	for _, s := range n.sources {
		o.Sources = append(o.Sources, s)
	}
	service, err := checkpoint.NewService(o)
	if err != nil {
		return nil, err
	}
	return service, service.Start(ctx)
}

// checkpointAll makes one full checkpoint of everything, by a service of its own.
func (n *node) checkpointAll(ctx context.Context, store *checkpoint.Store, parallel int) (r Result, err error) {
	service, err := n.service(ctx, store, parallel, checkpoint.CreateOptions{})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, service.Stop(context.Background())) }()
	return checkpointOnce(ctx, service, true)
}

// checkpointOnce makes one checkpoint of everything.
func checkpointOnce(ctx context.Context, service *checkpoint.Service, full bool) (r Result, err error) {
	begun := time.Now()
	run, err := service.CreateNode(full)
	if err != nil {
		return r, err
	}
	select {
	case <-run.Done():
	case <-ctx.Done():
		return r, ctx.Err()
	}
	r.Seconds = time.Since(begun).Seconds()
	for _, outcome := range run.Outcomes() {
		if outcome.Manifest != nil {
			r.RawBytes += outcome.Manifest.RawBytes
			r.Bytes += outcome.Manifest.Bytes
		}
	}
	r.RawBytesPerSecond = float64(r.RawBytes) / r.Seconds
	return r, run.Err()
}
