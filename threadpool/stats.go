package threadpool

import (
	"slices"
	"strings"
)

// Stats are the pool's figures at one moment, as values and as JSON.
type Stats struct {
	// Workers is the number of slots. Running tasks hold one, Starting ones are about to, the others are idle.
	Workers  int `json:"workers"`
	Running  int `json:"running"`
	Starting int `json:"starting"`
	// Queued and Parked count by level.
	Queued Levels `json:"queued"`
	Parked Levels `json:"parked"`
	// Keys is the number of keys in use.
	Keys int `json:"keys"`
	// Codes are in order of name.
	Codes []CodeStats `json:"codes"`
}

// CodeStats are one code's figures.
type CodeStats struct {
	Code string `json:"code"`
	// Queued tasks wait to be started, running ones hold a slot, parked ones have given it away.
	Queued  int        `json:"queued"`
	Running int        `json:"running"`
	Parked  int        `json:"parked"`
	Limits  CodeLimits `json:"limits"`
	// Coalesced and Rejected submissions, Canceled tasks, Expired ones (past their deadline), Timeouts, Panics, Retries.
	Coalesced uint64 `json:"coalesced"`
	Rejected  uint64 `json:"rejected"`
	Canceled  uint64 `json:"canceled"`
	Expired   uint64 `json:"expired"`
	Timeouts  uint64 `json:"timeouts"`
	Panics    uint64 `json:"panics"`
	Retries   uint64 `json:"retries"`
	// Yields are calls of Turn.Yield by finished tasks and attempts; parks are by what the task waited for.
	Yields    uint64 `json:"yields"`
	GaveWay   uint64 `json:"gave_way"`
	Slept     uint64 `json:"slept"`
	Awaited   uint64 `json:"awaited"`
	Throttled uint64 `json:"throttled"`
	// Aged and Shared are picks owed to waiting and to Low's share; Inherited are tasks lifted by a follower of their key.
	Aged      uint64 `json:"aged"`
	Shared    uint64 `json:"shared"`
	Inherited uint64 `json:"inherited"`
	// IOBytes were charged by finished tasks and attempts.
	IOBytes int64 `json:"io_bytes"`
	// Levels are the figures by level, low to high.
	Levels [levels]LevelStats `json:"levels"`
}

// LevelStats are one code's figures on one level.
type LevelStats struct {
	Priority  Priority `json:"priority"`
	Submitted uint64   `json:"submitted"`
	Started   uint64   `json:"started"`
	Finished  uint64   `json:"finished"`
	Failed    uint64   `json:"failed"`
	// Wait is from submission to start, Run the slot time.
	Wait Distribution `json:"wait"`
	Run  Distribution `json:"run"`
}

// Stats returns the figures since the pool was made.
func (p *Pool) Stats() Stats {
	p.mu.Lock()
	c := &p.c
	s := Stats{Workers: c.workers, Running: c.taken, Starting: c.starting, Queued: c.queued, Parked: c.parked, Keys: len(c.keys)}
	type copied struct{ wait, run [levels]histogram }
	hists := make([]copied, len(c.codeList))
	s.Codes = make([]CodeStats, len(c.codeList))
	for i, cd := range c.codeList {
		s.Codes[i] = cd.snapshot()
		for l := range cd.queues {
			if st := &cd.queues[l].stats; st.wait != nil {
				hists[i].wait[l], hists[i].run[l] = *st.wait, *st.run
			}
		}
	}
	p.mu.Unlock()
	for i := range s.Codes {
		for l := range s.Codes[i].Levels {
			s.Codes[i].Levels[l].Wait = hists[i].wait[l].distribution()
			s.Codes[i].Levels[l].Run = hists[i].run[l].distribution()
		}
	}
	slices.SortFunc(s.Codes, func(a, b CodeStats) int { return strings.Compare(a.Code, b.Code) })
	return s
}

// CodeDistributions returns one code's waits and runs over all levels.
func (p *Pool) CodeDistributions(name string) (wait, run Distribution) {
	var w, r histogram
	p.mu.Lock()
	if cd := p.c.codes[name]; cd != nil {
		for l := range cd.queues {
			if st := &cd.queues[l].stats; st.wait != nil {
				w.add(st.wait)
				r.add(st.run)
			}
		}
	}
	p.mu.Unlock()
	return w.distribution(), r.distribution()
}

func (cd *code) snapshot() CodeStats {
	n := &cd.counts
	s := CodeStats{
		Code: cd.name, Queued: cd.queued, Running: cd.running, Parked: cd.started - cd.running, Limits: cd.limits,
		Coalesced: n.coalesced, Rejected: n.rejected, Canceled: n.canceled, Expired: n.expired, Timeouts: n.timeouts,
		Panics: n.panics, Retries: n.retries, Yields: n.yields, GaveWay: n.gaveWay, Slept: n.slept, Awaited: n.awaited,
		Throttled: n.throttled, Aged: n.aged, Shared: n.shared, Inherited: n.inherited, IOBytes: n.bytes,
	}
	for l := range cd.queues {
		st := &cd.queues[l].stats
		s.Levels[l] = LevelStats{Priority: Priority(l), Submitted: st.submitted, Started: st.started, Finished: st.finished, Failed: st.failed}
	}
	return s
}
