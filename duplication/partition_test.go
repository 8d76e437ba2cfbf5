package duplication

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"replicanode/plog"
	"replicanode/replica"
	"replicanode/replica/mutation"
)

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
	readOnly   bool // progress cannot be recorded
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

func (p *testPartition) ID() uint32 { return p.id }

func (p *testPartition) Log() *plog.Log { return p.log }

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
	if p.readOnly {
		return errors.New("no space")
	}
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
