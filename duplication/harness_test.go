package duplication

import (
	"cmp"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"replicanode/peer"
	"replicanode/tasks"
	"replicanode/threadpool"
)

const (
	clusterA = 0xa
	clusterB = 0xb
)

func TestMain(m *testing.M) {
	// The pool's goroutine supply keeps two goroutines of its own from the moment it is linked in.
	goleak.VerifyTestMain(m, goleak.IgnoreCurrent())
}

func stress() bool { return os.Getenv("REPLICANODE_STRESS") != "" }

// harness is one source cluster and one receiving node, with real gRPC on loopback between them.
type harness struct {
	tb         testing.TB
	partitions []*testPartition
	targets    []*testTarget
	pool       *threadpool.Pool
	tasks      *tasks.Runner
	client     *peer.Client
	faults     *faults
	jobs       Jobs // instead of tasks; optional
	o          Options

	source   *Source
	receiver *Receiver
	server   *peer.Server

	mu        sync.Mutex
	addresses map[string]string // of the nodes that are up, by name
}

// node is the name under which the receiving node is dialled; its real address changes with every restart.
const node = "backup:1"

// ackTimeout is short enough for tests that lose messages, and long enough for a busy machine.
const ackTimeout = 100 * time.Millisecond

func newHarness(tb testing.TB, partitions int, o Options) *harness {
	tb.Helper()
	h := &harness{tb: tb, o: o, addresses: make(map[string]string)}
	for i := range partitions {
		h.partitions = append(h.partitions, newTestPartition(tb, uint32(i)))
		h.targets = append(h.targets, newTestTarget())
	}
	var err error
	if h.pool, err = threadpool.New(threadpool.Options{Workers: 2}); err != nil {
		tb.Fatal(err)
	}
	if h.tasks, err = tasks.New(tasks.Options{Pool: h.pool}); err != nil {
		tb.Fatal(err)
	}
	if h.client, err = peer.NewClient(peer.ClientOptions{Dial: h.dial}); err != nil {
		tb.Fatal(err)
	}
	h.faults = &faults{network: h.client}
	h.must(h.pool.Start(context.Background()))
	h.must(h.tasks.Start(context.Background()))
	tb.Cleanup(h.close)
	return h
}

func (h *harness) must(err error) {
	h.tb.Helper()
	if err != nil {
		h.tb.Fatal(err)
	}
}

func (h *harness) close() {
	h.stopSource()
	h.stopReceiver()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, err := range []error{h.client.Close(), h.tasks.Stop(ctx), h.pool.Stop(ctx)} {
		if err != nil {
			h.tb.Errorf("close: %v", err)
		}
	}
}

func (h *harness) dial(ctx context.Context, name string) (net.Conn, error) {
	h.mu.Lock()
	address := h.addresses[name]
	h.mu.Unlock()
	if address == "" {
		return nil, errors.New("connection refused: the node is down")
	}
	return (&net.Dialer{}).DialContext(ctx, "tcp", address)
}

func (h *harness) startReceiver() {
	h.startReceiverWith(ReceiverOptions{ClusterID: clusterB, PartitionCount: uint32(len(h.partitions))})
}

func (h *harness) startReceiverWith(o ReceiverOptions) {
	h.tb.Helper()
	if o.Target == nil {
		o.Target = func(id uint32) Target { return h.targets[id] }
	}
	receiver, err := NewReceiver(o)
	h.must(err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	h.must(err)
	server, err := peer.NewServer(peer.ServerOptions{Listener: listener, Handlers: peer.Handlers{Duplication: receiver}})
	h.must(err)
	h.must(server.Start(context.Background()))
	h.receiver, h.server = receiver, server
	h.setAddress(node, listener.Addr().String())
}

func (h *harness) setAddress(name, address string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addresses[name] = address
}

func (h *harness) stopReceiver() {
	h.tb.Helper()
	if h.server == nil {
		return
	}
	h.setAddress(node, "")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, target := range h.targets {
		target.setHold(false)
	}
	if err := h.server.Stop(ctx); err != nil {
		h.tb.Errorf("stop server: %v", err)
	}
	if err := h.receiver.Stop(ctx); err != nil {
		h.tb.Errorf("stop receiver: %v", err)
	}
	h.server, h.receiver = nil, nil
}

func (h *harness) startSource() {
	h.tb.Helper()
	o := h.o
	o.ClusterID = clusterA
	o.Partitions = nil
	for _, p := range h.partitions {
		o.Partitions = append(o.Partitions, p)
	}
	if o.Remotes == nil {
		o.Remotes = []Remote{{Name: "backup", Addresses: []string{node}}}
	}
	o.Network, o.Jobs = h.faults, h.tasks
	if h.jobs != nil {
		o.Jobs = h.jobs
	}
	o.RetryMin = cmp.Or(o.RetryMin, time.Millisecond)
	o.RetryMax = cmp.Or(o.RetryMax, 10*time.Millisecond)
	source, err := New(o)
	h.must(err)
	h.must(source.Start(context.Background()))
	h.source = source
}

func (h *harness) stopSource() {
	h.tb.Helper()
	if h.source == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := h.source.Stop(ctx); err != nil {
		h.tb.Errorf("stop source: %v", err)
	}
	h.source = nil
}

// awaitStatus waits until the only pipeline's status satisfies f. It polls: tests that use it look at a state in which nothing
// moves any more, so that there is no event to wait for.
func (h *harness) awaitStatus(what string, f func(PipelineStatus) bool) PipelineStatus {
	h.tb.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		s := h.source.Status()[0]
		if f(s) {
			return s
		}
		select {
		case <-tick.C:
		case <-deadline:
			h.tb.Fatalf("timed out: %s: %+v", what, s)
		}
	}
}
