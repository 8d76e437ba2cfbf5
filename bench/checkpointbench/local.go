package checkpointbench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/checkpoint"
)

// slowKeys is how many keys a partition has when it is the store's latency that is measured.
const slowKeys = 500

func slowStore(ctx context.Context, o *Options) (results []Result, err error) {
	o.Progress(fmt.Sprintf("slow store: %d partitions, %v for each call", o.Partitions, o.Latency))
	n, err := startNode(ctx, o, "slow", o.Partitions, slowKeys*o.Partitions)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	for _, run := range []struct {
		name     string
		parallel int
	}{{"slow_store_sequential", 1}, {"slow_store_parallel", o.Parallel}} {
		store := checkpoint.NewStoreAt(&slowBackend{checkpoint.NewFolder(vfs.NewMem(), "slow"), o.Latency})
		r, err := n.checkpointAll(ctx, store, run.parallel)
		if err != nil {
			return results, err
		}
		r.Name = run.name
		results = append(results, r)
	}
	results[1].Speedup = results[0].Seconds / results[1].Seconds
	return results, nil
}

// slowBackend takes its time for every call that an object store would answer over the net.
type slowBackend struct {
	checkpoint.Backend
	latency time.Duration
}

func (b *slowBackend) List(ctx context.Context, folder string) ([]string, error) {
	time.Sleep(b.latency)
	return b.Backend.List(ctx, folder)
}

func (b *slowBackend) Sizes(ctx context.Context, folder string) (map[string]int64, error) {
	time.Sleep(b.latency)
	return b.Backend.Sizes(ctx, folder)
}

func (b *slowBackend) Open(ctx context.Context, path string) (io.ReadCloser, error) {
	time.Sleep(b.latency)
	return b.Backend.Open(ctx, path)
}

func (b *slowBackend) Put(ctx context.Context, path string, data []byte) error {
	time.Sleep(b.latency)
	return b.Backend.Put(ctx, path, data)
}

func (b *slowBackend) Clean(ctx context.Context, home string, each checkpoint.Each) error {
	if err := each(0, func() error { time.Sleep(b.latency); return nil }); err != nil {
		return err
	}
	return b.Backend.Clean(ctx, home, each)
}

func (b *slowBackend) Begin(ctx context.Context, folder string) (checkpoint.Draft, error) {
	time.Sleep(b.latency)
	d, err := b.Backend.Begin(ctx, folder)
	return &slowDraft{d, b.latency}, err
}

type slowDraft struct {
	checkpoint.Draft
	latency time.Duration
}

func (d *slowDraft) Create(name string) (checkpoint.DraftFile, error) {
	f, err := d.Draft.Create(name)
	return &slowFile{f, d.latency}, err
}

func (d *slowDraft) Open(name string) (io.ReadCloser, error) {
	time.Sleep(d.latency)
	return d.Draft.Open(name)
}

func (d *slowDraft) Publish(manifest []byte) error {
	time.Sleep(d.latency)
	return d.Draft.Publish(manifest)
}

type slowFile struct {
	checkpoint.DraftFile
	latency time.Duration
}

func (f *slowFile) Finish() error {
	time.Sleep(f.latency)
	return f.DraftFile.Finish()
}

// local measures in rounds, so that whatever else the machine does hits all alike. Of each the best round counts.
func local(ctx context.Context, o *Options) (results []Result, err error) {
	o.Progress(fmt.Sprintf("local disk: %d partitions, %d keys of %d bytes", o.Partitions, o.Keys, o.ValueSize))
	n, err := startNode(ctx, o, "local", o.Partitions, o.Keys)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	best := make([]Result, 3)
	for round := range o.Rounds {
		for i, measure := range []func() (Result, error){
			func() (Result, error) { return n.folderCheckpoint(ctx, fmt.Sprint("sequential-", round), 1) },
			func() (Result, error) { return n.folderCheckpoint(ctx, fmt.Sprint("parallel-", round), o.Parallel) },
			func() (Result, error) { return n.backup(ctx) },
		} {
			r, err := measure()
			if err != nil {
				return nil, err
			}
			if best[i].Seconds == 0 || r.Seconds < best[i].Seconds {
				best[i] = r
			}
		}
	}
	best[0].Name, best[1].Name, best[2].Name = "local_sequential", "local_parallel", "badger_backup"
	best[1].Speedup = best[0].Seconds / best[1].Seconds
	// The same keys and values: times can be compared as they are.
	best[1].OfBackup = best[2].Seconds / best[1].Seconds
	best[2].RawBytes = best[1].RawBytes
	best[2].RawBytesPerSecond = float64(best[2].RawBytes) / best[2].Seconds
	return best, nil
}

func (n *node) folderCheckpoint(ctx context.Context, name string, parallel int) (Result, error) {
	dir := filepath.Join(n.o.Dir, name)
	r, err := n.checkpointAll(ctx, checkpoint.NewStore(nil, dir), parallel)
	return r, errors.Join(err, os.RemoveAll(dir))
}

// backup runs badger's own backup of every database into a file, one after another, each with as many goroutines as badger takes,
// and syncs it.
func (n *node) backup(ctx context.Context) (r Result, err error) {
	begun := time.Now()
	for _, s := range n.sources {
		if err := ctx.Err(); err != nil {
			return r, err
		}
		size, err := backupOne(s, filepath.Join(n.o.Dir, "backup"))
		if err != nil {
			return r, fmt.Errorf("back up database: %w", err)
		}
		r.Bytes += size
	}
	r.Seconds = time.Since(begun).Seconds()
	return r, os.Remove(filepath.Join(n.o.Dir, "backup"))
}

func backupOne(s *source, path string) (size int64, err error) {
	f, err := os.Create(path)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriterSize(f, 1<<20)
	if _, err := s.db.NewStreamAt(math.MaxUint64).Backup(w, 0); err != nil {
		return 0, err
	}
	if err := errors.Join(w.Flush(), f.Sync()); err != nil {
		return 0, err
	}
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// changedPart is one in how many keys changes before the incremental checkpoint.
const changedPart = 100

func incremental(ctx context.Context, o *Options) (results []Result, err error) {
	o.Progress(fmt.Sprintf("incremental: one in %d of %d keys changed", changedPart, o.IncrementalKeys))
	n, err := startNode(ctx, o, "incremental", o.NodePartitions, o.IncrementalKeys)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, n.stop()) }()
	// A service builds only on what it has made itself.
	store := checkpoint.NewStore(nil, filepath.Join(o.Dir, "chain"))
	service, err := n.service(ctx, store, o.Parallel, checkpoint.CreateOptions{Incremental: true, MaxAge: time.Hour})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(service.Stop(context.Background()), err) }()
	full, err := checkpointOnce(ctx, service, true)
	if err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for _, s := range n.sources {
		if err := s.write(rng, o.ValueSize, changedPart); err != nil {
			return nil, err
		}
	}
	more, err := checkpointOnce(ctx, service, false)
	if err != nil {
		return nil, err
	}
	full.Name, more.Name = "full", "incremental"
	more.OfFullBytes = float64(more.Bytes) / float64(full.Bytes)
	more.OfFullSeconds = more.Seconds / full.Seconds
	return []Result{full, more}, os.RemoveAll(filepath.Join(o.Dir, "chain"))
}
