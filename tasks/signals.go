package tasks

import (
	"fmt"
	"slices"
	"time"
)

// Limit is what keeps duplication from being fresher.
type Limit uint8

// The limits.
const (
	// LimitNone: nothing, it keeps up.
	LimitNone Limit = iota
	// LimitScheduling: loading waits for slots. Only this one is helped by a higher priority.
	LimitScheduling
	// LimitDisk: reading the log is slow.
	LimitDisk
	// LimitRemote: the remote does not take more.
	LimitRemote
)

var limitNames = [...]string{"none", "scheduling", "disk", "remote"}

// String returns a stable name.
func (l Limit) String() string {
	if int(l) < len(limitNames) {
		return limitNames[l]
	}
	return fmt.Sprintf("limit(%d)", uint8(l))
}

// MarshalText implements encoding.TextMarshaler.
func (l Limit) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (l *Limit) UnmarshalText(text []byte) error {
	i := slices.Index(limitNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("tasks: unknown limit %q", text)
	}
	*l = Limit(i)
	return nil
}

// Signal is one measurement. The zero Signal is a missing one.
type Signal struct {
	// Value is in the unit its place names.
	Value float64 `json:"value"`
	// At is when it was measured.
	At time.Time `json:"at"`
}

// Measured makes a Signal.
func Measured(value float64, at time.Time) Signal { return Signal{Value: value, At: at} }

// fresh says whether the signal was measured recently enough to act upon.
func (s Signal) fresh(now time.Time, stale time.Duration) bool {
	return !s.At.IsZero() && now.Sub(s.At) <= stale && s.Value == s.Value
}

// Signals are what the controller looks at. Any may be missing: the rules that need it then do nothing, and take back
// what they did.
type Signals struct {
	// Lag is the worst duplication lag in seconds, LagLimit what limits that pipeline.
	Lag      Signal `json:"lag_seconds"`
	LagLimit Limit  `json:"lag_limit"`
	// CommonWait is the 99th percentile of Common tasks' recent waits, in seconds.
	CommonWait Signal `json:"common_wait_seconds"`
	// ForegroundWrite is the 99th percentile of clients' recent write latencies, in seconds.
	ForegroundWrite Signal `json:"foreground_write_seconds"`
	// DiskFree is the free share of the data folder's disk, 0 to 1.
	DiskFree Signal `json:"disk_free"`
	// LogBytes is the size of all private logs kept.
	LogBytes Signal `json:"log_bytes"`
	// CheckpointAge is the age in seconds of the oldest partition's last checkpoint, when that is what keeps log GC from
	// releasing more; else 0.
	CheckpointAge Signal `json:"checkpoint_age_seconds"`
}
