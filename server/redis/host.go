package redis

import (
	"context"
	"sync"

	"replicanode/replica"
)

// FromHost makes the partitions of a replica host a Store.
func FromHost(h *replica.Host) Store {
	store := &hostStore{}
	for _, p := range h.Partitions() {
		store.partitions = append(store.partitions, &hostPartition{p})
	}
	return store
}

type hostStore struct{ partitions []*hostPartition }

func (s *hostStore) Partitions() int           { return len(s.partitions) }
func (s *hostStore) Partition(i int) Partition { return s.partitions[i] }
func (s *hostStore) Route(key []byte) int {
	return int(replica.PartitionOf(key, uint32(len(s.partitions))))
}

type hostPartition struct{ p *replica.Partition }

func (p *hostPartition) Propose(op *Op) error { return p.p.Propose((*hostOp)(op)) }

func (p *hostPartition) Count(ctx context.Context) (uint64, error) { return p.p.Count(ctx, nil) }

func (p *hostPartition) View(ctx context.Context, q Query) error {
	v := hostViews.Get().(*hostView)
	v.q = q
	err := p.p.View(ctx, v.read)
	v.q = nil
	hostViews.Put(v)
	return err
}

// hostOp is an Op as the replica sees it.
type hostOp Op

func (o *hostOp) Execute(tx *replica.Tx) { (*Op)(o).Execute(tx) }
func (o *hostOp) Finish(err error)       { (*Op)(o).Finish(err) }

// hostView carries a Query into the function that a replica's View wants, without making one each time.
type hostView struct {
	q    Query
	read func(*replica.View) error
}

var hostViews = sync.Pool{New: func() any {
	v := &hostView{}
	v.read = func(view *replica.View) error { return v.q.Read(view) }
	return v
}}
