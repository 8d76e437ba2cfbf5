// Package checkpointbench measures what checkpoints cost and how fast they are made.
//
//	o := checkpointbench.Options{Dir: dir}
//	o.EnsureDefaults()
//	results, err := checkpointbench.Run(ctx, o)
//
// Groups of measurements, each with the names of its results:
//
//   - slow: partitions into a store that answers every call after Options.Latency, one by one and in parallel
//     (slow_store_sequential, slow_store_parallel);
//   - local: the same into a folder (local_sequential, local_parallel), and beside it what badger's own backup of the same
//     databases to the same disk takes (badger_backup);
//   - incremental: a full checkpoint of everything, and one after a hundredth of the keys changed (full, incremental);
//   - foreground: clients' latencies and the lag of a backup cluster, without and with checkpoints of the whole node one after
//     another (foreground_alone, foreground_checkpoints), in turns in one load that does not stop.
//
// The first three run in this process, on databases set up as a node's are, with a long pool as a node has it. The last runs
// nodes as processes of their own. Of the repeated ones the best round counts.
package checkpointbench

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// Groups lists the values of Options.Only.
func Groups() []string { return []string{"slow", "local", "incremental", "foreground"} }

// Names lists the names of results.
func Names() []string {
	return []string{"slow_store_sequential", "slow_store_parallel", "local_sequential", "local_parallel", "badger_backup",
		"full", "incremental", "foreground_alone", "foreground_checkpoints"}
}

// Options say what to measure.
type Options struct {
	// Only restricts the run to some Groups. Default all.
	Only []string `json:"only"`
	// Dir is on the disk to be measured; all data is in a folder below, removed afterwards. Default: the system's temporary folder.
	Dir string `json:"-"`
	// Partitions is their number, 1 to 1024. Default 64.
	Partitions int `json:"partitions"`
	// Keys is how many keys all partitions have together, at least Partitions. Default 400,000.
	Keys int `json:"keys"`
	// IncrementalKeys is how many keys all partitions of the incremental group have together, at least NodePartitions. Default
	// 2,000,000: 72 MB a partition, several memtables. An incremental checkpoint looks at every entry of the memtable, whose size
	// does not depend on the keys, so beside a full one of a single memtable nothing would be saved.
	IncrementalKeys int `json:"incremental_keys"`
	// ValueSize is the size of a value in bytes, 1 to 65536. Default 256.
	ValueSize int `json:"value_size"`
	// Latency is how long the slow store takes for each call. Default 20 ms.
	Latency time.Duration `json:"latency_ns"`
	// Parallel bounds the checkpoints made at once in the parallel runs. Default 32, as a node's.
	Parallel int `json:"parallel"`
	// Workers is the number of slots of the long pool. Default 4, as a node's.
	Workers int `json:"workers"`
	// Rounds is how often the local runs are repeated. Default 3.
	Rounds int `json:"rounds"`
	// QPS is the rate of the foreground load, half of it writes. Default 8000.
	QPS float64 `json:"qps"`
	// Seconds is for how long at least checkpoints are made beside the foreground, one at a time, each between two parts without: as
	// long as the one before, but at most half of it. Default 20.
	Seconds float64 `json:"seconds"`
	// NodePartitions is the number of partitions of the foreground's nodes and of the incremental group. Default 8.
	NodePartitions int `json:"node_partitions"`
	// Binary is the executable for the foreground's nodes. Default: the running one.
	Binary string `json:"-"`
	// Progress, if set, is told what is measured next.
	Progress func(what string) `json:"-"`
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	if len(o.Only) == 0 {
		o.Only = Groups()
	}
	o.Partitions = cmp.Or(o.Partitions, 64)
	o.Keys = cmp.Or(o.Keys, 400_000)
	o.IncrementalKeys = cmp.Or(o.IncrementalKeys, 2_000_000)
	o.ValueSize = cmp.Or(o.ValueSize, 256)
	o.Latency = cmp.Or(o.Latency, 20*time.Millisecond)
	o.Parallel = cmp.Or(o.Parallel, 32)
	o.Workers = cmp.Or(o.Workers, 4)
	o.Rounds = cmp.Or(o.Rounds, 3)
	o.QPS = cmp.Or(o.QPS, 8000)
	o.Seconds = cmp.Or(o.Seconds, 20)
	o.NodePartitions = cmp.Or(o.NodePartitions, 8)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
}

// Validate reports the first field out of range, after EnsureDefaults.
func (o *Options) Validate() error {
	for _, only := range o.Only {
		if !slices.Contains(Groups(), only) {
			return fmt.Errorf("%q is not measured; there are %s", only, strings.Join(Groups(), ", "))
		}
	}
	for _, r := range []struct {
		name      string
		v         float64
		low, high float64
	}{
		{"partitions", float64(o.Partitions), 1, 1024},
		{"keys", float64(o.Keys), float64(o.Partitions), 1e9},
		{"incremental keys", float64(o.IncrementalKeys), float64(o.NodePartitions), 1e9},
		{"value size", float64(o.ValueSize), 1, 65536},
		{"latency", o.Latency.Seconds(), 0, 10},
		{"parallel", float64(o.Parallel), 1, 1024},
		{"workers", float64(o.Workers), 1, 4096},
		{"rounds", float64(o.Rounds), 1, 1000},
		{"qps", o.QPS, 1, 1e7},
		{"seconds", o.Seconds, 0.1, 86400},
		{"node partitions", float64(o.NodePartitions), 1, 1024},
	} {
		if !(r.v >= r.low && r.v <= r.high) {
			return fmt.Errorf("%s %v is not within %v and %v", r.name, r.v, r.low, r.high)
		}
	}
	return nil
}

// Result is one measurement. Fields that do not apply are left out.
type Result struct {
	// Name is one of Names.
	Name string `json:"name"`
	// Seconds is how long it took.
	Seconds float64 `json:"seconds"`
	// RawBytes are those of keys and values copied, Bytes those written.
	RawBytes uint64 `json:"raw_bytes,omitempty"`
	Bytes    int64  `json:"bytes,omitempty"`
	// RawBytesPerSecond is RawBytes by Seconds.
	RawBytesPerSecond float64 `json:"raw_bytes_per_second,omitempty"`
	// Speedup is how many times faster than one by one.
	Speedup float64 `json:"speedup,omitempty"`
	// OfBackup is the speed as a part of that of badger's backup.
	OfBackup float64 `json:"of_backup,omitempty"`
	// OfFullBytes and OfFullSeconds are an incremental checkpoint as a part of the full one.
	OfFullBytes   float64 `json:"of_full_bytes,omitempty"`
	OfFullSeconds float64 `json:"of_full_seconds,omitempty"`
	// Checkpoints of the whole node were made during a foreground measurement.
	Checkpoints int `json:"checkpoints,omitempty"`
	// Latencies of clients and the lag of the backup, p99 and median, in milliseconds, and as multiples of those without checkpoints.
	ReadP99Ms   float64 `json:"read_p99_ms,omitempty"`
	WriteP99Ms  float64 `json:"write_p99_ms,omitempty"`
	LagP99Ms    float64 `json:"lag_p99_ms,omitempty"`
	ReadFactor  float64 `json:"read_factor,omitempty"`
	WriteFactor float64 `json:"write_factor,omitempty"`
	LagFactor   float64 `json:"lag_factor,omitempty"`

	ReadMedianMs      float64 `json:"read_median_ms,omitempty"`
	WriteMedianMs     float64 `json:"write_median_ms,omitempty"`
	LagMedianMs       float64 `json:"lag_median_ms,omitempty"`
	ReadMedianFactor  float64 `json:"read_median_factor,omitempty"`
	WriteMedianFactor float64 `json:"write_median_factor,omitempty"`
	LagMedianFactor   float64 `json:"lag_median_factor,omitempty"`

	// Windows of 2 s were taken; of their p99 the median, which a disk that stands still now and then does not decide.
	Windows           int     `json:"windows,omitempty"`
	ReadWindowMs      float64 `json:"read_window_p99_ms,omitempty"`
	WriteWindowMs     float64 `json:"write_window_p99_ms,omitempty"`
	LagWindowMs       float64 `json:"lag_window_p99_ms,omitempty"`
	ReadWindowFactor  float64 `json:"read_window_factor,omitempty"`
	WriteWindowFactor float64 `json:"write_window_factor,omitempty"`
	LagWindowFactor   float64 `json:"lag_window_factor,omitempty"`

	Errors uint64 `json:"errors,omitempty"`
}

// String is one line for people.
func (r Result) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-24s %8.3f s", r.Name, r.Seconds)
	add := func(show bool, format string, args ...any) {
		if show {
			fmt.Fprintf(&b, format, args...)
		}
	}
	add(r.RawBytesPerSecond > 0, "  %7.1f MB/s", r.RawBytesPerSecond/1e6)
	add(r.Bytes > 0, "  %d bytes", r.Bytes)
	add(r.Speedup > 0, "  %.2f x one by one", r.Speedup)
	add(r.OfBackup > 0, "  %.0f %% of badger's backup", 100*r.OfBackup)
	add(r.OfFullBytes > 0, "  %.1f %% of the bytes and %.1f %% of the time of a full one", 100*r.OfFullBytes, 100*r.OfFullSeconds)
	add(r.WriteP99Ms > 0, "  p99 read %.2f ms, write %.2f ms, lag %.2f ms", r.ReadP99Ms, r.WriteP99Ms, r.LagP99Ms)
	add(r.WriteFactor > 0, " (%.2f x, %.2f x, %.2f x)", r.ReadFactor, r.WriteFactor, r.LagFactor)
	add(r.WriteP99Ms > 0, "; median %.2f, %.2f, %.2f ms", r.ReadMedianMs, r.WriteMedianMs, r.LagMedianMs)
	add(r.WriteFactor > 0, " (%.2f x, %.2f x, %.2f x); %d checkpoints", r.ReadMedianFactor, r.WriteMedianFactor, r.LagMedianFactor, r.Checkpoints)
	add(r.Windows > 0, "; median p99 of %d windows %.2f, %.2f, %.2f ms", r.Windows, r.ReadWindowMs, r.WriteWindowMs, r.LagWindowMs)
	add(r.WriteWindowFactor > 0, " (%.2f x, %.2f x, %.2f x)", r.ReadWindowFactor, r.WriteWindowFactor, r.LagWindowFactor)
	add(r.Errors > 0, "  %d errors", r.Errors)
	return b.String()
}

// Run measures. What was measured before an error is returned with it.
func Run(ctx context.Context, o Options) (results []Result, err error) {
	if o.Dir == "" {
		o.Dir = os.TempDir()
	}
	if o.Dir, err = os.MkdirTemp(o.Dir, "checkpointbench-*"); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(o.Dir); err == nil && rerr != nil {
			err = fmt.Errorf("remove folder: %w", rerr)
		}
	}()
	for _, group := range []struct {
		name string
		run  func(context.Context, *Options) ([]Result, error)
	}{{"slow", slowStore}, {"local", local}, {"incremental", incremental}, {"foreground", foreground}} {
		if !slices.Contains(o.Only, group.name) {
			continue
		}
		some, err := group.run(ctx, &o)
		results = append(results, some...)
		if err != nil {
			return results, fmt.Errorf("measure %s: %w", group.name, err)
		}
	}
	return results, nil
}
