package duplication

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/s2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"replicanode/peer/peerpb"
	"replicanode/replica"
	"replicanode/replica/mutation"
)

// fakeStream is a stream without a network: a test feeds what the receiver reads and sees what it sends.
type fakeStream struct {
	grpc.ServerStream
	ctx    context.Context
	cancel context.CancelFunc
	in     chan *peerpb.DuplicateRequest
	out    chan *peerpb.DuplicateResponse
}

func newFakeStream() *fakeStream {
	s := &fakeStream{in: make(chan *peerpb.DuplicateRequest, 100), out: make(chan *peerpb.DuplicateResponse, 1000)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

func (s *fakeStream) Context() context.Context               { return s.ctx }
func (s *fakeStream) SetHeader(metadata.MD) error            { return nil }
func (s *fakeStream) Send(m *peerpb.DuplicateResponse) error { s.out <- m; return nil }

func (s *fakeStream) Recv() (*peerpb.DuplicateRequest, error) {
	select {
	case m, ok := <-s.in:
		if !ok {
			return nil, io.EOF
		}
		return m, nil
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// serve runs the receiver's side as the server does: when it returns, the stream is over.
func (s *fakeStream) serve(r *Receiver) error {
	defer s.cancel()
	return r.Duplicate(s)
}

func newTestReceiver(tb testing.TB, target Target, spoil func(*ReceiverOptions)) *Receiver {
	tb.Helper()
	o := ReceiverOptions{
		ClusterID: clusterB, PartitionCount: 4, MaxBatchBytes: 1 << 20, HelloTimeout: time.Minute,
		Target: func(partition uint32) Target {
			if partition == 3 {
				return nil
			}
			return target
		},
	}
	if spoil != nil {
		spoil(&o)
	}
	r, err := NewReceiver(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { stopReceiver(tb, r) })
	return r
}

func stopReceiver(tb testing.TB, r *Receiver) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Stop(ctx); err != nil {
		tb.Errorf("stop receiver: %v", err)
	}
}

func hello(cluster uint64, partition, partitions uint32) *peerpb.DuplicateRequest {
	m := &peerpb.Hello{ClusterId: cluster, Partition: partition, Partitions: partitions}
	return &peerpb.DuplicateRequest{Message: &peerpb.DuplicateRequest_Hello{Hello: m}}
}

func request(b *peerpb.Batch) *peerpb.DuplicateRequest {
	return &peerpb.DuplicateRequest{Message: &peerpb.DuplicateRequest_Batch{Batch: b}}
}

// wire encodes a batch with one user mutation per decree.
func wire(cluster uint64, partition uint32, prev, last uint64, decrees ...uint64) *peerpb.Batch {
	b := mutation.Batch{Cluster: cluster, Partition: partition, Prev: prev, Last: last}
	for _, d := range decrees {
		var m mutation.Builder
		m.Reset(mutation.Header{Kind: mutation.User, Timestamp: mutation.Timestamp(d), Cluster: clusterA})
		m.Put([]byte("key"), []byte("value"), 0)
		b.Mutations = append(b.Mutations, mutation.SourceMutation{Decree: d, Data: bytes.Clone(m.Bytes())})
	}
	return &peerpb.Batch{Prev: prev, Last: last, Encoding: peerpb.Encoding_ENCODING_PLAIN, Data: b.Append(nil)}
}

func TestReceiverRefuses(t *testing.T) {
	const invalid, unacceptable = peerpb.RefusalReason_REFUSAL_REASON_INVALID, peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE
	good := wire(clusterA, 1, 0, 5, 2, 5)
	spoiled := func(f func(*peerpb.Batch)) *peerpb.DuplicateRequest {
		b := proto.CloneOf(good)
		f(b)
		return request(b)
	}
	greeting := hello(clusterA, 1, 4)
	huge := s2.Encode(nil, make([]byte, 2<<20))
	for name, c := range map[string]struct {
		want     peerpb.RefusalReason
		messages []*peerpb.DuplicateRequest
	}{
		"no greeting":      {invalid, []*peerpb.DuplicateRequest{request(good)}},
		"empty message":    {invalid, []*peerpb.DuplicateRequest{{}}},
		"two greetings":    {invalid, []*peerpb.DuplicateRequest{greeting, greeting}},
		"no cluster":       {invalid, []*peerpb.DuplicateRequest{hello(0, 1, 4)}},
		"same cluster":     {peerpb.RefusalReason_REFUSAL_REASON_SAME_CLUSTER, []*peerpb.DuplicateRequest{hello(clusterB, 1, 4)}},
		"other partitions": {peerpb.RefusalReason_REFUSAL_REASON_PARTITIONS_DIFFER, []*peerpb.DuplicateRequest{hello(clusterA, 1, 8)}},
		"partition beyond": {invalid, []*peerpb.DuplicateRequest{hello(clusterA, 4, 4)}},
		"partition absent": {peerpb.RefusalReason_REFUSAL_REASON_NOT_LEADER, []*peerpb.DuplicateRequest{hello(clusterA, 3, 4)}},
		"gap":              {peerpb.RefusalReason_REFUSAL_REASON_GAP, []*peerpb.DuplicateRequest{greeting, request(wire(clusterA, 1, 7, 8, 8))}},
		"no encoding":      {invalid, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Encoding = 0 })}},
		"unknown encoding": {invalid, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Encoding = 9 })}},
		"not packed":       {invalid, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Encoding = peerpb.Encoding_ENCODING_S2 })}},
		"no data":          {unacceptable, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Data = nil })}},
		"cut":              {unacceptable, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Data = b.Data[:len(b.Data)-1] })}},
		"other range":      {invalid, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Last = 6 })}},
		"other cluster":    {invalid, []*peerpb.DuplicateRequest{greeting, request(wire(7, 1, 0, 1))}},
		"other partition":  {invalid, []*peerpb.DuplicateRequest{greeting, request(wire(clusterA, 2, 0, 1))}},
		"foreign mutation": {invalid, []*peerpb.DuplicateRequest{hello(7, 1, 4), request(wire(7, 1, 0, 1, 1))}},
		"beyond the limit": {unacceptable, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) { b.Encoding, b.Data = peerpb.Encoding_ENCODING_S2, huge })}},
		"claims the memory": {unacceptable, []*peerpb.DuplicateRequest{greeting, spoiled(func(b *peerpb.Batch) {
			b.Encoding, b.Data = peerpb.Encoding_ENCODING_S2, []byte{0xff, 0xff, 0xff, 0xff, 0x0f}
		})}},
	} {
		t.Run(name, func(t *testing.T) {
			target := newTestTarget()
			r := newTestReceiver(t, target, nil)
			s := newFakeStream()
			for _, m := range c.messages {
				s.in <- m
			}
			if err := s.serve(r); err != nil {
				t.Fatal(err)
			}
			close(s.out)
			var last *peerpb.DuplicateResponse
			for last = range s.out {
			}
			if got := last.GetRefusal(); got.GetReason() != c.want {
				t.Fatalf("got %v, want %v", last, c.want)
			}
			if target.progress != 0 {
				t.Fatalf("something was applied")
			}
		})
	}
}

func TestReceiverConfirmsWhatIsDurable(t *testing.T) {
	target := newTestTarget()
	r := newTestReceiver(t, target, nil)
	s := newFakeStream()
	ended := make(chan error, 1)
	go func() { ended <- s.serve(r) }()
	s.in <- hello(clusterA, 1, 4)
	if ack := (<-s.out).GetHelloAck(); ack.GetClusterId() != clusterB || ack.GetConfirmed() != 0 {
		t.Fatalf("greeting answered with %v", ack)
	}
	for i := uint64(1); i <= 20; i++ {
		s.in <- request(wire(clusterA, 1, i-1, i, i))
	}
	for confirmed := uint64(0); confirmed < 20; {
		ack := (<-s.out).GetAck()
		if ack.GetConfirmed() <= confirmed || ack.GetConfirmed() > 20 {
			t.Fatalf("ack %v after %d", ack, confirmed)
		}
		confirmed = ack.GetConfirmed()
	}
	close(s.in)
	if err := <-ended; err != nil {
		t.Fatalf("a stream that was closed in order: %v", err)
	}
}

func TestNewerStreamTakesOver(t *testing.T) {
	r := newTestReceiver(t, newTestTarget(), nil)
	first, second := newFakeStream(), newFakeStream()
	ended := make(chan error, 2)
	for _, s := range []*fakeStream{first, second} {
		go func() { ended <- s.serve(r) }()
		s.in <- hello(clusterA, 1, 4)
		<-s.out
	}
	if got := (<-first.out).GetRefusal().GetReason(); got != peerpb.RefusalReason_REFUSAL_REASON_SUPERSEDED {
		t.Fatalf("the older stream got %v", got)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	second.in <- request(wire(clusterA, 1, 0, 1, 1))
	if got := (<-second.out).GetAck().GetConfirmed(); got != 1 {
		t.Fatalf("the newer stream confirmed %d", got)
	}
	close(second.in)
	<-ended
}

func TestReceiverBoundsWhatItHolds(t *testing.T) {
	one := int64(len(wire(clusterA, 1, 0, 1, 1).GetData()))
	for name, c := range map[string]struct {
		spoil func(*ReceiverOptions)
		want  int
	}{
		"batches": {func(o *ReceiverOptions) { o.MaxApplyingBatches = 3 }, 3},
		"bytes":   {func(o *ReceiverOptions) { o.MaxApplyingBytes = 2*one + one/2 }, 2},
		"single":  {func(o *ReceiverOptions) { o.MaxApplyingBytes = 1 }, 1},
	} {
		t.Run(name, func(t *testing.T) {
			target := newTestTarget()
			target.setHold(true)
			r := newTestReceiver(t, target, c.spoil)
			s := newFakeStream()
			s.in = make(chan *peerpb.DuplicateRequest)
			ended := make(chan error, 1)
			go func() { ended <- s.serve(r) }()
			s.in <- hello(clusterA, 1, 4)
			// One more than may be applied is read; then the receiver waits and nobody takes the next one.
			for i := range uint64(c.want + 1) {
				s.in <- request(wire(clusterA, 1, i, i+1, i+1))
			}
			target.await(t, "held batches", func() bool { return len(target.held) == c.want })
			select {
			case s.in <- request(wire(clusterA, 1, 90, 91, 91)):
				t.Fatal("the receiver read on")
			case <-time.After(10 * time.Millisecond):
			}
			target.setHold(false)
			target.await(t, "progress", func() bool { return target.progress == uint64(c.want+1) })
			close(s.in)
			if err := <-ended; err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestReceiverBoundsStreamsAndSilence(t *testing.T) {
	r := newTestReceiver(t, newTestTarget(), func(o *ReceiverOptions) { o.MaxStreams, o.HelloTimeout = 1, 50*time.Millisecond })
	silent, second := newFakeStream(), newFakeStream()
	ended := make(chan error, 1)
	entered := make(chan struct{})
	go func() { close(entered); ended <- silent.serve(r) }()
	<-entered
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	if got := (<-silent.out).GetRefusal().GetReason(); got != peerpb.RefusalReason_REFUSAL_REASON_INVALID {
		t.Fatalf("a silent source got %v", got)
	}
	first := newFakeStream()
	go func() { ended <- first.serve(r) }()
	first.in <- hello(clusterA, 1, 4)
	<-first.out
	if err := second.serve(r); err != nil {
		t.Fatal(err)
	}
	if got := (<-second.out).GetRefusal().GetReason(); got != peerpb.RefusalReason_REFUSAL_REASON_BUSY {
		t.Fatalf("a stream too many got %v", got)
	}
	stopReceiver(t, r)
	if got := (<-first.out).GetRefusal().GetReason(); got != peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE {
		t.Fatalf("at the stop a stream got %v", got)
	}
	<-ended
	late := newFakeStream()
	if err := late.serve(r); err != nil || (<-late.out).GetRefusal() == nil {
		t.Fatalf("a stream after the stop was not refused: %v", err)
	}
}

// panickingTarget breaks the rules.
type panickingTarget struct{ *testTarget }

func (panickingTarget) DuplicationProgress(uint64, uint32) (uint64, error) {
	return math.MaxUint64, nil
}

func (panickingTarget) ApplyDuplicated(context.Context, mutation.Batch, func(uint64, error)) {
	panic("broken")
}

func TestPanicInAPartitionEndsOnlyTheStream(t *testing.T) {
	r, err := NewReceiver(ReceiverOptions{ClusterID: clusterB, PartitionCount: 4, Target: func(uint32) Target { return panickingTarget{newTestTarget()} }})
	if err != nil {
		t.Fatal(err)
	}
	s := newFakeStream()
	s.in <- hello(clusterA, 1, 4)
	s.in <- request(wire(clusterA, 1, 0, 1, 1))
	if err := s.serve(r); err != nil {
		t.Fatal(err)
	}
	<-s.out
	if got := (<-s.out).GetRefusal().GetReason(); got != peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE {
		t.Fatalf("got %v", got)
	}
	stopReceiver(t, r)
}

// Whatever bytes arrive as messages, the receiver neither panics nor applies anything that is not a valid batch, and it ends.
func FuzzReceiver(f *testing.F) {
	greeting, err := proto.Marshal(hello(clusterA, 1, 4))
	if err != nil {
		f.Fatal(err)
	}
	plain := wire(clusterA, 1, 0, 5, 2, 5)
	packed := proto.CloneOf(plain)
	packed.Encoding, packed.Data = peerpb.Encoding_ENCODING_S2, s2.Encode(nil, plain.GetData())
	for _, b := range []*peerpb.Batch{plain, packed, {}, {Prev: 5, Last: 1}} {
		data, err := proto.Marshal(request(b))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(greeting, data)
		f.Add(data, greeting)
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		target := newTestTarget()
		r := newTestReceiver(t, target, nil)
		s := newFakeStream()
		for _, data := range [][]byte{first, second} {
			m := new(peerpb.DuplicateRequest)
			if proto.Unmarshal(data, m) == nil {
				s.in <- m
			}
		}
		close(s.in)
		if err := s.serve(r); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		stopReceiver(t, r)
		for i, m := range target.got {
			if err := mutation.Validate(m.Data); err != nil || i > 0 && m.Decree <= target.got[i-1].Decree {
				t.Fatalf("applied decree %d: %v", m.Decree, err)
			}
		}
	})
}

// TestWhatCanNeverBeAppliedIsRefusedForGood rather than sent again and again.
func TestWhatCanNeverBeAppliedIsRefusedForGood(t *testing.T) {
	r := newTestReceiver(t, newTestTarget(), nil)
	for _, err := range []error{
		&replica.TooLargeError{What: "batch", Bytes: 2, Limit: 1}, &replica.ClockSkewError{AheadSeconds: 9, LimitSeconds: 1},
		fmt.Errorf("decree 3: %w", mutation.ErrFormat),
	} {
		f := r.explain(err)
		if !permanent(&refusalError{reason: f.reason, detail: f.detail}) || !strings.Contains(f.detail, err.Error()) {
			t.Errorf("%v: %v", err, f)
		}
	}
	for _, err := range []error{replica.ErrNotReady, replica.ErrNoSpace, replica.ErrBusy, &replica.GapError{Have: 1}, &replica.NotLeaderError{}} {
		if f := r.explain(err); permanent(&refusalError{reason: f.reason}) {
			t.Errorf("%v: %v", err, f)
		}
	}
}
