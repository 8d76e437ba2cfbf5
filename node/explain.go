package node

import (
	"cmp"
	"net/http"
	"slices"

	"replicanode/tasks"
	"replicanode/threadpool"
)

// Bounds of an explanation: the waiting tasks that are listed (all are counted), and the picks that are listed after those of one task
// have been put together. So many picks are remembered.
const (
	explainedWaiting   = 100
	explainedDecisions = 100
	keptDecisions      = 4096
)

// ExplainAnswer is the answer of GET /v1/tasks/explain.
type ExplainAnswer struct {
	// Pool is what runs and waits; its decisions are below.
	Pool     threadpool.Explanation `json:"pool"`
	Codes    []tasks.CodeStats      `json:"codes"`
	Adaptive tasks.AdaptiveStatus   `json:"adaptive"`
	// Decisions are the last picks, oldest first.
	Decisions []Decision `json:"decisions"`
}

// Decision is a pick, or the picks by which one task that gives its slot away again and again has come back: then it is the last of
// them, with the longest wait.
type Decision struct {
	threadpool.Decision
	// Times is how many picks it stands for.
	Times int `json:"times"`
}

func (n *Node) getExplanation(*http.Request, none) (ExplainAnswer, error) {
	x := n.tasks.Explain(keptDecisions)
	a := ExplainAnswer{Pool: x.Pool, Codes: x.Codes, Adaptive: x.Adaptive, Decisions: coalesce(x.Pool.Decisions)}
	a.Pool.Decisions = []threadpool.Decision{}
	a.Pool.Waiting = a.Pool.Waiting[:min(len(a.Pool.Waiting), explainedWaiting)]
	a.Decisions = a.Decisions[max(0, len(a.Decisions)-explainedDecisions):]
	return a, nil
}

// coalesce puts the returns of each task together, so that one that works in many slices does not hide the others. They stand where
// the last of them was.
func coalesce(picks []threadpool.Decision) []Decision {
	out := make([]Decision, 0, len(picks))
	returns := map[uint64]int{}
	for _, p := range picks {
		d := Decision{Decision: p, Times: 1}
		if !p.Resumed {
			out = append(out, d)
			continue
		}
		if i, ok := returns[p.ID]; ok {
			d.Times += out[i].Times
			d.Waited = max(d.Waited, out[i].Waited)
			out[i] = d
			continue
		}
		returns[p.ID] = len(out)
		out = append(out, d)
	}
	slices.SortStableFunc(out, func(a, b Decision) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return out
}
