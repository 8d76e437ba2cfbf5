package replica

import (
	"sync"
	"sync/atomic"
	"time"

	"replicanode/plog"
)

// Status describes a partition at one moment.
type Status struct {
	Partition uint32 `json:"partition"`
	// Phase is waiting, opening, open, failed or stopped.
	Phase string `json:"phase"`
	// Serving is whether commands are taken: this node leads and has applied everything of earlier leaders.
	Serving bool   `json:"serving"`
	Error   string `json:"error,omitempty"`
	// Refusing is why commands are not taken although the partition serves.
	Refusing string `json:"refusing,omitempty"`
	Leader   uint64 `json:"leader"`
	IsLeader bool   `json:"is_leader"`
	Applied  uint64 `json:"applied"`
	Durable  uint64 `json:"durable"`
	// Queued is the number of commands that wait to be evaluated.
	Queued int          `json:"queued"`
	Replay ReplayStatus `json:"replay"`
	// Log is the private log, Tables and TableBytes the database's synced files.
	Log        plog.Stats `json:"log"`
	Tables     int        `json:"tables"`
	TableBytes int64      `json:"table_bytes"`
	// Confirmed is what the remotes have confirmed, by name.
	Confirmed map[string]uint64 `json:"confirmed,omitempty"`
	// Timestamp is the physical part of the partition's hybrid logical clock.
	Timestamp time.Time `json:"timestamp"`
}

// ReplayStatus is the progress of replaying the log after opening.
type ReplayStatus struct {
	// From and To are the decrees that had to be replayed (none if To < From), At the last one that is.
	From uint64 `json:"from"`
	To   uint64 `json:"to"`
	At   uint64 `json:"at"`
	// Seconds is how long it has taken, up to Done.
	Seconds float64 `json:"seconds"`
	Done    bool    `json:"done"`
}

// replayProgress follows the replay.
type replayProgress struct {
	done         atomic.Bool
	mu           sync.Mutex
	from, to     uint64
	began, ended time.Time
}

func (r *replayProgress) begin(after, to uint64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.from, r.to, r.began = after+1, to, now
}

// passed notes that a decree is applied.
func (r *replayProgress) passed(applied uint64, now time.Time) {
	if r.done.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if applied >= r.to {
		r.ended = now
		r.done.Store(true)
	}
}

func (r *replayProgress) status(applied uint64, now time.Time) ReplayStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := ReplayStatus{From: r.from, To: r.to, At: min(applied, r.to), Done: r.done.Load()}
	if s.Done {
		now = r.ended
	}
	if !r.began.IsZero() {
		s.Seconds = now.Sub(r.began).Seconds()
	}
	return s
}

// Status describes the partition.
func (p *Partition) Status() Status {
	s := Status{Partition: p.id, Applied: p.Applied(), Durable: p.Durable(), Confirmed: p.Confirmations()}
	s.Leader, s.IsLeader = p.Leader()
	s.Replay = p.replay.status(s.Applied, p.o.Clock())
	s.Timestamp = p.clock.Last().Time()
	p.mu.Lock()
	s.Phase, s.Serving, s.Queued = p.phase.String(), p.serving.Load(), p.queued
	if p.err != nil {
		s.Error = p.err.Error()
	}
	if p.refuse != nil {
		s.Refusing = p.refuse.Error()
	}
	open := p.phase == phaseOpen
	p.mu.Unlock()
	if !open {
		return s
	}
	p.views.RLock()
	defer p.views.RUnlock()
	p.durable.mu.Lock()
	defer p.durable.mu.Unlock()
	if p.durable.db != nil {
		s.Log = p.plog.Stats()
		for _, t := range p.durable.db.Tables() {
			s.Tables++
			s.TableBytes += int64(t.OnDiskSize)
		}
	}
	return s
}
