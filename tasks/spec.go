package tasks

import (
	"cmp"
	"fmt"
	"math"
	"time"

	"replicanode/threadpool"
)

// Code is the name of a kind of task.
type Code string

// The codes of a replica node.
const (
	// OpenReplica opens one partition's log and database at start-up.
	OpenReplica Code = "open_replica"
	// LoadPrivateLog reads a partition's private log for duplication that is behind its in-memory tail.
	LoadPrivateLog Code = "load_private_log"
	// DiskStat measures files and free space.
	DiskStat Code = "disk_stat"
	// GCLogs releases log prefixes that nobody needs.
	GCLogs Code = "gc_logs"
	// GCReplicas removes the folders of dropped replicas.
	GCReplicas Code = "gc_replicas"
	// GCValues collects the databases' value logs.
	GCValues Code = "gc_values"
	// Checkpoint copies one partition at one decree.
	Checkpoint Code = "checkpoint"
)

// Backoff is a schedule of retries: the wait after the n-th failure is drawn uniformly from 0 to
// min(Max, Initial·Factor^(n-1)).
type Backoff struct {
	// Initial is the bound of the first wait, up to 1 h. 0: errors of this kind are not retried.
	Initial time.Duration `json:"initial"`
	// Max bounds every wait, up to 24 h. Default: 60 × Initial.
	Max time.Duration `json:"max"`
	// Factor is the growth per failure, 1 to 10. Default 2.
	Factor float64 `json:"factor"`
	// MaxAttempts bounds the attempts, the first included. 0: no bound.
	MaxAttempts int `json:"max_attempts"`
	// MaxElapsed bounds the time from the first failure to the start of the last attempt. 0: no bound.
	MaxElapsed time.Duration `json:"max_elapsed"`
}

// EnsureDefaults fills the fields that are zero.
func (b *Backoff) EnsureDefaults() {
	if b.Initial == 0 {
		return
	}
	b.Max = cmp.Or(b.Max, min(60*b.Initial, 24*time.Hour))
	b.Factor = cmp.Or(b.Factor, 2)
}

// Validate reports the first field out of range.
func (b *Backoff) Validate() error {
	switch {
	case b.Initial < 0 || b.Initial > time.Hour:
		return fmt.Errorf("initial %v is not within 0 and 1h", b.Initial)
	case b.Max < b.Initial || b.Max > 24*time.Hour:
		return fmt.Errorf("max %v is not within initial (%v) and 24h", b.Max, b.Initial)
	case b.Initial > 0 && (math.IsNaN(b.Factor) || b.Factor < 1 || b.Factor > 10):
		return fmt.Errorf("factor %v is not within 1 and 10", b.Factor)
	case b.MaxAttempts < 0:
		return fmt.Errorf("max_attempts %d is negative", b.MaxAttempts)
	case b.MaxElapsed < 0:
		return fmt.Errorf("max_elapsed %v is negative", b.MaxElapsed)
	}
	return nil
}

// RetryPolicy says how a job is retried, by kind of error. Permanent errors never are.
type RetryPolicy struct {
	// Busy is for errors that say the other side is overloaded.
	Busy Backoff `json:"busy"`
	// Timeout is for attempts that took too long.
	Timeout Backoff `json:"timeout"`
	// Conflict is for errors that another attempt may well not see.
	Conflict Backoff `json:"conflict"`
	// Other is for all other errors.
	Other Backoff `json:"other"`
}

// For returns the schedule for a kind of error, nil for Permanent.
func (p *RetryPolicy) For(k ErrorKind) *Backoff {
	switch k {
	case Busy:
		return &p.Busy
	case Timeout:
		return &p.Timeout
	case Conflict:
		return &p.Conflict
	case Other:
		return &p.Other
	default:
		return nil
	}
}

// Spec is everything known about one code.
type Spec struct {
	// Code names the kind of task: lower-case letters, digits and underscores, 1 to 64.
	Code Code `json:"code"`
	// Help is one line for people.
	Help string `json:"help"`
	// Priority is the level of the code's tasks.
	Priority threadpool.Priority `json:"priority"`
	// MaxRunning bounds the tasks that hold a slot. 0: no bound.
	MaxRunning int `json:"max_running"`
	// MaxStarted bounds the tasks that have started and not finished, parked ones included. 0: no bound.
	MaxStarted int `json:"max_started"`
	// MaxQueued bounds the tasks that wait to start. 0: only the pool's own bound.
	MaxQueued int `json:"max_queued"`
	// Timeout bounds one attempt, as threadpool.Task.Timeout counts. 0: no bound.
	Timeout time.Duration `json:"timeout"`
	// Slice is how long a task works between two yields. 0: the pool's.
	Slice time.Duration `json:"slice"`
	// Period is the interval of periodic runs, from the end of one to the start of the next. 0: only when triggered.
	Period time.Duration `json:"period"`
	// Jitter is the part of Period by which each interval varies either way, 0 to 1.
	Jitter float64 `json:"jitter"`
	// Retry says how failed attempts are retried.
	Retry RetryPolicy `json:"retry"`
}

// EnsureDefaults fills the fields that are zero and have a default.
func (s *Spec) EnsureDefaults() {
	for k := Other; k < Permanent; k++ {
		s.Retry.For(k).EnsureDefaults()
	}
}

// Validate reports the first field out of range.
func (s *Spec) Validate() error {
	if err := s.Code.validate(); err != nil {
		return err
	}
	bad := func(field string, v any, want string) error {
		return fmt.Errorf("task %s: %s %v %s", s.Code, field, v, want)
	}
	switch {
	case s.Priority > threadpool.High:
		return bad("priority", s.Priority, "is out of range")
	case s.MaxRunning < 0:
		return bad("max_running", s.MaxRunning, "is negative")
	case s.MaxStarted < 0:
		return bad("max_started", s.MaxStarted, "is negative")
	case s.MaxQueued < 0:
		return bad("max_queued", s.MaxQueued, "is negative")
	case s.Timeout < 0:
		return bad("timeout", s.Timeout, "is negative")
	case s.Slice < 0 || s.Slice > time.Minute:
		return bad("slice", s.Slice, "is not within 0 and 1m")
	case s.Period < 0:
		return bad("period", s.Period, "is negative")
	case math.IsNaN(s.Jitter) || s.Jitter < 0 || s.Jitter > 1:
		return bad("jitter", s.Jitter, "is not within 0 and 1")
	}
	for k := Other; k < Permanent; k++ {
		if err := s.Retry.For(k).Validate(); err != nil {
			return fmt.Errorf("task %s: retry.%s: %w", s.Code, k, err)
		}
	}
	return nil
}

func (c Code) validate() error {
	if len(c) < 1 || len(c) > 64 {
		return fmt.Errorf("task code %q: must have 1 to 64 characters", string(c))
	}
	for _, r := range c {
		if (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' {
			return fmt.Errorf("task code %q: only lower-case letters, digits and underscores", string(c))
		}
	}
	return nil
}

// DefaultSpecs returns the specs of a replica node's codes.
func DefaultSpecs() []Spec {
	soon := Backoff{Initial: 100 * time.Millisecond, Max: 10 * time.Second, Factor: 2}
	few := Backoff{Initial: time.Second, Max: time.Minute, Factor: 2, MaxAttempts: 5}
	maintenance := RetryPolicy{Busy: few, Timeout: few, Conflict: few, Other: few}
	return []Spec{
		{
			Code: OpenReplica, Help: "open a partition's log and database at start-up",
			Priority: threadpool.High, Timeout: 10 * time.Minute, Retry: RetryPolicy{Busy: soon},
		},
		{
			Code: LoadPrivateLog, Help: "read the private log for a duplication that is behind its in-memory tail",
			Priority: threadpool.Common, Timeout: time.Minute, Retry: RetryPolicy{Busy: soon, Timeout: soon, Conflict: soon},
		},
		{
			Code: DiskStat, Help: "measure files and free space",
			Priority: threadpool.Low, Timeout: time.Minute, Period: 10 * time.Second, Jitter: 0.1, Retry: maintenance,
		},
		{
			Code: GCLogs, Help: "release log prefixes that nobody needs",
			Priority: threadpool.Low, Timeout: 5 * time.Minute, Period: 10 * time.Second, Jitter: 0.2, Retry: maintenance,
		},
		{
			Code: GCReplicas, Help: "remove the folders of dropped replicas",
			Priority: threadpool.Low, Timeout: 30 * time.Minute, Period: time.Minute, Jitter: 0.2, Retry: maintenance,
		},
		{
			Code: GCValues, Help: "collect the databases' value logs",
			Priority: threadpool.Low, Timeout: 2 * time.Hour, Period: 5 * time.Minute, Jitter: 0.2, Retry: maintenance,
		},
		{
			Code: Checkpoint, Help: "copy one partition at one decree",
			Priority: threadpool.Low, MaxStarted: 4, Timeout: 2 * time.Hour, Period: time.Hour, Jitter: 0.1, Retry: maintenance,
		},
	}
}
