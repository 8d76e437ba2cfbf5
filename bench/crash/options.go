package crash

import (
	"cmp"
	"fmt"
	"time"
)

// Options configures a run. The zero value of a field means its default.
type Options struct {
	// Binary is the node's executable. Default: the running one.
	Binary string `json:"-"`
	// Dir is where the nodes' folders are made; it must exist. Default: a temporary folder, which is removed unless the run
	// finds a violation.
	Dir string `json:"-"`
	// Rounds is how many times somebody dies, 1 to 100,000. Default 50.
	Rounds int `json:"rounds"`
	// Partitions of both nodes, 1 to 1024. Default 8.
	Partitions int `json:"partitions"`
	// Clients is how many connections write at once, 1 to 256. Default 8.
	Clients int `json:"clients"`
	// Keys is how many keys each client owns, 5 to 10,000. Default 60.
	Keys int `json:"keys"`
	// ValueSize bounds the size of values in bytes; each has its own size. 16 to 1 MiB. Default 1024.
	ValueSize int `json:"value_size"`
	// MinLoad and MaxLoad bound how long the load runs before somebody dies. Defaults 50 ms and 1.5 s.
	MinLoad time.Duration `json:"min_load_ns"`
	MaxLoad time.Duration `json:"max_load_ns"`
	// CatchUpTimeout bounds how long the backup may take to show what the primary has. Default 60 s.
	CatchUpTimeout time.Duration `json:"catch_up_timeout_ns"`
	// NodeArgs are further flags of `run` for both nodes. Default: small segments and memtables and a checkpoint every second, so
	// that deaths hit rotation, flushes, log collection and checkpoints too.
	NodeArgs []string `json:"node_args"`
	// Seed fixes who dies when and what is written. Default 0.
	Seed uint64 `json:"seed"`
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	o.Rounds = cmp.Or(o.Rounds, 50)
	o.Partitions = cmp.Or(o.Partitions, 8)
	o.Clients = cmp.Or(o.Clients, 8)
	o.Keys = cmp.Or(o.Keys, 60)
	o.ValueSize = cmp.Or(o.ValueSize, 1024)
	o.MinLoad = cmp.Or(o.MinLoad, 50*time.Millisecond)
	o.MaxLoad = cmp.Or(o.MaxLoad, 1500*time.Millisecond)
	o.CatchUpTimeout = cmp.Or(o.CatchUpTimeout, time.Minute)
	if o.NodeArgs == nil {
		o.NodeArgs = []string{
			"--segment-bytes", "1048576", "--memtable-bytes", "8388608", "--checkpoint-period", "1s", "--checkpoint-keep", "1",
			"--dup-tail-bytes", "65536", "--log-level", "warn",
		}
	}
}

// Validate checks every field after EnsureDefaults.
func (o *Options) Validate() error {
	for _, f := range []struct {
		name          string
		value, lo, hi int
	}{
		{"rounds", o.Rounds, 1, 100_000},
		{"partitions", o.Partitions, 1, 1024},
		{"clients", o.Clients, 1, 256},
		{"keys", o.Keys, int(kinds), 10_000},
		{"value-size", o.ValueSize, minValue, 1 << 20},
	} {
		if f.value < f.lo || f.value > f.hi {
			return fmt.Errorf("%s %d: must be between %d and %d", f.name, f.value, f.lo, f.hi)
		}
	}
	switch {
	case o.MinLoad < 0 || o.MaxLoad < o.MinLoad || o.MaxLoad > time.Hour:
		return fmt.Errorf("load of %v to %v: must be between 0 and 1h, the first not longer than the second", o.MinLoad, o.MaxLoad)
	case o.CatchUpTimeout < 0:
		return fmt.Errorf("catch-up timeout %v: must not be negative", o.CatchUpTimeout)
	}
	return nil
}
