package replica

import (
	"slices"
	"sync"

	"replicanode/plog"
)

// Subscriber is told what a partition applies.
type Subscriber interface {
	// Applied gets entries in decree order, without gaps from the first call on, after they were applied. It must not
	// block, and must not cancel its subscription; the entries and their data are valid during the call only. Entries
	// with Type != 0 or without data are no mutations.
	Applied(entries []plog.Entry)
}

// subscriptions are those who are told. mu is held while they are.
type subscriptions struct {
	mu      sync.Mutex
	list    []Subscriber
	entries []plog.Entry
}

// Subscribe calls s for everything applied from now on: at the latest from the decree after what Applied returns
// after Subscribe. Older entries are in the log. After cancel has returned, s is not called any more.
func (p *Partition) Subscribe(s Subscriber) (cancel func()) {
	subs := &p.subs
	subs.mu.Lock()
	defer subs.mu.Unlock()
	subs.list = append(subs.list, s)
	return sync.OnceFunc(func() {
		subs.mu.Lock()
		defer subs.mu.Unlock()
		if i := slices.Index(subs.list, s); i >= 0 {
			subs.list = slices.Delete(subs.list, i, i+1)
		}
	})
}

// publish tells the subscribers what has just been applied.
func (p *Partition) publish(a *applier) {
	subs := &p.subs
	subs.mu.Lock()
	defer subs.mu.Unlock()
	if len(subs.list) == 0 {
		return
	}
	subs.entries = subs.entries[:0]
	for i := range a.queued {
		subs.entries = fromRaft(subs.entries, a.queued[i].entries)
	}
	for _, s := range subs.list {
		s.Applied(subs.entries)
	}
	clear(subs.entries)
}
