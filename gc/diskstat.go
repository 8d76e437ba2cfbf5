package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"

	"replicanode/internal/pause"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// DiskStatOptions are the options of DiskStat.
type DiskStatOptions struct {
	// Dirs are the data folders, at least one; each may be on a disk of its own.
	Dirs []string
	// Failed, if set, says for each of Dirs why it can't be used; such a one is reported
	// and left alone.
	Failed []error
	// FS is the file system; nil means the real one.
	FS vfs.FS
	// Runner runs code disk_stat. Required.
	Runner Runner
	// Watermarks decide the level of each disk.
	Watermarks Watermarks
	// Timeout is how long a disk may take to answer one call; default 2 s.
	Timeout time.Duration
	// Beat is how often space, a synced write and a read are tried between the runs, without the
	// long pool, so that a disk that hangs or fills up is known within Beat and Timeout;
	// default 2 s.
	Beat time.Duration
	// SlowAfter is how long a synced write and a read may take together before the disk counts as slow;
	// default 500 ms.
	SlowAfter time.Duration
	// Recheck is how often space is looked at between two runs while a disk is not
	// at LevelOK; default 1 s.
	Recheck time.Duration
	// Rechecks bounds those looks per run; default 10.
	Rechecks int
	// Changed, if set, is told when the level of a disk (an index of Dirs) changes, with
	// the error for writes at LevelCritical, else nil. It must not block.
	Changed func(disk int, level Level, refuse error)
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
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	o.Beat = cmp.Or(o.Beat, 2*time.Second)
	o.SlowAfter = cmp.Or(o.SlowAfter, 500*time.Millisecond)
	o.Recheck = cmp.Or(o.Recheck, time.Second)
	o.Rechecks = cmp.Or(o.Rechecks, 10)
	if o.Changed == nil {
		o.Changed = func(int, Level, error) {}
	}
	if o.Usage == nil {
		o.Usage = statfs
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate says what is wrong with the options.
func (o *DiskStatOptions) Validate() error {
	switch {
	case o.Runner == nil || len(o.Dirs) == 0:
		return errors.New("disk statistics options: Runner and Dirs are required")
	case len(o.Failed) != 0 && len(o.Failed) != len(o.Dirs):
		return errors.New("disk statistics options: Failed is not as long as Dirs")
	case o.Timeout < 0 || o.Recheck < 0 || o.Rechecks < 0 || o.Beat < 0 || o.SlowAfter < 0:
		return errors.New("disk statistics options: a time or count is negative")
	}
	return o.Watermarks.Validate()
}

// DiskStat measures the disks and derives the levels and the gates for writes.
// Each disk has its own task and its own goroutines, and waits for no other.
type DiskStat struct {
	o     DiskStatOptions
	every []schedule
	disks []*disk

	// mu guards what follows and the disks' states; nothing is called with it held.
	mu      sync.Mutex
	running bool
	cancel  context.CancelFunc
	beats   sync.WaitGroup
}

// NewDiskStat checks the options.
func NewDiskStat(o DiskStatOptions) (*DiskStat, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	d := &DiskStat{o: o, every: make([]schedule, len(o.Dirs))}
	for i, dir := range o.Dirs {
		disk := &disk{dir: dir}
		disk.Path = dir
		if len(o.Failed) > 0 && o.Failed[i] != nil {
			disk.Failed, disk.LastError = true, o.Failed[i].Error()
		}
		d.disks = append(d.disks, disk)
	}
	d.register(o.Registerer)
	return d, nil
}

// Start begins the periodic runs; the first one happens at once.
func (d *DiskStat) Start(context.Context) error {
	d.mu.Lock()
	if d.running {
		d.mu.Unlock()
		return errors.New("disk statistics are already running")
	}
	d.running = true
	beating, cancel := context.WithCancel(context.Background())
	d.cancel = cancel
	d.begin()
	d.mu.Unlock()
	for i, disk := range d.disks {
		if disk.Failed {
			continue
		}
		err := d.every[i].start(d.o.Runner, tasks.DiskStat, disk.dir, func(ctx context.Context, turn *threadpool.Turn) error {
			return d.run(turn, i)
		})
		if err != nil {
			return errors.Join(err, d.Stop(context.Background()))
		}
		d.every[i].trigger()
		d.beats.Go(func() { d.beat(beating, i) })
	}
	return nil
}

// begin makes the disks' goroutines. mu is held.
func (d *DiskStat) begin() {
	for _, disk := range d.disks {
		if !disk.Failed {
			disk.stat, disk.pulse = newProber(), newProber()
		}
	}
}

// Stop ends the runs and the disks' goroutines, and waits for them at most until ctx ends.
func (d *DiskStat) Stop(ctx context.Context) error {
	for i := range d.every {
		if err := d.every[i].halt(ctx); err != nil {
			return err
		}
	}
	d.mu.Lock()
	if d.cancel != nil {
		d.cancel()
	}
	d.mu.Unlock()
	d.beats.Wait() // they wait for no disk once they are cancelled
	d.mu.Lock()
	d.running = false
	var probers []*prober
	for _, disk := range d.disks {
		probers = append(probers, disk.stat, disk.pulse)
		disk.stat, disk.pulse = nil, nil
	}
	d.mu.Unlock()
	var errs []error
	for i, p := range probers {
		if p == nil {
			continue
		}
		if err := p.stop(ctx); err != nil {
			errs = append(errs, fmt.Errorf("disk of %s: %w", d.o.Dirs[i/2], err))
		}
	}
	return errors.Join(errs...)
}

// Trigger asks for a run of each disk soon.
func (d *DiskStat) Trigger() {
	for i := range d.every {
		d.every[i].trigger()
	}
}

// Gate is nil while writes to a disk (an index of Dirs) may go on, else a
// *CriticalError or a *StuckError. It costs one atomic load.
func (d *DiskStat) Gate(disk int) error {
	if e := d.disks[disk].gate.Load(); e != nil {
		return *e
	}
	return nil
}

// Space gives the worst level of all disks, and the greatest number of bytes missing to
// a low watermark.
func (d *DiskStat) Space() (worst Level, shortage int64) {
	for i := range d.disks {
		level, missing := d.SpaceOf(i)
		worst, shortage = max(worst, level), max(shortage, missing)
	}
	return worst, shortage
}

// SpaceOf is Space of one disk. It is what ReplicasOptions.Space asks for.
func (d *DiskStat) SpaceOf(disk int) (level Level, shortage int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.disks[disk].DiskStatus
	if s.TotalBytes > 0 {
		low := d.o.Watermarks.For(s.Usage).LowBytes
		shortage = max(0, int64(low)-int64(s.FreeBytes))
	}
	return s.Level, shortage
}

// Status describes all disks, in the order of the options.
func (d *DiskStat) Status() []DiskStatus {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]DiskStatus, len(d.disks))
	for i, disk := range d.disks {
		out[i] = disk.DiskStatus
		if since, stuck := disk.unanswered(d.o.Timeout); stuck && !out[i].Stuck {
			out[i].Stuck, out[i].StuckSince = true, since
		}
	}
	return out
}

// unanswered tells since when the disk owes an answer that is overdue.
func (k *disk) unanswered(timeout time.Duration) (since time.Time, stuck bool) {
	for _, p := range []*prober{k.stat, k.pulse} {
		if p == nil {
			continue
		}
		if at, busy := p.busySince(); busy && time.Since(at) > timeout && (!stuck || at.Before(since)) {
			since, stuck = at, true
		}
	}
	return since, stuck
}

// run measures a disk, and while its space is short looks again a few times.
func (d *DiskStat) run(turn Turn, i int) error {
	err := d.measure(turn, i)
	for range d.o.Rechecks {
		if level, _ := d.SpaceOf(i); level == LevelOK || err != nil {
			break
		}
		if err := turn.Sleep(d.o.Recheck); err != nil {
			return err
		}
		err = d.space(turn, i, byRun)
	}
	// What went wrong with a disk is reported in its status; running again at once would not help.
	return turn.Yield(0)
}

// beat tries a disk again and again until ctx ends.
func (d *DiskStat) beat(ctx context.Context, i int) {
	ticker := time.NewTicker(d.o.Beat)
	defer ticker.Stop()
	w := waiter{ctx}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		err := d.space(w, i, byBeat)
		if err == nil {
			err = d.latency(w, i, byBeat)
		}
		if ctx.Err() == nil {
			d.note(i, byBeat, err)
		}
	}
}

// waiter is the Turn of a goroutine that holds no slot.
type waiter struct{ ctx context.Context }

func (w waiter) Yield(int) error { return w.ctx.Err() }

func (w waiter) Sleep(d time.Duration) error { return pause.For(w.ctx, d) }

func (w waiter) Await(ch <-chan struct{}) error {
	select {
	case <-ch:
		return nil
	case <-w.ctx.Done():
		return w.ctx.Err()
	}
}

// AwaitEnd implements Turn.
func (w waiter) AwaitEnd(ch <-chan struct{}) error {
	<-ch
	return w.ctx.Err()
}

// measure looks at one disk: space first, then latency, then the bytes by owner.
func (d *DiskStat) measure(turn Turn, i int) error {
	err := d.space(turn, i, byRun)
	if err == nil {
		err = d.latency(turn, i, byRun)
	}
	// A full disk may refuse the probe; its files can still be counted.
	var sizes *DiskStatus
	if !errors.Is(err, ErrNoAnswer) {
		var werr error
		sizes, werr = d.sizes(turn, i)
		err = errors.Join(err, werr)
	}
	if sizes != nil {
		d.mu.Lock()
		disk := d.disks[i]
		disk.DroppedBytes, disk.OtherBytes, disk.Partitions = sizes.DroppedBytes, sizes.OtherBytes, sizes.Partitions
		disk.Measured = time.Now().UTC()
		d.mu.Unlock()
	}
	d.note(i, byRun, err)
	return err
}

// note books how an attempt to measure a disk went.
func (d *DiskStat) note(i int, who by, err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	d.mu.Lock()
	disk := d.disks[i]
	wasStuck := disk.Stuck
	before := disk.errs[who]
	disk.errs[who] = err
	disk.Stuck, disk.LastError = false, ""
	for _, e := range disk.errs {
		disk.Stuck = disk.Stuck || errors.Is(e, ErrNoAnswer)
	}
	if all := errors.Join(disk.errs[:]...); all != nil {
		disk.LastError = strings.ReplaceAll(all.Error(), "\n", "; ")
	}
	switch {
	case !disk.Stuck:
		disk.StuckSince = time.Time{}
	case !wasStuck:
		var known bool
		if disk.StuckSince, known = disk.unanswered(0); !known {
			disk.StuckSince = time.Now().Add(-d.o.Timeout)
		}
	}
	if err != nil {
		disk.Errors++
		if !errors.Is(err, ErrNoAnswer) {
			disk.IOErrors++
		}
	}
	stuck := disk.Stuck
	d.setGate(disk)
	d.mu.Unlock()
	switch {
	case stuck && !wasStuck:
		d.o.Logger.Error("disk does not answer", "path", disk.dir, "error", err)
	case !stuck && wasStuck:
		d.o.Logger.Info("disk answers again", "path", disk.dir)
	case err != nil && before == nil && !stuck:
		d.o.Logger.Warn("disk cannot be measured", "path", disk.dir, "error", err)
	}
}

// setGate derives whether writes are refused. mu is held.
func (d *DiskStat) setGate(disk *disk) {
	var refuse error
	switch {
	case disk.Stuck:
		refuse = &StuckError{Path: disk.Path, Since: disk.StuckSince}
	case disk.Level == LevelCritical:
		refuse = d.o.Watermarks.refusal(disk.Path, disk.Usage)
	}
	if refuse == nil {
		disk.gate.Store(nil)
		return
	}
	disk.gate.Store(&refuse)
}

// space asks one disk for its free space and derives its level.
func (d *DiskStat) space(turn Turn, i int, who by) error {
	result := new(Usage)
	err := d.call(turn, i, who, func() (err error) {
		*result, err = d.o.Usage(d.o.Dirs[i])
		return err
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	disk := d.disks[i]
	before := disk.Level
	disk.Usage = *result
	disk.Level = d.o.Watermarks.Next(disk.Level, disk.Usage)
	after := disk.Level
	d.setGate(disk)
	var refuse error
	if after == LevelCritical {
		refuse = d.o.Watermarks.refusal(disk.Path, disk.Usage)
	}
	d.mu.Unlock()
	if after != before {
		d.o.Logger.Warn("disk space level changed", "path", disk.dir, "from", before.String(), "to", after.String(), "free_bytes", result.FreeBytes)
		d.o.Changed(i, after, refuse)
	}
	return nil
}

// probeName is the file that is overwritten to measure the latency of a sync.
const probeName = "disk-probe"

// latency writes and syncs 4 KiB in place, and reads them from the disk.
func (d *DiskStat) latency(turn Turn, i int, who by) error {
	path := d.o.FS.PathJoin(d.o.Dirs[i], probeName)
	wrote, synced, read := new(time.Duration), new(time.Duration), new(time.Duration)
	err := d.call(turn, i, who, func() error {
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
		if err == nil {
			dropCached(f.Fd())
			_, err = f.ReadAt(make([]byte, 4096), 0)
		}
		*read = time.Since(begun) - *wrote - *synced
		return errors.Join(err, f.Close())
	})
	if err != nil {
		return err
	}
	d.mu.Lock()
	disk := d.disks[i]
	disk.WriteSeconds, disk.SyncSeconds, disk.ReadSeconds = wrote.Seconds(), synced.Seconds(), read.Seconds()
	was := disk.Slow
	disk.Slow = *wrote+*synced+*read > d.o.SlowAfter
	slow := disk.Slow
	d.mu.Unlock()
	switch {
	case slow && !was:
		d.o.Logger.Warn("disk answers slowly", "path", disk.dir, "write_seconds", wrote.Seconds(), "sync_seconds", synced.Seconds(), "read_seconds", read.Seconds())
	case was && !slow:
		d.o.Logger.Info("disk answers fast again", "path", disk.dir)
	}
	return nil
}

// call makes one call to disk i.
func (d *DiskStat) call(turn Turn, i int, who by, f func() error) error {
	d.mu.Lock()
	prober := d.disks[i].stat
	if who == byBeat {
		prober = d.disks[i].pulse
	}
	d.mu.Unlock()
	if prober == nil {
		return errors.New("disk statistics are stopped")
	}
	return prober.do(turn, d.o.Timeout, f)
}
