package replica

import (
	"context"
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// replay applies what the log knows to be committed while the partition is being opened, so that as many partitions replay at once as the
// Runner opens, and none waits for the host's goroutine to read the logs of the others. What may be committed beyond that is
// applied once there is a leader.
func (g *group) replay(ctx context.Context, ev *evaluator) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("raft: %v", v)
		}
		if err != nil {
			err = g.store.reason(err)
		}
	}()
	ev.opening = true
	defer func() { ev.opening = false }()
	for g.rn.HasReady() {
		if err := ctx.Err(); err != nil {
			return err
		}
		rd := g.rn.Ready()
		if rd.SoftState != nil {
			g.observeLeader()
		}
		for _, m := range rd.Messages {
			if m.GetTo() != raft.LocalApplyThread {
				g.early = append(g.early, m)
				continue
			}
			if err := g.replayBatch(ev, m); err != nil {
				return err
			}
		}
	}
	return nil
}

// replayBatch applies one batch of committed entries.
func (g *group) replayBatch(ev *evaluator, m *raftpb.Message) error {
	e, err := g.committed(m)
	if err != nil {
		return err
	}
	a := &ev.applier
	a.queue(&e)
	if err := g.p.applyAll(ev); err != nil {
		return fmt.Errorf("apply after decree %d: %w", g.p.Applied(), err)
	}
	a.forget()
	g.appliedUpTo(g.p.Applied(), m.GetResponses())
	return nil
}
