package duplication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/s2"

	"replicanode/peer"
	"replicanode/peer/peerpb"
	"replicanode/replica/mutation"
)

// smallBatch is the size in bytes below which packing a batch saves nothing worth the work.
const smallBatch = 256

// session is one open stream.
type session struct {
	p      *pipeline
	stream peer.DuplicateClientStream
	cancel context.CancelCauseFunc
}

// ship opens a stream and ships until it breaks; it returns why.
func (p *pipeline) ship(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	p.mu.Lock()
	if p.paused {
		p.mu.Unlock()
		return errPaused
	}
	p.interrupt = cancel
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.interrupt = nil
		p.mu.Unlock()
	}()
	address := p.target()
	p.enter(StateConnecting, address)
	greeting := time.AfterFunc(p.o.HelloTimeout, func() { cancel(errNoHello) })
	defer greeting.Stop()
	s := &session{p: p, cancel: cancel}
	confirmed, err := s.open(ctx, address)
	if err != nil {
		return reason(ctx, err)
	}
	greeting.Stop()
	if err := p.begin(confirmed); err != nil {
		return err
	}
	p.logger.Info("duplication connected", "address", address, "confirmed", confirmed)
	p.source.reachable(p)
	return s.run(ctx, parent)
}

// open greets the remote and returns what it has.
func (s *session) open(ctx context.Context, address string) (uint64, error) {
	hello, err := s.p.greeting()
	if err != nil {
		return 0, err
	}
	stream, err := s.p.o.Network.Duplicate(ctx, address)
	if err != nil {
		return 0, err
	}
	s.stream = stream
	// A failed Send means that the stream has ended; Recv says why.
	if err := stream.Send(&peerpb.DuplicateRequest{Message: &peerpb.DuplicateRequest_Hello{Hello: hello}}); err != nil && !errors.Is(err, io.EOF) {
		return 0, fmt.Errorf("greet %s: %w", address, err)
	}
	answer, err := receive(stream)
	if err != nil {
		return 0, fmt.Errorf("greet %s: %w", address, err)
	}
	ack := answer.GetHelloAck()
	switch {
	case ack == nil:
		return 0, fmt.Errorf("%w: no answer to the greeting", errProtocol)
	case ack.GetClusterId() == s.p.o.ClusterID:
		return 0, errSameCluster
	}
	return ack.GetConfirmed(), nil
}

// receive turns a refusal into an error.
func receive(stream peer.DuplicateClientStream) (*peerpb.DuplicateResponse, error) {
	answer, err := stream.Recv()
	if errors.Is(err, io.EOF) {
		return nil, errStreamEnded
	}
	if err != nil {
		return nil, peer.Plain(err)
	}
	if r := answer.GetRefusal(); r != nil {
		return nil, &refusalError{reason: r.GetReason(), detail: r.GetDetail(), leader: r.GetLeaderAddress()}
	}
	return answer, nil
}

// reason prefers why a stream was cancelled to how that looks on the stream.
func reason(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// run ships until the stream breaks.
func (s *session) run(ctx, parent context.Context) error {
	watchdog := time.AfterFunc(s.p.o.AckTimeout, func() { s.cancel(errNoProgress) })
	watchdog.Stop()
	s.p.mu.Lock()
	s.p.watchdog = watchdog
	s.p.mu.Unlock()
	received := make(chan struct{})
	go func() {
		defer close(received)
		s.cancel(s.receiveAcks())
	}()
	err := s.send(ctx, parent)
	s.cancel(err)
	<-received
	watchdog.Stop()
	return context.Cause(ctx)
}

// receiveAcks takes in what the remote confirms until the stream breaks; it returns why.
func (s *session) receiveAcks() error {
	for {
		answer, err := receive(s.stream)
		if err != nil {
			return err
		}
		ack := answer.GetAck()
		if ack == nil {
			return fmt.Errorf("%w: unexpected message", errProtocol)
		}
		if err := s.p.acknowledge(ack.GetConfirmed()); err != nil {
			return err
		}
	}
}

// send ships what there is until the stream breaks; it returns why. Jobs live on when the stream breaks, under parent.
func (s *session) send(ctx, parent context.Context) error {
	p := s.p
	for ctx.Err() == nil {
		if _, isSelf := p.feed.partition.Leader(); !isSelf {
			return errNotLeader
		}
		b, load, err := p.next()
		if err != nil {
			return err
		}
		if load {
			p.submit(parent)
		}
		if b == nil {
			p.wait(ctx, nil)
			continue
		}
		if err := s.sendBatch(ctx, b); err != nil {
			return err
		}
	}
	return context.Cause(ctx)
}

// sendBatch encodes a batch and sends it; it blocks while the remote reads nothing.
func (s *session) sendBatch(ctx context.Context, b *batch) error {
	p := s.p
	buffers := p.source.buffers.Get().(*buffers)
	defer p.source.buffers.Put(buffers)
	wire := mutation.Batch{Cluster: p.o.ClusterID, Partition: p.feed.partition.ID(), Prev: b.prev, Last: b.last, Mutations: b.mutations}
	buffers.plain = wire.Append(buffers.plain[:0])
	message := &peerpb.Batch{Prev: b.prev, Last: b.last, Encoding: peerpb.Encoding_ENCODING_PLAIN, Data: buffers.plain}
	if len(buffers.plain) >= smallBatch {
		if need := s2.MaxEncodedLen(len(buffers.plain)); need > cap(buffers.packed) {
			buffers.packed = make([]byte, need)
		}
		packed := s2.Encode(buffers.packed[:cap(buffers.packed)], buffers.plain)
		if len(packed) < len(buffers.plain) {
			message.Encoding, message.Data = peerpb.Encoding_ENCODING_S2, packed
		}
	}
	err := s.stream.Send(&peerpb.DuplicateRequest{Message: &peerpb.DuplicateRequest_Batch{Batch: message}})
	if errors.Is(err, io.EOF) {
		// The stream has ended; the receiving goroutine learns why.
		<-ctx.Done()
		return context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("send batch up to decree %d: %w", b.last, err)
	}
	p.shipped(b)
	clear(p.scratch)
	return nil
}

// buffers are what encoding a batch needs; gRPC has copied them when Send returns.
type buffers struct{ plain, packed []byte }
