package tasks

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"replicanode/threadpool"
)

// levers are what the controller moves.
type levers interface {
	// moveLevel gives a code another level, or with back its configured one.
	moveLevel(c Code, to threadpool.Priority, back bool)
	// shrinkLow leaves Low the given part of its slots and I/O rate; 1 is all that is configured.
	shrinkLow(part float64)
}

// policy is the controller without clock and goroutine: each step looks at the signals and moves levers.
//
// Levels move by switches: on at the target, off beyond the hysteresis, never off before the dwell time has passed, and
// each next dwell twice as long as the last when a switch comes on again soon after it went off. Low's part moves in
// steps: ×0.7 at most every second tick under pressure, +0.05 at most every two seconds without. A part that brought
// pressure back is remembered as a ceiling, and tried again only after a time that doubles with each failure. Both
// together keep the loop from oscillating around a load that is just too much.
type policy struct {
	o          AdaptiveOptions
	levers     levers
	configured func(Code) (threadpool.Priority, bool)
	decided    func(AdaptiveDecision)

	levels map[Code]threadpool.Priority
	lag    toggle
	// scheduled counts the ticks in a row at which scheduling limited the lag.
	scheduled  int
	disk       toggle
	logs       toggle
	checkpoint toggle

	low         float64
	lowCeiling  float64
	probeAfter  time.Duration
	probeAt     time.Time
	lowMovedAt  time.Time
	lowRelaxing bool
}

const (
	lowTighten    = 0.7
	lowRelax      = 0.05
	lowRelaxEvery = 2 * time.Second
	firstProbe    = 15 * time.Second
	longestProbe  = 10 * time.Minute
	longestDwell  = 10 * time.Minute
	// scheduledTicks is how many ticks in a row scheduling must limit the lag before loading is promoted.
	scheduledTicks = 2
)

func newPolicy(o AdaptiveOptions, l levers, configured func(Code) (threadpool.Priority, bool), decided func(AdaptiveDecision)) *policy {
	p := &policy{o: o, levers: l, configured: configured, decided: decided, levels: map[Code]threadpool.Priority{}, low: 1, lowCeiling: 1, probeAfter: firstProbe}
	for _, t := range []*toggle{&p.lag, &p.disk, &p.logs, &p.checkpoint} {
		t.dwell = o.Dwell
	}
	return p
}

// toggle is a switch with hysteresis and a dwell time that grows when it flaps.
type toggle struct {
	on    bool
	at    time.Time
	dwell time.Duration
}

// decide moves the switch: over turns it on, under turns it off once the dwell time has passed.
func (t *toggle) decide(over, under bool, now time.Time, base time.Duration) (changed bool) {
	switch {
	case !t.on && over:
		if !t.at.IsZero() && now.Sub(t.at) < 2*t.dwell {
			t.dwell = min(2*t.dwell, longestDwell)
		} else {
			t.dwell = base
		}
	case t.on && under && now.Sub(t.at) >= t.dwell:
	default:
		return false
	}
	t.on, t.at = !t.on, now
	return true
}

// step makes the decisions of one tick. The order is that of urgency: space, then freshness, then comfort.
func (p *policy) step(now time.Time, s Signals) {
	p.stepDisk(now, s)
	p.stepLogs(now, s)
	p.stepCheckpoint(now, s)
	p.stepLag(now, s)
	p.stepLow(now, s)
}

// stepToggle runs one rule that hangs on one signal.
func (p *policy) stepToggle(t *toggle, now time.Time, s Signal, over, under bool, on, off AdaptiveReason, codes []Code, to threadpool.Priority) {
	if !s.fresh(now, p.o.Stale) {
		if t.on {
			t.on, t.at = false, now
			p.restore(now, codes, SignalsStale, s.Value)
		}
		return
	}
	if !t.decide(over, under, now, p.o.Dwell) {
		return
	}
	if t.on {
		p.raise(now, codes, to, on, s.Value)
		return
	}
	p.restore(now, codes, off, s.Value)
}

func (p *policy) stepDisk(now time.Time, s Signals) {
	free := s.DiskFree.Value
	p.stepToggle(&p.disk, now, s.DiskFree, free < p.o.DiskLow, free > p.o.DiskLow*(1+p.o.Hysteresis), DiskLow, DiskRecovered,
		[]Code{GCLogs, GCReplicas, GCValues}, threadpool.High)
}

func (p *policy) stepLogs(now time.Time, s Signals) {
	if p.disk.on {
		// Log GC is above anything this rule would ask for; afterwards the rule begins anew.
		p.logs = toggle{dwell: p.o.Dwell}
		return
	}
	if p.o.LogBytesTarget == 0 {
		return
	}
	size, target := s.LogBytes.Value, float64(p.o.LogBytesTarget)
	p.stepToggle(&p.logs, now, s.LogBytes, size > target, size < target*(1-p.o.Hysteresis), LogsOverTarget, LogsRecovered,
		[]Code{GCLogs}, threadpool.Common)
}

func (p *policy) stepCheckpoint(now time.Time, s Signals) {
	age, target := s.CheckpointAge.Value, p.o.CheckpointAgeTarget.Seconds()
	p.stepToggle(&p.checkpoint, now, s.CheckpointAge, age > target, age < target*(1-p.o.Hysteresis), CheckpointOld, CheckpointFresh,
		[]Code{Checkpoint}, threadpool.Common)
}

// stepLag promotes loading only while a higher priority can help: scheduling limits it and space is not short.
func (p *policy) stepLag(now time.Time, s Signals) {
	lag, target := s.Lag.Value, p.o.LagTarget.Seconds()
	// A pipeline that waits for its remote waits for a slot, too, in the moment in which the remote takes more.
	if s.LagLimit != LimitScheduling {
		p.scheduled = 0
	} else if p.scheduled++; p.scheduled > scheduledTicks {
		p.scheduled = scheduledTicks
	}
	helps := p.scheduled == scheduledTicks && !p.disk.on
	pointless := s.LagLimit == LimitRemote || s.LagLimit == LimitDisk
	under := lag < target*(1-p.o.Hysteresis) || pointless
	if p.disk.on && p.lag.on {
		p.lag.on, p.lag.at = false, now
		p.restore(now, []Code{LoadPrivateLog}, DiskLow, s.DiskFree.Value)
		return
	}
	p.stepToggle(&p.lag, now, s.Lag, lag > target && helps, under, LagOverTarget, LagRecovered, []Code{LoadPrivateLog}, threadpool.High)
}

// raise lifts codes to a level; one that is configured as high or higher stays.
func (p *policy) raise(now time.Time, codes []Code, to threadpool.Priority, why AdaptiveReason, signal float64) {
	for _, c := range codes {
		configured, known := p.configured(c)
		if !known || configured >= to {
			continue
		}
		from := configured
		if l, ok := p.levels[c]; ok {
			from = l
		}
		p.levels[c] = to
		p.levers.moveLevel(c, to, false)
		p.decided(AdaptiveDecision{At: now, Reason: why, Lever: string(c), From: from.String(), To: to.String(), Signal: signal})
	}
}

// restore gives codes their configured levels back.
func (p *policy) restore(now time.Time, codes []Code, why AdaptiveReason, signal float64) {
	for _, c := range codes {
		from, moved := p.levels[c]
		if !moved {
			continue
		}
		delete(p.levels, c)
		configured, _ := p.configured(c)
		p.levers.moveLevel(c, configured, true)
		p.decided(AdaptiveDecision{At: now, Reason: why, Lever: string(c), From: from.String(), To: configured.String(), Signal: signal})
	}
}

// stepLow shrinks and grows Low's part by the worse of the two pressures.
func (p *policy) stepLow(now time.Time, s Signals) {
	pressure, why, signal, known := p.pressure(now, s)
	switch {
	case !known:
		if p.low < 1 {
			p.setLow(now, 1, SignalsStale, signal)
			p.lowCeiling, p.probeAfter = 1, firstProbe
		}
	case pressure > 1:
		if now.Sub(p.lowMovedAt) < 2*p.o.Tick || p.low <= p.o.MinLow {
			return
		}
		if p.lowRelaxing {
			p.probeFailed(now)
		}
		p.setLow(now, max(p.o.MinLow, p.low*lowTighten), why, signal)
		p.lowRelaxing = false
	case pressure < 1-p.o.Hysteresis:
		if p.low >= 1 || now.Sub(p.lowMovedAt) < lowRelaxEvery {
			return
		}
		next := min(1, p.low+lowRelax)
		if next > p.lowCeiling {
			if now.Before(p.probeAt) {
				return
			}
			p.lowCeiling = next
		}
		p.setLow(now, next, PressureGone, signal)
		p.lowRelaxing = true
		if p.low == 1 {
			p.lowCeiling, p.probeAfter = 1, firstProbe
		}
	}
}

// probeFailed remembers that the present part was too much.
func (p *policy) probeFailed(now time.Time) {
	p.lowCeiling = max(p.o.MinLow, p.low-lowRelax)
	p.probeAt = now.Add(p.probeAfter)
	p.probeAfter = min(2*p.probeAfter, longestProbe)
}

// pressure is the worse ratio of a signal to its target.
func (p *policy) pressure(now time.Time, s Signals) (ratio float64, why AdaptiveReason, signal float64, known bool) {
	why = PressureGone
	if s.ForegroundWrite.fresh(now, p.o.Stale) {
		known = true
		ratio, why, signal = s.ForegroundWrite.Value/p.o.ForegroundTarget.Seconds(), ForegroundOverTarget, s.ForegroundWrite.Value
	}
	if s.CommonWait.fresh(now, p.o.Stale) {
		known = true
		if r := s.CommonWait.Value / p.o.WaitTarget.Seconds(); r > ratio {
			ratio, why, signal = r, WaitOverTarget, s.CommonWait.Value
		}
	}
	return ratio, why, signal, known
}

func (p *policy) setLow(now time.Time, part float64, why AdaptiveReason, signal float64) {
	part = math.Round(part*1000) / 1000
	p.decided(AdaptiveDecision{At: now, Reason: why, Lever: "low", From: fmt.Sprintf("%.3f", p.low), To: fmt.Sprintf("%.3f", part), Signal: signal})
	p.low, p.lowMovedAt = part, now
	p.levers.shrinkLow(part)
}

// reset takes everything back.
func (p *policy) reset(now time.Time, why AdaptiveReason) {
	p.restore(now, sortedCodes(p.levels), why, 0)
	if p.low < 1 {
		p.setLow(now, 1, why, 0)
	}
	*p = *newPolicy(p.o, p.levers, p.configured, p.decided)
}

func sortedCodes(m map[Code]threadpool.Priority) []Code { return slices.Sorted(maps.Keys(m)) }
