package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/internal/dirsync"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// ReplicasOptions are the options of Replicas.
type ReplicasOptions struct {
	// Name tells it from others of its kind, which run on their own; default "dropped".
	Name string
	// Dropped is where the folders are. Required.
	Dropped *Dropped
	// Runner runs code gc_replicas. Required.
	Runner Runner
	// Grace is how long a folder stays before it is deleted; default 24 h.
	Grace time.Duration
	// FailedGrace is the same for folders of failed replicas, which somebody may
	// want to look at; default 7 × Grace.
	FailedGrace time.Duration
	// CriticalGrace replaces both while the disk is critically full; default 1 h.
	CriticalGrace time.Duration
	// Pacer says how fast bytes go.
	Pacer PacerOptions
	// Space, if set, gives the disk's level and how many bytes are missing to the
	// low watermark (0 when none). It must not block.
	Space func() (level Level, shortage int64)
	// Truncate shrinks a file; default os.Truncate on the real file system, and
	// none on others: files are then removed at once.
	Truncate func(path string, size int64) error
	// Logger gets one line per event; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills in the defaults.
func (o *ReplicasOptions) EnsureDefaults() {
	o.Name = cmp.Or(o.Name, "dropped")
	o.Grace = cmp.Or(o.Grace, 24*time.Hour)
	o.FailedGrace = cmp.Or(o.FailedGrace, 7*o.Grace)
	o.CriticalGrace = cmp.Or(o.CriticalGrace, time.Hour)
	o.Pacer.EnsureDefaults()
	if o.Space == nil {
		o.Space = func() (Level, int64) { return LevelOK, 0 }
	}
	if o.Truncate == nil && o.Dropped != nil && o.Dropped.fs == vfs.Default {
		o.Truncate = os.Truncate
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate says what is wrong with the options.
func (o *ReplicasOptions) Validate() error {
	if o.Dropped == nil || o.Runner == nil {
		return errors.New("replica gc options: Dropped and Runner are required")
	}
	if o.Grace < 0 || o.FailedGrace < 0 || o.CriticalGrace < 0 {
		return errors.New("replica gc options: a grace time is negative")
	}
	return o.Pacer.Validate()
}

// ReplicasStatus says what waits for deletion and how the deletion goes.
type ReplicasStatus struct {
	Folders []FolderStatus `json:"folders"`
	// BacklogBytes is what the running deletion still has to free.
	BacklogBytes int64 `json:"backlog_bytes"`
	// BytesPerSecond is the present rate; 0 while nothing is deleted.
	BytesPerSecond float64 `json:"bytes_per_second"`
	DeletedBytes   int64   `json:"deleted_bytes"` // since the start
	LastError      string  `json:"last_error,omitempty"`
	// Unlisted names the places that are not in Folders, and why: they cannot be read, or their disk does not answer.
	Unlisted []string `json:"unlisted,omitempty"`
}

// FolderStatus is a dropped folder and when it goes.
type FolderStatus struct {
	Folder
	// Due is when its deletion may begin.
	Due time.Time `json:"due"`
	// In is the folder that holds it.
	In string `json:"in"`
}

// Replicas deletes dropped folders.
type Replicas struct {
	o       ReplicasOptions
	every   schedule
	deleted prometheus.Counter
	folders prometheus.Counter
	// listing holds a token while Status looks at the folders: a disk that hangs keeps one goroutine.
	listing chan struct{}

	// mu guards what follows; nothing is called with it held.
	mu     sync.Mutex
	status ReplicasStatus
}

// NewReplicas checks the options.
func NewReplicas(o ReplicasOptions) (*Replicas, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	r := &Replicas{o: o, listing: make(chan struct{}, 1),
		deleted: counter("replica_deleted_bytes_total", "Bytes of dropped replicas' folders freed."),
		folders: counter("replica_deleted_folders_total", "Dropped replicas' folders removed."),
	}
	if o.Registerer != nil {
		backlog := prometheus.NewDesc("replicanode_gc_replica_backlog_bytes", "Bytes that the running deletion still has to free.", nil, nil)
		o.Registerer.MustRegister(r.deleted, r.folders, collectorFunc{[]*prometheus.Desc{backlog}, func(ch chan<- prometheus.Metric) {
			r.mu.Lock()
			defer r.mu.Unlock()
			ch <- prometheus.MustNewConstMetric(backlog, prometheus.GaugeValue, float64(r.status.BacklogBytes))
		}})
	}
	return r, nil
}

// Start begins the periodic runs.
func (r *Replicas) Start(context.Context) error {
	return r.every.start(r.o.Runner, tasks.GCReplicas, r.o.Name, func(ctx context.Context, turn *threadpool.Turn) error {
		return onOwn(turn, r.run)
	})
}

// Stop ends the runs and waits for the present one, and for a look at the folders that Status has given up, at most until ctx ends.
func (r *Replicas) Stop(ctx context.Context) error {
	if err := r.every.halt(ctx); err != nil {
		return err
	}
	select {
	case r.listing <- struct{}{}:
		<-r.listing
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", tasks.GCReplicas, ctx.Err())
	}
}

// Trigger asks for a run soon, for example because space runs low.
func (r *Replicas) Trigger() { r.every.trigger() }

// due is when the folder's deletion may begin.
func (r *Replicas) due(f Folder, level Level) time.Time {
	grace := r.o.Grace
	if f.Kind == KindFailed {
		grace = r.o.FailedGrace
	}
	if level == LevelCritical {
		grace = min(grace, r.o.CriticalGrace)
	}
	return f.Dropped.Add(grace)
}

// listPatience is how long Status waits for a disk.
const listPatience = 2 * time.Second

// list is Dropped.List, but that it waits no longer than listPatience.
func (r *Replicas) list() ([]Folder, error) {
	timer := time.NewTimer(listPatience)
	defer timer.Stop()
	select {
	case r.listing <- struct{}{}:
	case <-timer.C:
		return nil, ErrNoAnswer
	}
	var folders []Folder
	var err error
	done := make(chan struct{})
	go func() {
		defer func() { <-r.listing }()
		defer close(done)
		folders, err = r.o.Dropped.List()
	}()
	select {
	case <-done:
		return folders, err
	case <-timer.C:
		return nil, ErrNoAnswer
	}
}

// Status lists the folders with the time at which they go. It returns within two seconds, without them when their disk does not answer.
func (r *Replicas) Status() ReplicasStatus {
	level, _ := r.o.Space()
	folders, err := r.list()
	r.mu.Lock()
	st := r.status
	r.mu.Unlock()
	if err != nil {
		st.Unlisted = []string{fmt.Sprintf("%s: %v", r.o.Dropped.root, err)}
	}
	st.Folders = make([]FolderStatus, len(folders))
	for i, f := range folders {
		st.Folders[i] = FolderStatus{f, r.due(f, level), r.o.Dropped.root}
	}
	return st
}

// run deletes what is due.
func (r *Replicas) run(turn Turn) (err error) {
	defer func() {
		r.mu.Lock()
		r.status.BacklogBytes, r.status.BytesPerSecond, r.status.LastError = 0, 0, ""
		if err != nil {
			r.status.LastError = err.Error()
		}
		r.mu.Unlock()
	}()
	var folders []Folder
	if err := awaitCall(turn, func() (err error) {
		folders, err = r.o.Dropped.List()
		return err
	}); err != nil {
		return err
	}
	level, _ := r.o.Space()
	d := &deletion{r: r, turn: turn, fs: r.o.Dropped.fs}
	for _, f := range folders {
		name := f.Name
		if !f.Deleting {
			if r.o.Dropped.now().Before(r.due(f, level)) {
				continue
			}
			err = awaitCall(turn, func() (err error) {
				name, err = r.o.Dropped.condemn(f.Name)
				return err
			})
			if errors.Is(err, fs.ErrNotExist) {
				continue // brought back meanwhile
			}
			if err != nil {
				return err
			}
			r.o.Logger.Info("deleting dropped replica", "folder", f.Name, "partition", f.Partition, "dropped", f.Dropped)
		}
		if err := d.survey(r.o.Dropped.path(name)); err != nil {
			return err
		}
		d.roots = append(d.roots, r.o.Dropped.path(name))
	}
	return d.deleteAll()
}

// deletion is one paced run over all folders that are due.
type deletion struct {
	r       *Replicas
	turn    Turn
	fs      vfs.FS
	roots   []string
	backlog int64
}

// survey adds what path takes on the disk to the backlog.
func (d *deletion) survey(path string) error {
	return walk(d.fs, path, func(_ string, st vfs.FileInfo) error {
		d.backlog += allocated(st)
		return d.turn.Yield(0)
	})
}

func (d *deletion) deleteAll() error {
	for _, root := range d.roots {
		if err := d.deleteTree(root); err != nil {
			return fmt.Errorf("delete %s: %w", root, err)
		}
		if err := d.await(func() error { return dirsync.Sync(d.fs, d.r.o.Dropped.root) }); err != nil {
			return err
		}
		d.r.folders.Inc()
	}
	return nil
}

func (d *deletion) deleteTree(path string) error {
	st, err := d.fs.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !st.IsDir() {
		return d.deleteFile(path, st)
	}
	names, err := d.fs.List(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := d.deleteTree(d.fs.PathJoin(path, name)); err != nil {
			return err
		}
	}
	return d.await(func() error { return d.fs.Remove(path) })
}

// await makes a call that a disk may hold up, without holding the slot.
func (d *deletion) await(f func() error) error { return awaitCall(d.turn, f) }

// deleteFile shrinks a file step by step, and removes it.
func (d *deletion) deleteFile(path string, st vfs.FileInfo) error {
	step := d.r.o.Pacer.StepBytes
	size, used := st.Size(), allocated(st)
	for d.r.o.Truncate != nil && size > step && used > step {
		size = max(0, size-step)
		if err := d.await(func() error { return d.r.o.Truncate(path, size) }); err != nil {
			return err
		}
		st, err := d.fs.Stat(path)
		if err != nil {
			return err
		}
		// A sparse file may give back nothing in a step.
		if freed := used - allocated(st); freed > 0 {
			used = allocated(st)
			if err := d.freed(freed); err != nil {
				return err
			}
		}
	}
	if err := d.await(func() error { return d.fs.Remove(path) }); err != nil {
		return err
	}
	return d.freed(used)
}

// freed books n deleted bytes and waits as long as the pace demands.
func (d *deletion) freed(n int64) error {
	d.backlog = max(0, d.backlog-n)
	_, shortage := d.r.o.Space()
	pacer := &d.r.o.Pacer
	d.r.mu.Lock()
	d.r.status.DeletedBytes += n
	d.r.status.BacklogBytes = d.backlog
	d.r.status.BytesPerSecond = pacer.Rate(d.backlog, shortage)
	d.r.mu.Unlock()
	d.r.deleted.Add(float64(n))
	if err := d.turn.Yield(0); err != nil {
		return err
	}
	return d.turn.Sleep(pacer.Pause(n, d.backlog, shortage))
}

// walk calls f for every file below path, which need not exist.
func walk(fsys vfs.FS, path string, f func(path string, st vfs.FileInfo) error) error {
	st, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed meanwhile
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", path, err)
	}
	if !st.IsDir() {
		return f(path, st)
	}
	names, err := fsys.List(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("list %s: %w", path, err)
	}
	for _, name := range names {
		if err := walk(fsys, fsys.PathJoin(path, name), f); err != nil {
			return err
		}
	}
	return nil
}
