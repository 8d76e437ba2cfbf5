package gc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// Runner schedules periodic tasks on the long pool; *tasks.Runner satisfies it.
type Runner interface {
	Every(code tasks.Code, key string, f threadpool.Func) (*tasks.Periodic, error)
}

// Turn is the running task's side of the long pool; *threadpool.Turn satisfies it.
type Turn interface {
	Yield(ioBytes int) error
	Sleep(d time.Duration) error
	Await(ch <-chan struct{}) error
	// AwaitEnd is Await for what nobody can cancel: it gives the slot away until ch is ready
	// even when the task is cancelled.
	AwaitEnd(ch <-chan struct{}) error
}

// Rule is why a log is not released any further.
type Rule uint8

const (
	// RuleDurable: recovery replays from the durable decree.
	RuleDurable Rule = iota
	// RuleDuplication: a remote has not confirmed more.
	RuleDuplication
	// RuleRaft: another voter, or Raft itself, needs it.
	RuleRaft
	// RuleOther: whatever else an operator's part of the process asks for.
	RuleOther
)

var ruleNames = [...]string{"durable", "duplication", "raft", "other"}

func (r Rule) String() string {
	if int(r) < len(ruleNames) {
		return ruleNames[r]
	}
	return "rule" + strconv.Itoa(int(r))
}

// MarshalText makes the name appear in JSON.
func (r Rule) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads the name.
func (r *Rule) UnmarshalText(b []byte) error {
	i := slices.Index(ruleNames[:], string(b))
	if i < 0 {
		return fmt.Errorf("unknown rule %q", b)
	}
	*r = Rule(i)
	return nil
}

// Hold is one reason to keep a log: everything after Decree is needed.
type Hold struct {
	Rule Rule `json:"rule"`
	// Name tells holds of one rule apart, for example the remote.
	Name   string `json:"name,omitempty"`
	Decree uint64 `json:"decree"`
	// Known is false while nobody can tell the decree: the hold then counts as 0
	// and everything is kept.
	Known bool `json:"known"`
}

func (h Hold) limit() uint64 {
	if !h.Known {
		return 0
	}
	return h.Decree
}

// Holder names the holds on a partition's log, for example one per remote.
type Holder interface {
	Holds(partition uint32) []Hold
}

// HolderFunc makes a Holder of a function.
type HolderFunc func(partition uint32) []Hold

// Holds calls f.
func (f HolderFunc) Holds(partition uint32) []Hold { return f(partition) }

// Releasable is rule L4: the greatest decree that may be released, and the hold
// that decides it. Among equals durable is named first, then the order of holds.
func Releasable(durable uint64, holds []Hold) (uint64, Hold) {
	decides := Hold{Rule: RuleDurable, Decree: durable, Known: true}
	for _, h := range holds {
		if h.limit() < decides.limit() {
			decides = h
		}
	}
	return decides.limit(), decides
}

// LogPartition is a partition whose log is collected.
type LogPartition interface {
	ID() uint32
	// Durable is the durable decree.
	Durable() uint64
	// LogExtent describes the log, or says why it is not open.
	LogExtent() (LogExtent, error)
	// ReleaseLog lets the log forget everything up to decree.
	ReleaseLog(decree uint64) error
	// TrimLog deletes one file of LogExtent.Excess and returns its size, 0 when there is none or it cannot be deleted.
	TrimLog() (freed int64)
}

// LogExtent is what a log holds.
type LogExtent struct {
	First, Last uint64 // decrees
	Bytes       int64  // on the disk, files that wait for their next use included
	Live        int64  // in files that are still held
	Excess      int64  // in files that are neither held nor kept for their next use
}

// LogsOptions are the options of Logs.
type LogsOptions struct {
	// Name tells it from others of its kind, which run on their own; default "logs".
	Name       string
	Partitions []LogPartition
	// Holders name what is needed beyond the durable decree.
	Holders []Holder
	// Runner runs code gc_logs. Required.
	Runner Runner
	// MinInterval is the least time between two runs, so that a stream of triggers
	// costs little; default 1 s.
	MinInterval time.Duration
	// Pacer says how fast files that are not used again go.
	Pacer PacerOptions
	// Space is that of ReplicasOptions.
	Space func() (level Level, shortage int64)
	// Now is the clock, default time.Now.
	Now func() time.Time
	// Logger gets one line per event; nil discards.
	Logger *slog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
}

// EnsureDefaults fills in the defaults.
func (o *LogsOptions) EnsureDefaults() {
	o.Name = cmp.Or(o.Name, "logs")
	o.MinInterval = cmp.Or(o.MinInterval, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Pacer.EnsureDefaults()
	if o.Space == nil {
		o.Space = func() (Level, int64) { return LevelOK, 0 }
	}
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate says what is wrong with the options.
func (o *LogsOptions) Validate() error {
	if o.Runner == nil {
		return errors.New("log gc options: Runner is required")
	}
	if o.MinInterval < 0 {
		return fmt.Errorf("log gc options: MinInterval of %v is negative", o.MinInterval)
	}
	return o.Pacer.Validate()
}

// LogStatus says how far one partition's log is released and what holds the rest.
type LogStatus struct {
	Partition uint32 `json:"partition"`
	Open      bool   `json:"open"` // false: not looked at; LastError says why the log is not open
	First     uint64 `json:"first"`
	Last      uint64 `json:"last"`
	Bytes     int64  `json:"bytes"`
	// Releasable is the greatest decree that may be released; HeldBy decides it.
	Releasable uint64 `json:"releasable"`
	HeldBy     Hold   `json:"held_by"`
	// Held counts the decrees after Releasable.
	Held uint64 `json:"held"`
	// HeldSince is since when HeldBy's rule and name decide; HeldSeconds its age.
	HeldSince   time.Time `json:"held_since"`
	HeldSeconds float64   `json:"held_seconds"`
	// Stuck is since when Releasable has not moved although decrees are held.
	StuckSince time.Time `json:"stuck_since"`
	Holds      []Hold    `json:"holds"`
	// Released counts the decrees released since the start.
	Released  uint64 `json:"released"`
	LastError string `json:"last_error,omitempty"`
}

// Logs releases the prefixes of private logs.
type Logs struct {
	o       LogsOptions
	every   schedule
	metrics *logMetrics
	// next is whose turn it is to delete a file, plus a multiple of their number; debt are bytes that were deleted ahead of the pace,
	// as of debtAt. Runs do not overlap.
	next   int
	debt   float64
	debtAt time.Time

	// mu guards what follows; nothing is called with it held.
	mu      sync.Mutex
	woken   bool
	lastRun time.Time
	status  []LogStatus
}

// NewLogs checks the options.
func NewLogs(o LogsOptions) (*Logs, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l := &Logs{o: o, status: make([]LogStatus, len(o.Partitions))}
	for i, p := range o.Partitions {
		l.status[i].Partition = p.ID()
	}
	l.metrics = newLogMetrics(l, o.Registerer)
	return l, nil
}

// Start begins the periodic runs; the first one happens at once.
func (l *Logs) Start(context.Context) error {
	err := l.every.start(l.o.Runner, tasks.GCLogs, l.o.Name, func(ctx context.Context, turn *threadpool.Turn) error {
		return onOwn(turn, func(turn Turn) error { return l.run(ctx, turn) })
	})
	if err != nil {
		return err
	}
	l.every.trigger()
	return nil
}

// Stop ends the runs and waits for the present one, at most until ctx ends.
func (l *Logs) Stop(ctx context.Context) error { return l.every.halt(ctx) }

// Trigger asks for a run soon: a confirmation or a sync of a database may have
// freed something. It never blocks; triggers before the run coalesce.
func (l *Logs) Trigger() {
	l.mu.Lock()
	wake := !l.woken
	l.woken = true
	l.mu.Unlock()
	if wake {
		l.every.trigger()
	}
}

// run looks at every partition once.
func (l *Logs) run(ctx context.Context, turn Turn) error {
	l.mu.Lock()
	rest := l.o.MinInterval - l.o.Now().Sub(l.lastRun)
	l.mu.Unlock()
	if rest > 0 && rest <= l.o.MinInterval {
		if err := turn.Sleep(rest); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.woken, l.lastRun = false, l.o.Now()
	l.mu.Unlock()
	var errs []error
	for i, p := range l.o.Partitions {
		if err := turn.Yield(0); err != nil {
			return err
		}
		// A disk that hangs may hold this call up, but no slot.
		if err := awaitCall(turn, func() error { return l.collect(i, p) }); err != nil {
			errs = append(errs, fmt.Errorf("release log of partition %d: %w", p.ID(), err))
		}
	}
	return errors.Join(append(errs, l.trim(turn))...)
}

// trimFor is how long a run deletes files before the logs are looked at again.
const trimFor = time.Second

// trim deletes the files that are not used again, those of all logs in turns and no faster than the pace. However long the pause after a
// large file is, releases do not wait for it, and a shortage that begins meanwhile ends it sooner.
func (l *Logs) trim(turn Turn) error {
	excess := make([]int64, len(l.o.Partitions))
	var backlog int64
	for i, p := range l.o.Partitions {
		if log, err := p.LogExtent(); err == nil {
			excess[i] = log.Excess
			backlog += log.Excess
		}
	}
	until := l.o.Now().Add(trimFor)
	for backlog > 0 {
		for range l.o.Partitions {
			i := l.next % len(l.o.Partitions)
			p := l.o.Partitions[i]
			if l.next++; excess[i] <= 0 {
				continue
			}
			if paid, err := l.payDebt(turn, backlog, until); err != nil {
				return err
			} else if !paid || l.o.Now().After(until) {
				l.next--
				l.Trigger()
				return nil
			}
			var freed int64
			if err := awaitCall(turn, func() error { freed = p.TrimLog(); return nil }); err != nil {
				return err
			}
			if freed == 0 { // used again meanwhile, or not to be deleted now
				backlog -= excess[i]
				excess[i] = 0
				continue
			}
			excess[i] -= freed
			backlog -= freed
			l.metrics.trimmed.Add(float64(freed))
			l.debt += float64(freed)
		}
	}
	return nil
}

// debtStep is how long a pause may last before it is asked again how short space is.
const debtStep = 200 * time.Millisecond

// payDebt waits until the pace allows to delete again, or until the given time.
func (l *Logs) payDebt(turn Turn, backlog int64, until time.Time) (paid bool, err error) {
	for {
		_, shortage := l.o.Space()
		rate := l.o.Pacer.Rate(backlog, shortage)
		now := l.o.Now()
		l.debt, l.debtAt = max(0, l.debt-rate*now.Sub(l.debtAt).Seconds()), now
		if l.debt < 1 {
			return true, nil
		}
		if !now.Before(until) {
			return false, nil
		}
		wait := time.Duration(min(l.debt/rate, debtStep.Seconds()) * float64(time.Second))
		if err := turn.Sleep(max(min(wait, until.Sub(now)), time.Microsecond)); err != nil {
			return false, err
		}
	}
}

// collect releases what it may of one log. The holds are asked before the
// durable decree, so that a hold that appears meanwhile cannot be overtaken.
func (l *Logs) collect(i int, p LogPartition) error {
	log, err := p.LogExtent()
	if err != nil {
		l.mu.Lock()
		l.status[i].Open, l.status[i].LastError = false, err.Error()
		l.mu.Unlock()
		return nil
	}
	var holds []Hold
	for _, h := range l.o.Holders {
		holds = append(holds, h.Holds(p.ID())...)
	}
	decree, by := Releasable(p.Durable(), holds)
	decree = min(decree, log.Last)
	var released uint64
	if decree >= log.First {
		if err = p.ReleaseLog(decree); err == nil {
			log, released = l.released(p, log, decree, by)
		} else {
			l.metrics.failures.Inc()
			l.o.Logger.Warn("log not released", "partition", p.ID(), "up_to", decree, "error", err)
		}
	}
	l.note(i, LogStatus{First: log.First, Last: log.Last, Bytes: log.Bytes, Releasable: decree, HeldBy: by, Holds: holds}, released, err)
	return err
}

// released books what a release has freed. A file that is kept for its next use is free as well.
func (l *Logs) released(p LogPartition, before LogExtent, decree uint64, by Hold) (after LogExtent, decrees uint64) {
	after, err := p.LogExtent()
	if err != nil {
		return before, 0 // closed meanwhile
	}
	decrees = max(after.First, before.First) - before.First
	l.metrics.decrees.Add(float64(decrees))
	if decrees > 0 {
		l.metrics.bytes.Add(float64(max(0, before.Live-after.Live)))
		l.o.Logger.Debug("log released", "partition", p.ID(), "up_to", decree, "decrees", decrees, "held_by", by.Rule.String(), "name", by.Name)
	}
	return after, decrees
}

// note merges what one look found into the partition's status.
func (l *Logs) note(i int, st LogStatus, released uint64, err error) {
	now := l.o.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	old := &l.status[i]
	st.Partition, st.Open, st.Released = old.Partition, true, old.Released+released
	st.Held = max(st.Last, st.Releasable) - st.Releasable
	st.HeldSince, st.StuckSince = old.HeldSince, old.StuckSince
	if !old.Open || old.HeldBy.Rule != st.HeldBy.Rule || old.HeldBy.Name != st.HeldBy.Name {
		st.HeldSince = now
	}
	if !old.Open || old.Releasable != st.Releasable || st.Held == 0 {
		st.StuckSince = now
	}
	if err != nil {
		st.LastError = err.Error()
	}
	*old = st
}

// Explain says of each log which rule holds it back, as the newest run found it.
func (l *Logs) Explain() []LogStatus {
	now := l.o.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]LogStatus, len(l.status))
	copy(out, l.status)
	for i := range out {
		if out[i].Open {
			out[i].HeldSeconds = now.Sub(out[i].HeldSince).Seconds()
		}
	}
	return out
}

type logMetrics struct {
	decrees, bytes, trimmed, failures prometheus.Counter
}

func newLogMetrics(l *Logs, reg prometheus.Registerer) *logMetrics {
	m := &logMetrics{
		decrees:  counter("log_released_decrees_total", "Decrees released from private logs."),
		bytes:    counter("log_released_bytes_total", "Bytes of private logs freed."),
		trimmed:  counter("log_deleted_bytes_total", "Bytes of private logs' files deleted because they were not used again."),
		failures: counter("log_failures_total", "Releases of a private log that failed."),
	}
	if reg != nil {
		held := prometheus.NewDesc("replicanode_gc_log_held_decrees", "Decrees of the private log that a rule holds.", []string{"partition", "rule"}, nil)
		reg.MustRegister(m.decrees, m.bytes, m.trimmed, m.failures, collectorFunc{[]*prometheus.Desc{held}, func(ch chan<- prometheus.Metric) {
			for _, st := range l.Explain() {
				if st.Open {
					ch <- prometheus.MustNewConstMetric(held, prometheus.GaugeValue, float64(st.Held),
						strconv.FormatUint(uint64(st.Partition), 10), st.HeldBy.Rule.String())
				}
			}
		}})
	}
	return m
}
