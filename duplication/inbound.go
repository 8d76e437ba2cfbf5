package duplication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/klauspost/compress/s2"
	"golang.org/x/sync/semaphore"

	"replicanode/peer"
	"replicanode/peer/peerpb"
	"replicanode/replica/mutation"
)

// inbound is one open stream of a Receiver. The goroutine that serve runs in sends; the one that receive runs in reads messages
// and proposes batches. The stream ends when serve returns, and then receive ends too.
type inbound struct {
	r      *Receiver
	stream peer.DuplicateStream
	hello  chan *peerpb.Hello // the greeting, once
	// admitted is closed when origin and target are set and batches may be taken.
	admitted   chan struct{}
	superseded chan struct{}
	origin     origin
	target     Target
	greeted    uint64              // what the greeting was answered with
	slots      *semaphore.Weighted // batches of this stream being applied
	// wake holds one signal: confirmed or failure has changed.
	wake chan struct{}

	mu        sync.Mutex
	confirmed uint64
	failure   error
}

func newInbound(r *Receiver, stream peer.DuplicateStream) *inbound {
	return &inbound{
		r: r, stream: stream, hello: make(chan *peerpb.Hello, 1), admitted: make(chan struct{}), superseded: make(chan struct{}),
		slots: semaphore.NewWeighted(r.o.MaxApplyingBatches), wake: make(chan struct{}, 1),
	}
}

// serve answers the greeting and then sends what is confirmed, until the stream ends or is refused.
func (in *inbound) serve() error {
	refused := in.greet()
	if refused != nil {
		return in.refuse(refused)
	}
	defer in.r.uninstall(in)
	return in.confirm()
}

// greet waits for the greeting and answers it.
func (in *inbound) greet() *refusal {
	timeout := time.NewTimer(in.r.o.HelloTimeout)
	defer timeout.Stop()
	var hello *peerpb.Hello
	select {
	case hello = <-in.hello:
	case <-in.wake:
		return in.r.explain(in.failed())
	case <-timeout.C:
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "no greeting in time")
	case <-in.stream.Context().Done():
		return in.r.explain(context.Cause(in.stream.Context()))
	case <-in.r.ctx.Done():
		return in.r.explain(errReceiverStopped)
	}
	in.origin = origin{cluster: hello.GetClusterId(), partition: hello.GetPartition()}
	target, progress, refused := in.r.admit(hello)
	if refused != nil {
		return refused
	}
	in.target, in.greeted, in.confirmed = target, progress, progress
	in.r.install(in)
	ack := &peerpb.HelloAck{ClusterId: in.r.o.ClusterID, Confirmed: progress}
	if err := in.stream.Send(&peerpb.DuplicateResponse{Message: &peerpb.DuplicateResponse_HelloAck{HelloAck: ack}}); err != nil {
		in.r.uninstall(in)
		return in.r.explain(err)
	}
	in.r.o.Logger.Info("duplication stream opened", "cluster", in.origin.cluster, "partition", in.origin.partition, "confirmed", progress)
	close(in.admitted)
	return nil
}

// refuse tells the source why the stream ends.
func (in *inbound) refuse(refused *refusal) error {
	in.r.metrics.refused(refused.reason)
	in.r.o.Logger.Info("duplication stream refused", "cluster", in.origin.cluster, "partition", in.origin.partition,
		"reason", reasonLabel(refused.reason), "detail", refused.detail)
	return in.stream.Send(refused.response())
}

// confirm sends acknowledgements until the stream ends.
func (in *inbound) confirm() error {
	acked := in.greeted
	for {
		select {
		case <-in.wake:
		case <-in.superseded:
			return in.refuse(refuse(peerpb.RefusalReason_REFUSAL_REASON_SUPERSEDED, "a newer stream took over"))
		case <-in.stream.Context().Done():
			return context.Cause(in.stream.Context())
		case <-in.r.ctx.Done():
			return in.refuse(in.r.explain(errReceiverStopped))
		}
		in.mu.Lock()
		confirmed, failure := in.confirmed, in.failure
		in.mu.Unlock()
		if confirmed > acked {
			acked = confirmed
			ack := &peerpb.DuplicateResponse_Ack{Ack: &peerpb.Ack{Confirmed: confirmed}}
			if err := in.stream.Send(&peerpb.DuplicateResponse{Message: ack}); err != nil {
				return err
			}
		}
		if errors.Is(failure, io.EOF) {
			return nil
		}
		if failure != nil {
			return in.refuse(in.r.explain(failure))
		}
	}
}

// fail ends the stream; the first reason stays.
func (in *inbound) fail(err error) {
	in.mu.Lock()
	if in.failure == nil {
		in.failure = err
	}
	in.mu.Unlock()
	in.signal()
}

func (in *inbound) failed() error {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.failure
}

func (in *inbound) signal() {
	select {
	case in.wake <- struct{}{}:
	default:
	}
}

// receive reads messages until the stream ends or one is wrong.
func (in *inbound) receive() {
	defer in.r.work.Done()
	defer func() {
		if reason := recover(); reason != nil {
			in.r.o.Logger.Error("duplication receiver panicked", "panic", fmt.Sprint(reason), "stack", string(debug.Stack()))
			in.fail(refuse(peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE, "internal error"))
		}
	}()
	in.fail(in.receiveAll())
}

func (in *inbound) receiveAll() error {
	request, err := in.stream.Recv()
	if err != nil {
		return err
	}
	hello := request.GetHello()
	if hello == nil {
		return refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "the first message is no greeting")
	}
	in.hello <- hello
	select {
	case <-in.admitted:
	case <-in.stream.Context().Done():
		return context.Cause(in.stream.Context())
	}
	for {
		request, err := in.stream.Recv()
		if err != nil {
			return err
		}
		message := request.GetBatch()
		if message == nil {
			return refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "a batch was expected")
		}
		if err := in.propose(message); err != nil {
			return err
		}
	}
}

// propose takes a batch in and gives it to the partition; it waits while too much is being applied.
func (in *inbound) propose(message *peerpb.Batch) error {
	size, err := unpackedBytes(message, in.r.o.MaxBatchBytes)
	if err != nil {
		return err
	}
	// A batch beyond the whole budget passes alone.
	cost := min(int64(size), in.r.o.MaxApplyingBytes)
	if err := in.slots.Acquire(in.stream.Context(), 1); err != nil {
		return err
	}
	if err := in.r.budget.Acquire(in.stream.Context(), cost); err != nil {
		return err
	}
	b, err := in.unpack(message, size)
	if err != nil {
		in.r.budget.Release(cost)
		return err
	}
	in.r.work.Add(1)
	in.r.metrics.applying.Add(float64(cost))
	var once sync.Once
	done := func(confirmed uint64, err error) {
		once.Do(func() {
			in.r.budget.Release(cost)
			in.slots.Release(1)
			in.r.metrics.applying.Sub(float64(cost))
			in.applied(len(b.Mutations), size, confirmed, err)
			in.r.work.Done()
		})
	}
	defer func() {
		if reason := recover(); reason != nil {
			done(0, refuse(peerpb.RefusalReason_REFUSAL_REASON_UNAVAILABLE, "internal error"))
			panic(reason)
		}
	}()
	in.target.ApplyDuplicated(in.r.ctx, b, done)
	return nil
}

// applied takes in the result of a batch.
func (in *inbound) applied(mutations, size int, confirmed uint64, err error) {
	if err != nil {
		in.fail(err)
		return
	}
	in.r.metrics.batches.Inc()
	in.r.metrics.mutations.Add(float64(mutations))
	in.r.metrics.bytes.Add(float64(size))
	in.mu.Lock()
	in.confirmed = max(in.confirmed, confirmed)
	in.mu.Unlock()
	in.signal()
}

// unpackedBytes is the size of a batch once unpacked, read from its first bytes only, and checked.
func unpackedBytes(message *peerpb.Batch, limit int) (int, error) {
	size := len(message.GetData())
	switch message.GetEncoding() {
	case peerpb.Encoding_ENCODING_PLAIN:
	case peerpb.Encoding_ENCODING_S2:
		var err error
		if size, err = s2.DecodedLen(message.GetData()); err != nil {
			return 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "batch cannot be unpacked: %v", err)
		}
	default:
		return 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "unknown encoding %d", message.GetEncoding())
	}
	if size > limit {
		return 0, refuse(peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE, "batch of %d bytes exceeds the limit of %d", size, limit)
	}
	return size, nil
}

// unpack decodes a batch of the given size and checks that it belongs to this stream.
func (in *inbound) unpack(message *peerpb.Batch, size int) (mutation.Batch, error) {
	data := message.GetData()
	if message.GetEncoding() == peerpb.Encoding_ENCODING_S2 {
		unpacked, err := s2.Decode(make([]byte, size), data)
		if err != nil {
			return mutation.Batch{}, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "batch cannot be unpacked: %v", err)
		}
		data = unpacked
	}
	b, err := mutation.ParseBatch(data)
	if err != nil {
		return mutation.Batch{}, refuse(peerpb.RefusalReason_REFUSAL_REASON_UNACCEPTABLE, "%v", err)
	}
	if b.Cluster != in.origin.cluster || b.Partition != in.origin.partition || b.Prev != message.GetPrev() || b.Last != message.GetLast() {
		return mutation.Batch{}, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "batch contradicts its stream or envelope")
	}
	for i := range b.Mutations {
		h, err := mutation.ParseHeader(b.Mutations[i].Data)
		if err != nil || h.Cluster != in.origin.cluster {
			return mutation.Batch{}, refuse(peerpb.RefusalReason_REFUSAL_REASON_INVALID, "decree %d is of another cluster", b.Mutations[i].Decree)
		}
	}
	return b, nil
}
