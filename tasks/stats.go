package tasks

import (
	"time"

	"replicanode/threadpool"
)

// CodeStats are one code's figures, JSON-able.
type CodeStats struct {
	Code Code `json:"code"`
	// Priority is the level in force, Configured the spec's.
	Priority   threadpool.Priority `json:"priority"`
	Configured threadpool.Priority `json:"configured"`
	// Queued jobs wait to be started or retried, running ones hold a slot, parked ones have given it away.
	Queued  int `json:"queued"`
	Running int `json:"running"`
	Parked  int `json:"parked"`
	// Done and Failed count jobs that have ended, Retried attempts after the first.
	Done    uint64 `json:"done"`
	Failed  uint64 `json:"failed"`
	Retried uint64 `json:"retried"`
	// FailedAttempts counts by kind of error.
	FailedAttempts map[string]uint64 `json:"failed_attempts,omitempty"`
	// Wait is from submission to start of each attempt, Run its slot time.
	Wait threadpool.Distribution `json:"wait"`
	Run  threadpool.Distribution `json:"run"`
	// LastError is the last job's that failed for good, at LastErrorAt.
	LastError   string    `json:"last_error,omitempty"`
	LastErrorAt time.Time `json:"last_error_at,omitzero"`
}

// Stats returns the figures of all codes, in the order of the specs.
func (r *Runner) Stats() []CodeStats {
	pool := map[string]threadpool.CodeStats{}
	for _, c := range r.pool.Stats().Codes {
		pool[c.Code] = c
	}
	out := make([]CodeStats, 0, len(r.order))
	r.mu.Lock()
	for _, st := range r.order {
		s := CodeStats{
			Code: st.code, Priority: st.priority(), Configured: st.spec.Priority, Done: st.done, Failed: st.failed, Retried: st.retried,
			LastError: st.lastError, LastErrorAt: st.lastErrorAt,
		}
		for k, n := range st.attemptsFailed {
			if n > 0 {
				if s.FailedAttempts == nil {
					s.FailedAttempts = map[string]uint64{}
				}
				s.FailedAttempts[ErrorKind(k).String()] = n
			}
		}
		out = append(out, s)
	}
	r.mu.Unlock()
	for i := range out {
		s := &out[i]
		p := pool[string(s.Code)]
		s.Queued, s.Running, s.Parked = p.Queued, p.Running, p.Parked
		s.Wait, s.Run = r.pool.CodeDistributions(string(s.Code))
	}
	return out
}

// Explanation is what runs, what waits and why, and what the controller has done about it.
type Explanation struct {
	Pool     threadpool.Explanation `json:"pool"`
	Codes    []CodeStats            `json:"codes"`
	Adaptive AdaptiveStatus         `json:"adaptive"`
}

// Explain returns the pool's explanation, with at most limit waiting tasks and decisions (0: 100), and the runner's.
func (r *Runner) Explain(limit int) Explanation {
	return Explanation{Pool: r.pool.Explain(limit), Codes: r.Stats(), Adaptive: r.adaptive.status()}
}

// String is the explanation in one line.
func (x Explanation) String() string {
	return x.Pool.String() + "; " + x.Adaptive.String()
}
