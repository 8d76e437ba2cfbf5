package duplication

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"

	"replicanode/peer"
	"replicanode/peer/peerpb"
)

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
