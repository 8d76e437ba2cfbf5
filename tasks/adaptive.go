package tasks

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"replicanode/threadpool"
)

// AdaptiveOptions configure the controller.
type AdaptiveOptions struct {
	// Enabled turns it on at Start. Default off.
	Enabled bool
	// Source measures. It is called once per tick and must not block. Without one the controller changes nothing.
	Source func() Signals
	// Tick is the interval of decisions, 10 ms to 10 s. Default 250 ms.
	Tick time.Duration
	// Stale is the age at which a signal counts as missing. Default 5 s.
	Stale time.Duration
	// LagTarget is the lag above which loading is promoted, if scheduling limits it. Default 2 s.
	LagTarget time.Duration
	// WaitTarget is the Common wait p99 above which Low shrinks. Default 50 ms.
	WaitTarget time.Duration
	// ForegroundTarget is the write p99 above which Low shrinks. Default 50 ms.
	ForegroundTarget time.Duration
	// DiskLow is the free share below which GC goes above loading. Default 0.15.
	DiskLow float64
	// LogBytesTarget is the size of the logs above which log GC goes to Common. 0: no rule. Default 0.
	LogBytesTarget int64
	// CheckpointAgeTarget is the age above which a checkpoint that blocks log GC goes to Common. Default 2 h.
	CheckpointAgeTarget time.Duration
	// Hysteresis is how far beyond its target, as a part of it, a signal must recover before a step is taken back. Default 0.25.
	Hysteresis float64
	// Dwell is the shortest time a priority stays before it is moved back. Default 5 s.
	Dwell time.Duration
	// MinLow is the smallest part of its slots and I/O rate that Low is shrunk to. Default 0.1; it always keeps one slot.
	MinLow float64
	// LowIORate is the bytes per second that the whole of Low's I/O rate stands for. Default 256 MiB/s.
	LowIORate int64
}

// EnsureDefaults fills the fields that are zero.
func (o *AdaptiveOptions) EnsureDefaults() {
	duration := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	duration(&o.Tick, 250*time.Millisecond)
	duration(&o.Stale, 5*time.Second)
	duration(&o.LagTarget, 2*time.Second)
	duration(&o.WaitTarget, 50*time.Millisecond)
	duration(&o.ForegroundTarget, 50*time.Millisecond)
	duration(&o.CheckpointAgeTarget, 2*time.Hour)
	duration(&o.Dwell, 5*time.Second)
	o.DiskLow = cmp.Or(o.DiskLow, 0.15)
	o.Hysteresis = cmp.Or(o.Hysteresis, 0.25)
	o.MinLow = cmp.Or(o.MinLow, 0.1)
	o.LowIORate = cmp.Or(o.LowIORate, 256<<20)
}

// Validate reports the first field out of range.
func (o *AdaptiveOptions) Validate() error {
	switch {
	case o.Tick < 10*time.Millisecond || o.Tick > 10*time.Second:
		return fmt.Errorf("adaptive: Tick %v is not within 10ms and 10s", o.Tick)
	case o.Stale < o.Tick:
		return fmt.Errorf("adaptive: Stale %v is shorter than Tick", o.Stale)
	case o.LagTarget <= 0 || o.WaitTarget <= 0 || o.ForegroundTarget <= 0 || o.CheckpointAgeTarget <= 0 || o.Dwell < 0:
		return errors.New("adaptive: a target is not positive")
	case !(o.DiskLow > 0 && o.DiskLow < 0.8):
		return fmt.Errorf("adaptive: DiskLow %v is not between 0 and 0.8", o.DiskLow)
	case !(o.Hysteresis > 0 && o.Hysteresis < 1):
		return fmt.Errorf("adaptive: Hysteresis %v is not between 0 and 1", o.Hysteresis)
	case !(o.MinLow > 0 && o.MinLow <= 1):
		return fmt.Errorf("adaptive: MinLow %v is not within 0 and 1", o.MinLow)
	case o.LowIORate < 1:
		return fmt.Errorf("adaptive: LowIORate %d is not positive", o.LowIORate)
	case o.LogBytesTarget < 0:
		return fmt.Errorf("adaptive: LogBytesTarget %d is negative", o.LogBytesTarget)
	}
	return nil
}

// AdaptiveReason is why the controller changed something.
type AdaptiveReason uint8

// The reasons.
const (
	// LagOverTarget: duplication is late and scheduling limits it: loading to High.
	LagOverTarget AdaptiveReason = iota
	// LagRecovered: it is not late any more, or something else limits it: loading back.
	LagRecovered
	// DiskLow: space is short: GC to High, loading no higher than configured.
	DiskLow
	// DiskRecovered: GC back.
	DiskRecovered
	// LogsOverTarget: the logs are too big: log GC to Common.
	LogsOverTarget
	// LogsRecovered: log GC back.
	LogsRecovered
	// CheckpointOld: an old checkpoint keeps log GC from releasing: checkpoint to Common.
	CheckpointOld
	// CheckpointFresh: checkpoint back.
	CheckpointFresh
	// ForegroundOverTarget: clients' writes are slow: Low shrinks.
	ForegroundOverTarget
	// WaitOverTarget: Common tasks wait too long: Low shrinks.
	WaitOverTarget
	// PressureGone: neither: Low grows back by a small step.
	PressureGone
	// SignalsStale: a rule's signals are missing: what it did is taken back.
	SignalsStale
	// TurnedOff: the controller was turned off: everything back.
	TurnedOff
)

var adaptiveReasonNames = [...]string{
	"lag_over_target", "lag_recovered", "disk_low", "disk_recovered", "logs_over_target", "logs_recovered", "checkpoint_old",
	"checkpoint_fresh", "foreground_over_target", "wait_over_target", "pressure_gone", "signals_stale", "turned_off",
}

// String returns a stable name.
func (r AdaptiveReason) String() string {
	if int(r) < len(adaptiveReasonNames) {
		return adaptiveReasonNames[r]
	}
	return fmt.Sprintf("reason(%d)", uint8(r))
}

// MarshalText implements encoding.TextMarshaler.
func (r AdaptiveReason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (r *AdaptiveReason) UnmarshalText(text []byte) error {
	i := slices.Index(adaptiveReasonNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("tasks: unknown reason %q", text)
	}
	*r = AdaptiveReason(i)
	return nil
}

// AdaptiveDecision is one change the controller made.
type AdaptiveDecision struct {
	At     time.Time      `json:"at"`
	Reason AdaptiveReason `json:"reason"`
	// Lever is what was moved: a code's priority, or "low" for Low's slots and I/O rate.
	Lever string `json:"lever"`
	// From and To are levels by name, or the part of its slots and rate left to Low.
	From string `json:"from"`
	To   string `json:"to"`
	// Signal is the value decided upon, in its own unit.
	Signal float64 `json:"signal"`
}

// AdaptiveStatus is what the controller has in force.
type AdaptiveStatus struct {
	Enabled bool    `json:"enabled"`
	Signals Signals `json:"signals"`
	// Levels are the priorities it has moved, by code.
	Levels map[Code]threadpool.Priority `json:"levels,omitempty"`
	// Low is the part of its slots and I/O rate left to Low, 1 when untouched.
	Low float64 `json:"low"`
	// Decisions are the last ones, oldest first, at most 100.
	Decisions []AdaptiveDecision `json:"decisions,omitempty"`
}

// String is the status in a few words.
func (s AdaptiveStatus) String() string {
	if !s.Enabled {
		return "adaptive off"
	}
	out := fmt.Sprintf("adaptive on, low at %.0f%%", s.Low*100)
	for _, c := range sortedCodes(s.Levels) {
		out += fmt.Sprintf(", %s to %s", c, s.Levels[c])
	}
	if n := len(s.Decisions); n > 0 {
		out += fmt.Sprintf(", last by %s", s.Decisions[n-1].Reason)
	}
	return out
}
