package dup

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"replicanode/bench/load"
)

// Options configures the experiment. The zero value of a field means its default.
type Options struct {
	// Binary is the node's executable. Default: the running one.
	Binary string `json:"-"`
	// Dir is where the nodes' folders are made, one per policy and rate; it must exist. Default: the system's temporary folder.
	Dir string `json:"-"`
	// QPS are the rates of the write load, each 1 to 1,000,000 a second. Default 8000 and 20000.
	QPS []float64 `json:"qps"`
	// Policies are names from Policies. Default: idle, low, parity, common.
	Policies []string `json:"policies"`
	// Partitions of both nodes, 1 to 1024. Default 8.
	Partitions int `json:"partitions"`
	// Workers is the number of slots of the nodes' long pools, 1 to 4096. Default 2: few enough that the checkpoints which a node
	// makes at once can fill them, whatever the machine.
	Workers int `json:"workers"`
	// Connections share the load, 1 to 4096. Default 16.
	Connections int `json:"connections"`
	// Keys is the size of the data set, which is written before each run, 1,000 to 100 million. Default 200,000.
	Keys uint32 `json:"keys"`
	// ValueSize is the size of a value in bytes, 16 to 1 MiB. Default 256.
	ValueSize int `json:"value_size"`
	// BatchBytes bounds one shipped batch (the node's --dup-batch-bytes). Default 0: the node's default.
	BatchBytes int64 `json:"batch_bytes"`
	// TailBytes bounds the in-memory tail of each partition (the node's --dup-tail-bytes); 0, the default, has none, so that
	// everything is loaded from the log.
	TailBytes int64 `json:"tail_bytes"`
	// Seconds is the length of the steady part, 1 to 3600. Default 8.
	Seconds float64 `json:"seconds"`
	// AwaySeconds is how long the backup is away, 0.1 to 3600. Default 2.
	AwaySeconds float64 `json:"away_seconds"`
	// CatchUpSeconds bounds the wait for the backup to catch up, 1 to 3600. Default 6.
	CatchUpSeconds float64 `json:"catchup_limit_seconds"`
	// FailoverSeconds is how long load and storm run before the primary is killed, 0.1 to 3600. Default 2.
	FailoverSeconds float64 `json:"failover_seconds"`
	// ThrottleSeconds is how long a policy with the controller is run with a backup that is slow, 1 to 3600. Default 6.
	ThrottleSeconds float64 `json:"throttle_seconds"`
	// Seed fixes the schedule of writes, their keys and values. Default 0.
	Seed uint64 `json:"seed"`
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if len(o.QPS) == 0 {
		o.QPS = []float64{8000, 20000}
	}
	if len(o.Policies) == 0 {
		o.Policies = defaultPolicies()
	}
	o.Partitions = cmp.Or(o.Partitions, 8)
	o.Workers = cmp.Or(o.Workers, 2)
	o.Connections = cmp.Or(o.Connections, 16)
	o.Keys = cmp.Or(o.Keys, 200_000)
	o.ValueSize = cmp.Or(o.ValueSize, 256)
	o.Seconds = cmp.Or(o.Seconds, 8)
	o.AwaySeconds = cmp.Or(o.AwaySeconds, 2)
	o.CatchUpSeconds = cmp.Or(o.CatchUpSeconds, 6)
	o.FailoverSeconds = cmp.Or(o.FailoverSeconds, 2)
	o.ThrottleSeconds = cmp.Or(o.ThrottleSeconds, 6)
}

// Validate checks every field after EnsureDefaults.
func (o *Options) Validate() error {
	if _, err := findPolicies(o.Policies); err != nil {
		return err
	}
	for i, name := range o.Policies {
		if slices.Contains(o.Policies[:i], name) {
			return fmt.Errorf("policies %q: named twice", name)
		}
	}
	for _, qps := range o.QPS {
		if !(qps >= 1) || qps > 1_000_000 {
			return fmt.Errorf("qps %v: must be between 1 and 1000000", qps)
		}
	}
	for _, f := range []struct {
		name          string
		value, lo, hi float64
	}{
		{"partitions", float64(o.Partitions), 1, 1024},
		{"workers", float64(o.Workers), 1, 4096},
		{"connections", float64(o.Connections), 1, 4096},
		{"keys", float64(o.Keys), 1000, 100_000_000},
		{"value-size", float64(o.ValueSize), load.MinStampedValue + 5, 1 << 20},
		{"batch-bytes", float64(o.BatchBytes), 0, 16 << 20},
		{"tail-bytes", float64(o.TailBytes), 0, 1 << 32},
		{"seconds", o.Seconds, 1, 3600},
		{"away-seconds", o.AwaySeconds, 0.1, 3600},
		{"catchup-seconds", o.CatchUpSeconds, 1, 3600},
		{"failover-seconds", o.FailoverSeconds, 0.1, 3600},
		{"throttle-seconds", o.ThrottleSeconds, 1, 3600},
	} {
		if !(f.value >= f.lo) || f.value > f.hi {
			return fmt.Errorf("%s %v: must be between %v and %v", f.name, f.value, f.lo, f.hi)
		}
	}
	if o.BatchBytes > 0 && o.BatchBytes < 4<<10 {
		return errors.New("batch-bytes: must be at least 4096, or 0 for the node's default")
	}
	return nil
}

func (o *Options) workload() load.Workload {
	w := load.Workload{Keys: o.Keys, ValueSize: o.ValueSize, Writes: 1, Seed: o.Seed}
	w.EnsureDefaults()
	return w
}
