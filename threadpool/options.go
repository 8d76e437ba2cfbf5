package threadpool

import (
	"cmp"
	"fmt"
	"log/slog"
	"math"
	"runtime"
	"time"
)

// Guards are the rules that bend strict priority so that nobody starves. A zero field switches its rule off:
// Guards{} is strict priority, first in first out, nothing else.
type Guards struct {
	// MaxWait is how long a task waits before it is treated one level higher; after twice MaxWait it is treated
	// two levels higher. At most 365 days; 0: no aging. Default 30 s.
	MaxWait time.Duration `json:"max_wait"`
	// LowShare is the share of all slot time that Low tasks get however long higher levels are saturated,
	// 0 to 0.5. 0: no share. Default 0.05.
	LowShare float64 `json:"low_share"`
	// CommonReserve is the number of slots Low tasks may not take. It is clamped so that Low keeps one slot;
	// with a single slot yielding alone protects the others. 0: no reserve. Default 1.
	CommonReserve int `json:"common_reserve"`
	// HighReserve is the number of slots Low and Common tasks may not take, clamped likewise. 0: no reserve.
	// Default 0.
	HighReserve int `json:"high_reserve"`
}

// maxMaxWait keeps sums of it within a time.Duration.
const maxMaxWait = 365 * 24 * time.Hour

// DefaultGuards returns the guards of a pool whose Options name none.
func DefaultGuards() Guards {
	return Guards{MaxWait: 30 * time.Second, LowShare: 0.05, CommonReserve: 1}
}

// Validate reports the first field out of range.
func (g Guards) Validate() error {
	switch {
	case g.MaxWait < 0 || g.MaxWait > maxMaxWait:
		return fmt.Errorf("guards: MaxWait %v is not within 0 and %v", g.MaxWait, maxMaxWait)
	case math.IsNaN(g.LowShare) || g.LowShare < 0 || g.LowShare > 0.5:
		return fmt.Errorf("guards: LowShare %v is not within 0 and 0.5", g.LowShare)
	case g.CommonReserve < 0:
		return fmt.Errorf("guards: CommonReserve %d is negative", g.CommonReserve)
	case g.HighReserve < 0:
		return fmt.Errorf("guards: HighReserve %d is negative", g.HighReserve)
	}
	return nil
}

// CodeLimits bounds the tasks of one code. 0 means no bound.
type CodeLimits struct {
	// MaxRunning bounds the tasks that hold a slot.
	MaxRunning int `json:"max_running"`
	// MaxStarted bounds the tasks that have started and not finished, parked ones included. It is the bound for
	// tasks that hold memory or files while parked.
	MaxStarted int `json:"max_started"`
	// MaxQueued bounds the tasks that wait to be started.
	MaxQueued int `json:"max_queued"`
}

// Validate reports the first field out of range.
func (l CodeLimits) Validate() error {
	if l.MaxRunning < 0 || l.MaxStarted < 0 || l.MaxQueued < 0 {
		return fmt.Errorf("code limits %+v: a bound is negative", l)
	}
	return nil
}

// IORate is the budget of bytes that Low and Common tasks may charge with Turn.Yield. High tasks are exempt. The zero
// value is unlimited.
type IORate struct {
	// BytesPerSecond is the budget of both levels together. 0: unlimited, but for LowCap. Default 0.
	BytesPerSecond int64 `json:"bytes_per_second"`
	// LowFloor is the part of the budget that belongs to Low first, 0.01 to 0.99; Common owns the rest and either may use
	// what the other leaves. Default 0.1.
	LowFloor float64 `json:"low_floor"`
	// LowCap bounds Low alone, in bytes per second, whatever Common leaves. 0: no bound. Default 0.
	LowCap int64 `json:"low_cap"`
	// Burst is how many unused bytes each level may save up. Default: a tenth of a second of BytesPerSecond,
	// at least 64 KiB.
	Burst int64 `json:"burst"`
}

// EnsureDefaults fills the fields that are zero.
func (r *IORate) EnsureDefaults() {
	r.LowFloor = cmp.Or(r.LowFloor, 0.1)
	if r.Burst == 0 {
		r.Burst = max(r.BytesPerSecond/10, 64<<10)
		if r.BytesPerSecond == 0 {
			r.Burst = max(r.LowCap/10, 64<<10)
		}
	}
}

// Validate reports the first field out of range.
func (r IORate) Validate() error {
	switch {
	case r.BytesPerSecond < 0 || r.BytesPerSecond > 1<<50:
		return fmt.Errorf("I/O rate: BytesPerSecond %d is not within 0 and 2^50", r.BytesPerSecond)
	case math.IsNaN(r.LowFloor) || r.LowFloor < 0.01 || r.LowFloor > 0.99:
		return fmt.Errorf("I/O rate: LowFloor %v is not within 0.01 and 0.99", r.LowFloor)
	case r.LowCap < 0 || r.LowCap > 1<<50:
		return fmt.Errorf("I/O rate: LowCap %d is not within 0 and 2^50", r.LowCap)
	case r.Burst < 1 || r.Burst > 1<<50:
		return fmt.Errorf("I/O rate: Burst %d is not within 1 and 2^50", r.Burst)
	}
	return nil
}

// Options configure a Pool. The zero value is usable.
type Options struct {
	// Workers is the number of slots, 1 to 65536. Default: GOMAXPROCS.
	Workers int
	// MaxRunning bounds, per level, the tasks that hold a slot. 0: no bound. Default 0.
	MaxRunning Levels
	// MaxQueued bounds, per level, the tasks that wait to be started. Default 100,000 each.
	MaxQueued Levels
	// MaxParked bounds, per level, the tasks that have started and given their slot away: while a level has that
	// many, none of its tasks is started. Default 1,024.
	MaxParked int
	// Guards bend strict priority so that nobody starves. nil: DefaultGuards. Use &Guards{} for none.
	Guards *Guards
	// Slice is how long a task may work between two calls of Turn.Yield, 100 µs to 1 min. Default 10 ms.
	Slice time.Duration
	// IO is the budget for bytes charged by tasks. Default: unlimited.
	IO IORate
	// Codes holds limits known from the start. Codes not named here have none.
	Codes map[string]CodeLimits
	// MaxCodes bounds the number of different task codes, 1 to 4096. Default 256.
	MaxCodes int
	// Decisions is how many of the last decisions Explain can show, 1 to 65536. Default 256.
	Decisions int
	// NoTiming switches off the wait and run histograms, and with them most looks at the clock: slot time, aging and shares are
	// then kept to about a millisecond. Counters stay.
	NoTiming bool
	// NoProfileLabels switches off the runtime/pprof label "task" that splits CPU profiles by code.
	NoProfileLabels bool
	// TraceRegions marks each task as a region when runtime/trace is on.
	TraceRegions bool
	// OnStuck, if set, is told once about each task that ran past its timeout. It must not block.
	OnStuck func(StuckTask)
	// Logger receives one line per event worth an operator's attention. nil: none.
	Logger *slog.Logger
}

// EnsureDefaults fills the fields that are zero.
func (o *Options) EnsureDefaults() {
	o.Workers = cmp.Or(o.Workers, runtime.GOMAXPROCS(0))
	for i := range o.MaxQueued {
		o.MaxQueued[i] = cmp.Or(o.MaxQueued[i], 100_000)
	}
	o.MaxParked = cmp.Or(o.MaxParked, 1024)
	if o.Guards == nil {
		g := DefaultGuards()
		o.Guards = &g
	}
	o.Slice = cmp.Or(o.Slice, 10*time.Millisecond)
	o.IO.EnsureDefaults()
	o.MaxCodes = cmp.Or(o.MaxCodes, 256)
	o.Decisions = cmp.Or(o.Decisions, 256)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate reports the first field out of range. It expects EnsureDefaults to have run.
func (o *Options) Validate() error {
	if err := validateWorkers(o.Workers); err != nil {
		return fmt.Errorf("threadpool options: %w", err)
	}
	for p := Low; p <= High; p++ {
		if o.MaxRunning[p] < 0 {
			return fmt.Errorf("threadpool options: MaxRunning of level %s is negative", p)
		}
		if o.MaxQueued[p] < 1 {
			return fmt.Errorf("threadpool options: MaxQueued of level %s must be at least 1", p)
		}
	}
	switch {
	case o.MaxParked < 1:
		return fmt.Errorf("threadpool options: MaxParked %d must be at least 1", o.MaxParked)
	case o.Slice < 100*time.Microsecond || o.Slice > time.Minute:
		return fmt.Errorf("threadpool options: Slice %v is not within 100µs and 1m", o.Slice)
	case o.MaxCodes < 1 || o.MaxCodes > 4096:
		return fmt.Errorf("threadpool options: MaxCodes %d is not within 1 and 4096", o.MaxCodes)
	case len(o.Codes) > o.MaxCodes:
		return fmt.Errorf("threadpool options: limits for %d codes, but MaxCodes is %d", len(o.Codes), o.MaxCodes)
	case o.Decisions < 1 || o.Decisions > 65536:
		return fmt.Errorf("threadpool options: Decisions %d is not within 1 and 65536", o.Decisions)
	}
	for code, l := range o.Codes {
		if err := l.Validate(); err != nil {
			return fmt.Errorf("threadpool options: code %s: %w", code, err)
		}
	}
	if err := o.Guards.Validate(); err != nil {
		return fmt.Errorf("threadpool options: %w", err)
	}
	if err := o.IO.Validate(); err != nil {
		return fmt.Errorf("threadpool options: %w", err)
	}
	return nil
}

func validateWorkers(n int) error {
	if n < 1 || n > 65536 {
		return fmt.Errorf("workers %d is not within 1 and 65536", n)
	}
	return nil
}
