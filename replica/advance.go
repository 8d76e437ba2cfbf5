package replica

import (
	"context"

	"replicanode/replica/mutation"
)

// advanceCommand logs a mutation without operations.
type advanceCommand struct {
	beyond mutation.Timestamp
	done   chan error
}

// Execute is never called: the command is an ownMutation.
func (c *advanceCommand) Execute(*Tx) {}

// Finish implements Command.
func (c *advanceCommand) Finish(err error) { c.done <- err }

func (c *advanceCommand) mutate(p *Partition, mu *mutator) ([]byte, error) {
	p.clock.Observe(c.beyond)
	h := mutation.Header{Kind: mutation.User, Timestamp: p.clock.Next(), Cluster: p.o.ClusterID}
	mu.enter(mu.set, h.Timestamp)
	var b mutation.Builder
	b.Reset(h)
	return b.Bytes(), nil
}

// Advance makes the applied decree greater than it is, and its mark's time (MarkTime) greater than beyond, without changing what the
// partition holds. The errors are those of Propose, or why ctx ended; then the decree may advance later.
func (p *Partition) Advance(ctx context.Context, beyond uint64) error {
	c := &advanceCommand{beyond: mutation.Timestamp(beyond), done: make(chan error, 1)}
	if err := p.Propose(c); err != nil {
		return err
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
