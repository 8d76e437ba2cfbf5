package threadpool

import "context"

// code is everything the pool keeps about one task code.
type code struct {
	name   string
	limits CodeLimits
	// limited says whether limits bounds anything.
	limited bool
	// overridden says that override replaces the priority of submitted tasks.
	overridden bool
	override   Priority
	// running hold a slot, started have started and not finished, queued wait to be started.
	running, started, queued int
	// runningAt splits running by base level.
	runningAt Levels
	queues    [levels]queue
	labels    context.Context
	full      *QueueFullError
	counts    codeCounts
}

// codeCounts are a code's counters. Yields counts calls of Turn.Yield that finished tasks made.
type codeCounts struct {
	coalesced, rejected, panics, canceled, expired, timeouts, retries   uint64
	yields, gaveWay, slept, awaited, throttled, aged, inherited, shared uint64
	bytes                                                               int64
}

// levelStats are a code's figures on one level.
type levelStats struct {
	submitted, started, finished, failed uint64
	wait, run                            *histogram
}

func (cd *code) setLimits(l CodeLimits) { cd.limits, cd.limited = l, l != CodeLimits{} }

// open says whether the code's limit on running tasks leaves room.
func (cd *code) open() bool { return cd.limits.MaxRunning == 0 || cd.running < cd.limits.MaxRunning }

// openAfter says whether the limit leaves room once a running task of level l has given its slot away, which may be one of
// this code.
func (cd *code) openAfter(l Priority) bool {
	if cd.open() {
		return true
	}
	if cd.running > cd.limits.MaxRunning {
		return false
	}
	for b := Low; b <= l; b++ {
		if cd.runningAt[b] > 0 {
			return true
		}
	}
	return false
}

// codeNamed returns the code of that name, creating it if MaxCodes allows, or nil.
func (c *core) codeNamed(name string) *code {
	if name == "" {
		name = unnamed
	}
	cd := c.codes[name]
	if cd == nil {
		if len(c.codeList) >= c.maxCodes {
			return nil
		}
		cd = c.addCode(name)
	}
	c.lastCode = cd
	return cd
}

func (c *core) addCode(name string) *code {
	cd := &code{name: name, full: &QueueFullError{Code: name}}
	for l := range cd.queues {
		cd.queues[l] = queue{code: cd, base: Priority(l), active: -1}
		if !c.noTiming {
			cd.queues[l].stats.wait, cd.queues[l].stats.run = new(histogram), new(histogram)
		}
	}
	c.codes[name] = cd
	c.codeList = append(c.codeList, cd)
	return cd
}
