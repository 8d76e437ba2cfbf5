// Package sched measures the scheduler: what a task costs, how soon an urgent one starts, what Low gets under saturation.
//
//	results, err := sched.Run(ctx, sched.Options{})
//
// Results have stable names. Costs are measured with a standing backlog: every task submits its successor before it
// ends, so that the number of queued tasks stays as it is. Other pools take part as Peers; those without a queue of
// their own block their submitters instead, which is how they hold a backlog.
//
// Everything here is real time. On a machine that does other things too, compare CPUNsPerOp rather than NsPerOp.
package sched

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Peer is another pool to be measured beside ours.
type Peer struct {
	// Name is the result's subject.
	Name string
	// Queues says that Submit may be called by tasks of the pool: it queues and does not block.
	Queues bool
	// Open makes a pool of n workers.
	Open func(workers int) (PeerPool, error)
}

// PeerPool is an open peer.
type PeerPool interface {
	// Submit runs f on the pool, at once or later; it may block.
	Submit(f func()) error
	// Close ends the pool and waits for it.
	Close() error
}

// Options configure Run.
type Options struct {
	// Only names the measurements to make, of Names. Default: all.
	Only []string
	// Workers is the number of slots. Default: GOMAXPROCS.
	Workers int
	// Tasks is the number of tasks that a cost is measured over, in ten rounds, 1000 or more. Default 2,000,000.
	Tasks int
	// Backlogs are the numbers of queued tasks. Default 10, 1,000, 100,000 and 1,000,000.
	Backlogs []int
	// Saturation is how long Common is kept saturated. Default 60 s.
	Saturation time.Duration
	// Samples is the number of urgent tasks whose start is measured, 1 or more. Default 500.
	Samples int
	// Peers are measured for cost too.
	Peers []Peer
	// Progress, if set, is told what is being measured.
	Progress func(what string)
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if len(o.Only) == 0 {
		o.Only = Names()
	}
	o.Workers = cmp.Or(o.Workers, runtime.GOMAXPROCS(0))
	o.Tasks = cmp.Or(o.Tasks, 2_000_000)
	if len(o.Backlogs) == 0 {
		o.Backlogs = []int{10, 1000, 100_000, 1_000_000}
	}
	o.Saturation = cmp.Or(o.Saturation, time.Minute)
	o.Samples = cmp.Or(o.Samples, 500)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
}

// Validate reports the first field out of range. It expects EnsureDefaults to have run.
func (o *Options) Validate() error {
	for _, n := range o.Only {
		if !slices.Contains(Names(), n) {
			return fmt.Errorf("no measurement %q; there are %s", n, strings.Join(Names(), ", "))
		}
	}
	for _, b := range o.Backlogs {
		if b < 1 || b > 10_000_000 {
			return fmt.Errorf("backlog %d is not within 1 and 10,000,000", b)
		}
	}
	switch {
	case o.Workers < 1 || o.Workers > 1024:
		return fmt.Errorf("%d workers are not within 1 and 1024", o.Workers)
	case o.Tasks < 1000:
		return fmt.Errorf("%d tasks are fewer than 1000", o.Tasks)
	case o.Samples < 1:
		return fmt.Errorf("%d samples are fewer than 1", o.Samples)
	case o.Saturation < 100*time.Millisecond:
		return fmt.Errorf("saturation of %v is shorter than 100ms", o.Saturation)
	}
	return nil
}

// Result is one measured figure, or one distribution.
type Result struct {
	// Name is stable: see Names.
	Name string `json:"name"`
	// Subject is the pool: "threadpool", "threadpool without metrics", or a peer.
	Subject string `json:"subject"`
	// Queued is the backlog, Producers the number of submitting goroutines, where they matter.
	Queued    int `json:"queued,omitempty"`
	Producers int `json:"producers,omitempty"`
	// NsPerOp is elapsed time, CPUNsPerOp processor time of the process, AllocsPerOp heap allocations, each per task or call and
	// in the best round of ten, or of three times ten with a backlog.
	NsPerOp     float64 `json:"ns_per_op,omitempty"`
	CPUNsPerOp  float64 `json:"cpu_ns_per_op,omitempty"`
	AllocsPerOp float64 `json:"allocs_per_op"`
	// Ratio is how many times the processor time of the second subject the first one takes.
	Ratio float64 `json:"ratio,omitempty"`
	// P50Us, P99Us and MaxUs are waits from submission to start.
	P50Us float64 `json:"p50_us,omitempty"`
	P99Us float64 `json:"p99_us,omitempty"`
	MaxUs float64 `json:"max_us,omitempty"`
	// Share is the part of all slot time that Low got, 0 to 1.
	Share float64 `json:"share,omitempty"`
	// Goal says in words what the figure should be, Met whether it is. Figures without a goal are always met.
	Goal string `json:"goal,omitempty"`
	Met  bool   `json:"met"`

	rounds int
}

// String is the result in one line.
func (r Result) String() string {
	s := fmt.Sprintf("%-16s %-34s", r.Name, r.Subject)
	if r.Queued > 0 {
		s += fmt.Sprintf(" queued %-8d", r.Queued)
	}
	if r.Producers > 0 {
		s += fmt.Sprintf(" producers %-2d", r.Producers)
	}
	if r.NsPerOp > 0 {
		s += fmt.Sprintf(" %8.1f ns %8.1f cpu-ns %6.3f allocs", r.NsPerOp, r.CPUNsPerOp, r.AllocsPerOp)
	}
	if r.P99Us > 0 || r.MaxUs > 0 {
		s += fmt.Sprintf(" p50 %.0f µs, p99 %.0f µs, max %.0f µs", r.P50Us, r.P99Us, r.MaxUs)
	}
	if r.Ratio > 0 {
		s += fmt.Sprintf(" ratio %.2f", r.Ratio)
	}
	if r.Share > 0 {
		s += fmt.Sprintf(" share %.4f", r.Share)
	}
	if r.Goal != "" {
		verdict := "missed"
		if r.Met {
			verdict = "met"
		}
		s += fmt.Sprintf("  [%s: %s]", r.Goal, verdict)
	}
	return s
}

// measurements are in the order they are made.
var measurements = []struct {
	name string
	run  func(ctx context.Context, o *Options) ([]Result, error)
}{
	{"backlog", measureBacklog},
	{"producers", measureProducers},
	{"yield", measureYield},
	{"start_free", measureStartFree},
	{"start_preempt", measureStartPreempt},
	{"saturation", measureSaturation},
	{"throttled", measureThrottled},
}

// Names returns the names of all measurements, which are those of their results:
// backlog (a task's cost with a standing backlog), producers (with 1 and 8 submitters), yield (a Yield that finds nothing), start_free
// (an urgent task's start with a free slot), start_preempt (while every slot runs Low work that yields), saturation (Low's
// share and longest wait while Common is saturated), throttled (Common's start while all Low work waits for I/O tokens).
func Names() []string {
	names := make([]string, len(measurements))
	for i, m := range measurements {
		names[i] = m.name
	}
	return names
}

// Run makes the measurements one after the other. It returns what it has when one fails or ctx ends.
func Run(ctx context.Context, o Options) ([]Result, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var out []Result
	for _, m := range measurements {
		if !slices.Contains(o.Only, m.name) {
			continue
		}
		o.Progress(m.name)
		rs, err := m.run(ctx, &o)
		for i := range rs {
			rs[i].Name = m.name
			if rs[i].Goal == "" {
				rs[i].Met = true
			}
		}
		out = append(out, rs...)
		if err != nil {
			return out, fmt.Errorf("measure %s: %w", m.name, err)
		}
	}
	return out, nil
}
