package replica

import (
	"math/rand/v2"
	"sync"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"
)

// network connects hosts in memory, and drops, delays, repeats and reorders what they send.
type network struct {
	mu     sync.Mutex
	rng    *rand.Rand
	hosts  map[uint64]*testNode
	cut    map[uint64]bool // nodes that reach nobody
	faulty bool
	closed bool
	timers sync.WaitGroup
}

func newNetwork(seed uint64) *network {
	return &network{rng: rand.New(rand.NewPCG(seed, 1)), hosts: map[uint64]*testNode{}, cut: map[uint64]bool{}}
}

// port is one node's end of the network.
type port struct {
	net *network
	id  uint64
}

func (p port) Send(msgs []Message) {
	for _, m := range msgs {
		// As over a wire: nothing is shared between nodes.
		copied := Message{m.Partition, proto.Clone(m.Raft).(*raftpb.Message)}
		p.net.send(p.id, copied)
	}
}

func (n *network) send(from uint64, m Message) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.cut[from] || n.cut[m.Raft.GetTo()] {
		return
	}
	times, delay := 1, time.Duration(0)
	if n.faulty {
		switch r := n.rng.IntN(100); {
		case r < 5:
			return
		case r < 10:
			times = 2
		case r < 40:
			delay = time.Duration(n.rng.IntN(20)) * time.Millisecond
		}
	}
	for range times {
		n.timers.Add(1)
		time.AfterFunc(delay, func() {
			defer n.timers.Done()
			n.deliver(m)
		})
	}
}

func (n *network) deliver(m Message) {
	n.mu.Lock()
	to := n.hosts[m.Raft.GetTo()]
	open := !n.closed && !n.cut[m.Raft.GetTo()]
	n.mu.Unlock()
	if to != nil && open {
		_ = to.Step(m)
	}
}

func (n *network) isolate(id uint64, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[id] = on
}

func (n *network) setFaulty(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faulty = on
}
