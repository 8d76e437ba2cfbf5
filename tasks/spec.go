package tasks

import (
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

// Backoff is a schedule of retries: the n-th wait is drawn uniformly from 0 to min(Max, Initial·Factor^n).
type Backoff struct {
	// Initial is the bound of the first wait. 0: errors of this kind are not retried.
	Initial time.Duration `json:"initial"`
	// Max bounds every wait. Default: 60 × Initial.
	Max time.Duration `json:"max"`
	// Factor is the growth per attempt, 1 to 10. Default 2.
	Factor float64 `json:"factor"`
	// MaxAttempts bounds the attempts, the first included. 0: no bound.
	MaxAttempts int `json:"max_attempts"`
	// MaxElapsed bounds the time since the first failure. 0: no bound.
	MaxElapsed time.Duration `json:"max_elapsed"`
}

// RetryPolicy says how a job is retried, by kind of error. Permanent errors never are.
type RetryPolicy struct {
	// Busy is for errors that say the other side is overloaded.
	Busy Backoff `json:"busy"`
	// Timeout is for attempts that took too long.
	Timeout Backoff `json:"timeout"`
	// Conflict is for errors that another attempt at once may well not see.
	Conflict Backoff `json:"conflict"`
	// Other is for all other errors.
	Other Backoff `json:"other"`
}

// Spec is everything known about one code.
type Spec struct {
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
	// Timeout bounds one attempt. 0: no bound.
	Timeout time.Duration `json:"timeout"`
	// Slice is how long a task works between two yields. 0: the pool's.
	Slice time.Duration `json:"slice"`
	// Period is the interval of periodic runs, counted from the end of one to the start of the next. 0: only when triggered.
	Period time.Duration `json:"period"`
	// Jitter is the part of Period by which each interval varies either way, 0 to 1.
	Jitter float64 `json:"jitter"`
	// Retry says how failed attempts are retried.
	Retry RetryPolicy `json:"retry"`
}

// DefaultSpecs returns the specs of a replica node's codes.
func DefaultSpecs() []Spec {
	soon := Backoff{Initial: 100 * time.Millisecond, Max: 10 * time.Second, Factor: 2}
	once := Backoff{Initial: time.Second, Max: time.Minute, Factor: 2, MaxAttempts: 5}
	maintenance := RetryPolicy{Busy: once, Timeout: once, Conflict: once, Other: once}
	return []Spec{
		{Code: OpenReplica, Help: "open a partition's log and database at start-up", Priority: threadpool.High, Timeout: 10 * time.Minute,
			Retry: RetryPolicy{Busy: soon}},
		{Code: LoadPrivateLog, Help: "read the private log for a duplication that is behind its in-memory tail", Priority: threadpool.Common,
			Timeout: time.Minute, Retry: RetryPolicy{Busy: soon, Timeout: soon, Conflict: soon}},
		{Code: DiskStat, Help: "measure files and free space", Priority: threadpool.Low, Timeout: time.Minute, Period: 10 * time.Second, Jitter: 0.1, Retry: maintenance},
		{Code: GCLogs, Help: "release log prefixes that nobody needs", Priority: threadpool.Low, Timeout: 5 * time.Minute, Period: 10 * time.Second, Jitter: 0.2, Retry: maintenance},
		{Code: GCReplicas, Help: "remove the folders of dropped replicas", Priority: threadpool.Low, Timeout: 30 * time.Minute, Period: time.Minute, Jitter: 0.2, Retry: maintenance},
		{Code: GCValues, Help: "collect the databases' value logs", Priority: threadpool.Low, Timeout: 30 * time.Minute, Period: 5 * time.Minute, Jitter: 0.2, Retry: maintenance},
		{Code: Checkpoint, Help: "copy one partition at one decree", Priority: threadpool.Low, MaxStarted: 4, Timeout: 2 * time.Hour, Period: time.Hour, Jitter: 0.1, Retry: maintenance},
	}
}
