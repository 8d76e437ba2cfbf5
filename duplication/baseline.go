package duplication

import (
	"fmt"

	"replicanode/peer/peerpb"
	"replicanode/replica"
	"replicanode/replica/mutation"
)

// maxHeld bounds the clusters that a greeting may name.
const maxHeld = 4096

// greeting is what a pipeline tells the remote about the partition.
func (p *pipeline) greeting() (*peerpb.Hello, error) {
	baseline, err := p.feed.partition.Baseline()
	if err != nil {
		return nil, fmt.Errorf("read what the partition rests on: %w", err)
	}
	hello := &peerpb.Hello{
		ClusterId: p.o.ClusterID, Partition: p.feed.partition.ID(), Partitions: p.o.PartitionCount, Base: baseline.Decree,
	}
	for _, s := range baseline.Sources {
		hello.Held = append(hello.Held, &peerpb.Held{ClusterId: s.Cluster, Decree: s.Decree})
	}
	return hello, nil
}

// meet decides about the stream of a source of which nothing is here yet. It is taken when everything that the source's data rests
// on, and that it will not ship, is here already; what it ships then follows its base.
func (r *Receiver) meet(target Target, hello *peerpb.Hello) (progress uint64, refused *refusal) {
	if len(hello.GetHeld()) > maxHeld {
		return 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "%d clusters in a greeting", len(hello.GetHeld()))
	}
	for _, held := range hello.GetHeld() {
		have, err := r.have(target, held.GetClusterId(), hello.GetPartition())
		if err != nil {
			return 0, r.explain(err)
		}
		if have < held.GetDecree() {
			return 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_BASELINE,
				"cluster %d holds what cluster %d wrote up to decree %d and does not ship it; cluster %d has it up to decree %d",
				hello.GetClusterId(), held.GetClusterId(), held.GetDecree(), r.o.ClusterID, have)
		}
	}
	if hello.GetBase() == 0 {
		return 0, nil
	}
	return r.moveToBase(target, hello)
}

// have is the decree up to which a cluster's mutations are here; the cluster may be this one.
func (r *Receiver) have(target Target, cluster uint64, partition uint32) (uint64, error) {
	if cluster == r.o.ClusterID {
		return target.Applied(), nil
	}
	return target.DuplicationProgress(cluster, partition)
}

// moveToBase makes the source's base its progress here.
func (r *Receiver) moveToBase(target Target, hello *peerpb.Hello) (uint64, *refusal) {
	type result struct {
		confirmed uint64
		err       error
	}
	moved := make(chan result, 1)
	r.work.Add(1)
	target.ApplyDuplicated(r.ctx, mutation.Batch{Cluster: hello.GetClusterId(), Partition: hello.GetPartition(), Last: hello.GetBase()},
		func(confirmed uint64, err error) {
			moved <- result{confirmed, err}
			r.work.Done()
		})
	select {
	case m := <-moved:
		if m.err != nil {
			return 0, r.explain(m.err)
		}
		r.o.Logger.Info("a restored cluster's mutations follow its base", "cluster", hello.GetClusterId(), "partition", hello.GetPartition(), "base", hello.GetBase())
		return m.confirmed, nil
	case <-r.ctx.Done():
		return 0, r.explain(errReceiverStopped)
	}
}

var _ Target = (*replica.Partition)(nil)
