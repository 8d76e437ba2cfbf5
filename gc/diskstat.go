package gc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// DiskStatOptions are the options of DiskStat.
type DiskStatOptions struct {
	// Dirs are the data folders, at least one; each may be on a disk of its own.
	Dirs []string
	// FS is the file system; nil means the real one.
	FS vfs.FS
	// Runner runs code disk_stat. Required.
	Runner Runner
	// Watermarks decide the level of each disk.
	Watermarks Watermarks
	// Timeout is how long a disk may take to answer one call; default 2 s.
	Timeout time.Duration
	// Recheck is how often space is looked at between two runs while a disk is not
	// at LevelOK; default 1 s.
	Recheck time.Duration
	// Rechecks bounds those looks per run; default 10.
	Rechecks int
	// Changed, if set, is told when the worst level of the disks changes, with the
	// error for writes at LevelCritical, else nil. It must not block.
	Changed func(level Level, refuse error)
	// Garbage, if set, tells a partition's GarbageBytes. It must not block.
	Garbage func(partition uint32) int64
	// Usage asks for a disk's space; default statfs.
	Usage func(path string) (Usage, error)
	// Logger gets one line per event; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills in the defaults.
func (o *DiskStatOptions) EnsureDefaults() {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Second
	}
	if o.Recheck == 0 {
		o.Recheck = time.Second
	}
	if o.Rechecks == 0 {
		o.Rechecks = 10
	}
	if o.Changed == nil {
		o.Changed = func(Level, error) {}
	}
	if o.Usage == nil {
		o.Usage = statfs
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Validate says what is wrong with the options.
func (o *DiskStatOptions) Validate() error {
	switch {
	case o.Runner == nil || len(o.Dirs) == 0:
		return errors.New("disk statistics options: Runner and Dirs are required")
	case o.Timeout < 0 || o.Recheck < 0 || o.Rechecks < 0:
		return errors.New("disk statistics options: a time or count is negative")
	}
	return o.Watermarks.Validate()
}

// DiskStatus is what is known of one disk.
type DiskStatus struct {
	Path string `json:"path"`
	Usage
	Level Level `json:"level"`
	// WriteSeconds and SyncSeconds are how long the newest write of 4 KiB and the sync after it took.
	WriteSeconds float64 `json:"write_seconds"`
	SyncSeconds  float64 `json:"sync_seconds"`
	// DroppedBytes and OtherBytes are what dropped replicas and files of no partition take.
	DroppedBytes int64             `json:"dropped_bytes"`
	OtherBytes   int64             `json:"other_bytes"`
	Partitions   []PartitionUsage  `json:"partitions"`
	Stuck        bool              `json:"stuck"`     // does not answer
	Errors       uint64            `json:"errors"`    // runs in which it could not be measured
	IOErrors     uint64            `json:"io_errors"` // those among them in which a call failed, rather than took too long
	LastError    string            `json:"last_error,omitempty"`
	Measured     time.Time         `json:"measured"` // when the newest run of this disk was complete
	partitions   map[uint32]*usage // while a run collects
}

// PartitionUsage is what one partition takes on one disk, in allocated bytes.
type PartitionUsage struct {
	Partition       uint32 `json:"partition"`
	LogBytes        int64  `json:"log_bytes"`
	DataBytes       int64  `json:"data_bytes"`
	CheckpointBytes int64  `json:"checkpoint_bytes"`
	// GarbageBytes of the above hold nothing that is needed: log files that wait for
	// their next use, and entries that the database will drop when it compacts.
	GarbageBytes int64 `json:"garbage_bytes"`
}

type usage = PartitionUsage

// DiskStat measures the disks and derives the level and the gate for writes.
type DiskStat struct {
	o     DiskStatOptions
	every schedule
	gate  atomic.Pointer[CriticalError]

	// mu guards what follows; nothing is called with it held.
	mu      sync.Mutex
	probers []*prober // nil before Start and after Stop
	disks   []DiskStatus
	level   Level
}

// NewDiskStat checks the options.
func NewDiskStat(o DiskStatOptions) (*DiskStat, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	d := &DiskStat{o: o, disks: make([]DiskStatus, len(o.Dirs))}
	for i, dir := range o.Dirs {
		d.disks[i].Path = dir
	}
	d.register(o.Registerer)
	return d, nil
}

// Start begins the periodic runs; the first one happens at once.
func (d *DiskStat) Start(context.Context) error {
	d.mu.Lock()
	if d.probers != nil {
		d.mu.Unlock()
		return errors.New("disk statistics are already running")
	}
	for range d.o.Dirs {
		d.probers = append(d.probers, newProber())
	}
	d.mu.Unlock()
	err := d.every.start(d.o.Runner, tasks.DiskStat, "disks", func(ctx context.Context, turn *threadpool.Turn) error {
		return d.run(turn)
	})
	if err != nil {
		return errors.Join(err, d.Stop(context.Background()))
	}
	d.every.trigger()
	return nil
}

// Stop ends the runs and the disks' goroutines, and waits for them at most until ctx ends.
func (d *DiskStat) Stop(ctx context.Context) error {
	err := d.every.halt(ctx)
	if err != nil {
		return err
	}
	d.mu.Lock()
	probers := d.probers
	d.probers = nil
	d.mu.Unlock()
	var errs []error
	for i, p := range probers {
		if err := p.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("disk of %s: %w", d.o.Dirs[i], err))
		}
	}
	return errors.Join(errs...)
}

// Trigger asks for a run soon.
func (d *DiskStat) Trigger() { d.every.trigger() }

// Gate is nil while writes may go on, else a *CriticalError. It costs one atomic load.
func (d *DiskStat) Gate() error {
	if e := d.gate.Load(); e != nil {
		return e
	}
	return nil
}

// Space gives the worst level, and the greatest number of bytes missing to a low
// watermark. It is what ReplicasOptions.Space asks for.
func (d *DiskStat) Space() (Level, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var shortage int64
	for i := range d.disks {
		if disk := &d.disks[i]; disk.TotalBytes > 0 {
			low := d.o.Watermarks.For(disk.Usage).LowBytes
			shortage = max(shortage, int64(low)-int64(disk.FreeBytes))
		}
	}
	return d.level, shortage
}

// Status describes all disks, in the order of the options.
func (d *DiskStat) Status() []DiskStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]DiskStatus, len(d.disks))
	for i := range d.disks {
		out[i] = d.disks[i]
		if d.probers != nil {
			if since, busy := d.probers[i].busySince(); busy && time.Since(since) > d.o.Timeout {
				out[i].Stuck = true
			}
		}
	}
	return out
}

// run measures every disk, and while space is short looks again a few times.
func (d *DiskStat) run(turn Turn) error {
	errs := make([]error, len(d.o.Dirs))
	for i := range d.o.Dirs {
		errs[i] = d.measure(turn, i)
	}
	for range d.o.Rechecks {
		if level, _ := d.Space(); level == LevelOK {
			break
		}
		if err := turn.Sleep(d.o.Recheck); err != nil {
			return err
		}
		for i := range d.o.Dirs {
			if errs[i] == nil {
				errs[i] = d.space(turn, i)
			}
		}
	}
	if err := turn.Yield(0); err != nil {
		return err
	}
	// What went wrong with a disk is reported in its status; running again at once would not help.
	return nil
}

// measure looks at one disk: space first, then latency, then the bytes by owner.
func (d *DiskStat) measure(turn Turn, i int) error {
	err := d.space(turn, i)
	if err == nil {
		err = d.latency(turn, i)
	}
	// A full disk may refuse the probe; its files can still be counted.
	stuck := errors.Is(err, ErrNoAnswer)
	var sizes *DiskStatus
	if !stuck {
		var werr error
		sizes, werr = d.sizes(turn, i)
		err = errors.Join(err, werr)
		stuck = errors.Is(werr, ErrNoAnswer)
	}
	d.mu.Lock()
	disk := &d.disks[i]
	wasStuck := disk.Stuck
	disk.Stuck, disk.LastError = stuck, ""
	if err != nil {
		disk.Errors++
		if !errors.Is(err, ErrNoAnswer) {
			disk.IOErrors++
		}
		disk.LastError = err.Error()
	}
	if sizes != nil {
		disk.DroppedBytes, disk.OtherBytes, disk.Partitions = sizes.DroppedBytes, sizes.OtherBytes, sizes.Partitions
		disk.Measured = time.Now().UTC()
	}
	d.mu.Unlock()
	switch {
	case errors.Is(err, context.Canceled):
	case err != nil && (!stuck || !wasStuck):
		d.o.Logger.Warn("disk cannot be measured", "path", d.o.Dirs[i], "stuck", stuck, "error", err)
	case err == nil && wasStuck:
		d.o.Logger.Info("disk answers again", "path", d.o.Dirs[i])
	}
	return err
}

// space asks one disk for its free space and derives the levels.
func (d *DiskStat) space(turn Turn, i int) error {
	result := new(Usage)
	err := d.call(turn, i, func() (err error) {
		*result, err = d.o.Usage(d.o.Dirs[i])
		return err
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	disk := &d.disks[i]
	before := disk.Level
	disk.Usage = *result
	disk.Level = d.o.Watermarks.Next(disk.Level, disk.Usage)
	after, worst := disk.Level, d.level
	d.level = LevelOK
	var refuse *CriticalError
	for j := range d.disks {
		d.level = max(d.level, d.disks[j].Level)
		if d.disks[j].Level == LevelCritical && refuse == nil {
			refuse = d.o.Watermarks.refusal(d.disks[j].Path, d.disks[j].Usage)
		}
	}
	level := d.level
	d.mu.Unlock()
	d.gate.Store(refuse)
	if after != before {
		d.o.Logger.Warn("disk space level changed", "path", d.o.Dirs[i], "from", before.String(), "to", after.String(), "free_bytes", result.FreeBytes)
	}
	if level != worst {
		d.o.Changed(level, d.Gate())
	}
	return nil
}

// probeName is the file that is overwritten to measure the latency of a sync.
const probeName = "disk-probe"

// latency writes and syncs 4 KiB in place.
func (d *DiskStat) latency(turn Turn, i int) error {
	path := d.o.FS.PathJoin(d.o.Dirs[i], probeName)
	wrote, synced := new(time.Duration), new(time.Duration)
	err := d.call(turn, i, func() error {
		f, err := d.o.FS.OpenReadWrite(path, vfs.WriteCategoryUnspecified)
		if err != nil {
			return fmt.Errorf("open probe: %w", err)
		}
		begun := time.Now()
		_, err = f.WriteAt(make([]byte, 4096), 0)
		*wrote = time.Since(begun)
		if err == nil {
			err = f.SyncData()
		}
		*synced = time.Since(begun) - *wrote
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.disks[i].WriteSeconds, d.disks[i].SyncSeconds = wrote.Seconds(), synced.Seconds()
	d.mu.Unlock()
	return nil
}

// sizes walks one data folder, one folder per call.
func (d *DiskStat) sizes(turn Turn, i int) (*DiskStatus, error) {
	st := &DiskStatus{partitions: make(map[uint32]*usage)}
	queue := []string{""}
	for len(queue) > 0 {
		rel := queue[len(queue)-1]
		queue = queue[:len(queue)-1]
		found := new(folder)
		if err := d.call(turn, i, func() (err error) {
			*found, err = readFolder(d.o.FS, d.o.FS.PathJoin(d.o.Dirs[i], rel))
			return err
		}); err != nil {
			return nil, err
		}
		st.add(rel, found.bytes)
		for _, name := range found.folders {
			queue = append(queue, strings.TrimPrefix(rel+"/"+name, "/"))
		}
		if err := turn.Yield(0); err != nil {
			return nil, err
		}
	}
	for _, u := range st.partitions {
		if d.o.Garbage != nil {
			u.GarbageBytes = d.o.Garbage(u.Partition)
		}
		st.Partitions = append(st.Partitions, *u)
	}
	sortUsages(st.Partitions)
	return st, nil
}

// call makes one call to disk i.
func (d *DiskStat) call(turn Turn, i int, f func() error) error {
	d.mu.Lock()
	probers := d.probers
	d.mu.Unlock()
	if probers == nil {
		return errors.New("disk statistics are stopped")
	}
	return probers[i].do(turn, d.o.Timeout, f)
}

// folder is one folder's own files and its subfolders.
type folder struct {
	bytes   int64
	folders []string
}

// readFolder looks at one folder; what vanishes meanwhile is not there.
func readFolder(fsys vfs.FS, path string) (folder, error) {
	var f folder
	names, err := fsys.List(path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err != nil {
		return f, fmt.Errorf("list %s: %w", path, err)
	}
	for _, name := range names {
		st, err := fsys.Stat(fsys.PathJoin(path, name))
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return f, fmt.Errorf("look at %s: %w", fsys.PathJoin(path, name), err)
		case st.IsDir():
			f.folders = append(f.folders, name)
		default:
			f.bytes += allocated(st)
		}
	}
	return f, nil
}

// add books bytes of the folder rel under what owns it.
func (s *DiskStatus) add(rel string, bytes int64) {
	parts := strings.Split(rel, "/")
	if parts[0] == "dropped" {
		s.DroppedBytes += bytes
		return
	}
	if len(parts) >= 2 && (parts[0] == "partitions" || parts[0] == "checkpoints") {
		if id, err := strconv.ParseUint(parts[1], 10, 32); err == nil {
			u := s.partitions[uint32(id)]
			if u == nil {
				u = &usage{Partition: uint32(id)}
				s.partitions[uint32(id)] = u
			}
			switch {
			case parts[0] == "checkpoints":
				u.CheckpointBytes += bytes
			case len(parts) >= 3 && parts[2] == "plog":
				u.LogBytes += bytes
			default:
				u.DataBytes += bytes
			}
			return
		}
	}
	s.OtherBytes += bytes
}
