package duplication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"replicanode/peer"
	"replicanode/peer/peerpb"
	"replicanode/plog"
	"replicanode/replica"
	"replicanode/replica/mutation"
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

// testPartition is a source's partition: a real log, whose entries are committed and applied as soon as they are durable.
type testPartition struct {
	id  uint32
	log *plog.Log

	mu         sync.Mutex
	clock      mutation.Clock
	subscriber replica.Subscriber
	follower   bool
	confirmed  map[string]uint64
	records    int
	baseline   replica.Baseline
	// own is what a remote must end up with: this cluster's user mutations in order.
	own []mutation.SourceMutation
}

func newTestPartition(t testing.TB, id uint32) *testPartition {
	t.Helper()
	return newTestPartitionOn(t, id, vfs.NewMem(), "/", 64<<10)
}

func newTestPartitionOn(t testing.TB, id uint32, fs vfs.FS, dir string, segment int64) *testPartition {
	t.Helper()
	log, err := plog.Open(fs.PathJoin(dir, fmt.Sprintf("plog-%d", id)), id, plog.Options{FS: fs, SegmentBytes: segment})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Errorf("close log: %v", err)
		}
	})
	return &testPartition{id: id, log: log, confirmed: make(map[string]uint64)}
}

func (p *testPartition) ID() uint32      { return p.id }
func (p *testPartition) Log() *plog.Log  { return p.log }
func (p *testPartition) Applied() uint64 { return p.log.Committed() }

func (p *testPartition) Leader() (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return 1, !p.follower
}

func (p *testPartition) setFollower(follower bool) {
	p.mu.Lock()
	p.follower = follower
	p.mu.Unlock()
	p.append(nil) // a new leader's no-op
}

func (p *testPartition) Subscribe(s replica.Subscriber) func() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.subscriber = s
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.subscriber = nil
	}
}

func (p *testPartition) RecordConfirmed(remote string, decree uint64) error {
	p.append(mutation.AppendProgress(nil, p.clock.Next(), clusterA, mutation.ProgressRecord{Remote: remote, Decree: decree}))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.confirmed[remote] = decree
	p.records++
	return nil
}

func (p *testPartition) Confirmed(remote string) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	decree, ok := p.confirmed[remote]
	return decree, ok
}

func (p *testPartition) Baseline() (replica.Baseline, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.baseline, nil
}

// append writes entries with the given data, waits until they are durable, and applies them.
func (p *testPartition) append(data ...[]byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	entries := make([]plog.Entry, len(data))
	for i := range data {
		entries[i] = plog.Entry{Index: p.log.LastIndex() + uint64(i) + 1, Term: 1, Data: data[i]}
	}
	durable := make(chan error, 1)
	if err := p.log.Append(entries, nil, func(err error) { durable <- err }); err != nil {
		panic(err)
	}
	if err := <-durable; err != nil {
		panic(err)
	}
	p.log.SetCommitted(entries[len(entries)-1].Index)
	for i := range entries {
		if h, err := mutation.ParseHeader(data[i]); err == nil && h.Kind == mutation.User && h.Cluster == clusterA {
			p.own = append(p.own, mutation.SourceMutation{Decree: entries[i].Index, Data: bytes.Clone(data[i])})
		}
	}
	if p.subscriber != nil {
		p.subscriber.Applied(entries)
		// The data is valid during the call only.
		for i := range data {
			clear(data[i])
		}
	}
}

// user makes a user mutation of about size bytes.
func (p *testPartition) user(cluster uint64, size int) []byte {
	var b mutation.Builder
	b.Reset(mutation.Header{Kind: mutation.User, Timestamp: p.clock.Next(), Cluster: cluster})
	b.Put(fmt.Appendf(nil, "key %d", p.clock.Last()), bytes.Repeat([]byte{byte(size)}, size), 0)
	return bytes.Clone(b.Bytes())
}

func (p *testPartition) foreign() []byte {
	b := mutation.Batch{Cluster: clusterB, Partition: p.id, Prev: 1, Last: 2}
	return mutation.AppendDuplicated(nil, p.clock.Next(), clusterA, &b)
}

func (p *testPartition) write(n, size int) {
	data := make([][]byte, n)
	for i := range data {
		data[i] = p.user(clusterA, size)
	}
	p.append(data...)
}

func (p *testPartition) last() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.own) == 0 {
		return 0
	}
	return p.own[len(p.own)-1].Decree
}

// testTarget is a receiver's partition. Like the real one it skips what it has and refuses gaps; it survives its Receiver.
type testTarget struct {
	mu       sync.Mutex
	changed  sync.Cond
	follower bool
	busy     int // how many batches to refuse
	hold     bool
	held     []func()
	progress uint64
	others   map[uint64]uint64 // progress of other clusters than the source
	applied  uint64
	refused  map[uint64]error // decrees that cannot be applied, and why
	got      []mutation.SourceMutation
	batches  int
	empty    int
}

func newTestTarget() *testTarget {
	t := &testTarget{}
	t.changed.L = &t.mu
	return t
}

func (t *testTarget) Leader() (uint64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return 2, !t.follower
}

func (t *testTarget) DuplicationProgress(cluster uint64, _ uint32) (uint64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if cluster != clusterA {
		return t.others[cluster], nil
	}
	return t.progress, nil
}

func (t *testTarget) Applied() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.applied
}

func (t *testTarget) ApplyDuplicated(_ context.Context, b mutation.Batch, done func(uint64, error)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	apply := func() {
		confirmed, err := t.apply(b)
		go done(confirmed, err)
	}
	if t.hold {
		t.held = append(t.held, apply)
		t.changed.Broadcast()
		return
	}
	apply()
}

func (t *testTarget) apply(b mutation.Batch) (uint64, error) {
	if t.busy > 0 {
		t.busy--
		return 0, replica.ErrBusy
	}
	if b.Prev > t.progress {
		return 0, &replica.GapError{Have: t.progress}
	}
	for _, m := range b.Mutations {
		if err := t.refused[m.Decree]; err != nil && m.Decree > t.progress {
			return 0, err
		}
	}
	t.batches++
	if len(b.Mutations) == 0 {
		t.empty++
	}
	for _, m := range b.Mutations {
		if m.Decree > t.progress {
			t.got = append(t.got, mutation.SourceMutation{Decree: m.Decree, Data: bytes.Clone(m.Data)})
		}
	}
	t.progress = max(t.progress, b.Last)
	t.changed.Broadcast()
	return t.progress, nil
}

// setHold makes batches wait, or lets those that wait go on.
func (t *testTarget) setHold(hold bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hold = hold
	if !hold {
		for _, apply := range t.held {
			apply()
		}
		t.held = nil
	}
}

// await blocks until f, called under the target's lock, is true.
func (t *testTarget) await(tb testing.TB, what string, f func() bool) {
	tb.Helper()
	expired := false
	timer := time.AfterFunc(20*time.Second, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		expired = true
		t.changed.Broadcast()
	})
	defer timer.Stop()
	t.mu.Lock()
	defer t.mu.Unlock()
	for !f() && !expired {
		t.changed.Wait()
	}
	if !f() {
		tb.Fatalf("timed out: %s (progress %d, %d mutations)", what, t.progress, len(t.got))
	}
}

// mustEqual waits until the target has everything and checks that it has it exactly once and in order.
func (t *testTarget) mustEqual(tb testing.TB, p *testPartition) {
	tb.Helper()
	last := p.last()
	t.await(tb, fmt.Sprintf("progress to %d", last), func() bool { return t.progress >= last })
	t.mu.Lock()
	defer t.mu.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(t.got) != len(p.own) {
		tb.Fatalf("partition %d: %d mutations arrived, %d were made", p.id, len(t.got), len(p.own))
	}
	for i := range t.got {
		if t.got[i].Decree != p.own[i].Decree || !bytes.Equal(t.got[i].Data, p.own[i].Data) {
			tb.Fatalf("partition %d: mutation %d: decree %d arrived, %d was made", p.id, i, t.got[i].Decree, p.own[i].Decree)
		}
	}
}

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
	setDefault(&o.RetryMin, time.Millisecond)
	setDefault(&o.RetryMax, 10*time.Millisecond)
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

// faults is a network that damages what goes over it, as often as told.
type faults struct {
	network Network

	mu      sync.Mutex
	rng     *rand.Rand
	percent int // of messages that meet a fault
	cuts    []context.CancelFunc
	opened  []string
}

func (f *faults) set(seed uint64, percent int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.rng, f.percent = rand.New(rand.NewPCG(seed, seed)), percent
}

// cut breaks all open streams.
func (f *faults) cut() {
	f.mu.Lock()
	cuts := f.cuts
	f.cuts = nil
	f.mu.Unlock()
	for _, cut := range cuts {
		cut()
	}
}

// draw returns which of n faults is to happen, or -1.
func (f *faults) draw(n int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.percent == 0 || f.rng.IntN(100) >= f.percent {
		return -1
	}
	return f.rng.IntN(n)
}

func (f *faults) Duplicate(ctx context.Context, address string) (peer.DuplicateClientStream, error) {
	ctx, cancel := context.WithCancel(ctx)
	f.mu.Lock()
	f.cuts = append(f.cuts, cancel)
	f.opened = append(f.opened, address)
	f.mu.Unlock()
	stream, err := f.network.Duplicate(ctx, address)
	if err != nil {
		cancel()
		return nil, err
	}
	return &faultyStream{DuplicateClientStream: stream, faults: f, cut: cancel}, nil
}

// faultyStream loses, repeats and reorders batches, and breaks.
type faultyStream struct {
	peer.DuplicateClientStream
	faults *faults
	cut    context.CancelFunc
	late   *peerpb.DuplicateRequest
}

func (s *faultyStream) Send(m *peerpb.DuplicateRequest) error {
	if m.GetBatch() == nil {
		return s.DuplicateClientStream.Send(m)
	}
	var err error
	switch s.faults.draw(5) {
	case 0: // lost
		return nil
	case 1: // repeated
		err = s.DuplicateClientStream.Send(m)
	case 2: // broken before
		s.cut()
	case 3: // broken after
		defer s.cut()
	case 4: // late
		if s.late == nil {
			b := m.GetBatch()
			kept := &peerpb.Batch{Prev: b.Prev, Last: b.Last, Encoding: b.Encoding, Data: bytes.Clone(b.Data)}
			s.late = &peerpb.DuplicateRequest{Message: &peerpb.DuplicateRequest_Batch{Batch: kept}}
			return nil
		}
	}
	if err == nil {
		err = s.DuplicateClientStream.Send(m)
	}
	if s.late != nil && err == nil {
		err = s.DuplicateClientStream.Send(s.late)
		s.late = nil
	}
	return err
}

func (s *faultyStream) Recv() (*peerpb.DuplicateResponse, error) {
	answer, err := s.DuplicateClientStream.Recv()
	if err == nil && answer.GetAck() != nil && s.faults.draw(4) == 0 {
		// The confirmation is lost with the stream.
		s.cut()
		return s.DuplicateClientStream.Recv()
	}
	return answer, err
}
