package duplication

import (
	"fmt"
	"time"

	"replicanode/replica/mutation"
)

// begin starts a stream from what the remote says it has.
func (p *pipeline) begin(confirmed uint64) error {
	if err := p.feed.has(confirmed); err != nil {
		return err
	}
	p.enter(StateShipping, "")
	p.mu.Lock()
	p.connects++
	p.known = true
	if confirmed < p.confirmed {
		p.oldest = 0
	}
	if confirmed != p.cursor {
		p.rewind(confirmed)
	}
	p.inflight, p.inflightBytes = p.inflight[:0], 0
	p.confirmed = confirmed
	p.floor.Store(confirmed)
	p.mu.Unlock()
	p.feed.trim()
	return nil
}

// has returns an error when decree was never reached here.
func (f *feed) has(decree uint64) error {
	if decree <= f.head() {
		return nil
	}
	log, err := f.log()
	if err != nil {
		return err
	}
	if last := log.LastIndex(); decree > last {
		return fmt.Errorf("%w: it has decree %d, the newest here is %d", errAhead, decree, last)
	}
	return nil
}

// rewind makes decree the last one sent. The caller holds mu.
func (p *pipeline) rewind(decree uint64) {
	p.cursor, p.clean = decree, decree
	p.queue, p.queueBytes = nil, 0
	p.collected = false
	p.skipBytes = 0
}

// acknowledge notes what the remote has confirmed.
func (p *pipeline) acknowledge(confirmed uint64) error {
	if err := p.feed.has(confirmed); err != nil {
		return err
	}
	p.mu.Lock()
	moved := confirmed > p.confirmed
	if moved {
		p.confirmed = confirmed
		p.progress = true
		p.floor.Store(confirmed)
		p.recover()
	}
	done := 0
	for done < len(p.inflight) && p.inflight[done].last <= confirmed {
		p.inflightBytes -= p.inflight[done].bytes
		if p.inflight[done].newest != 0 {
			p.oldest = p.inflight[done].newest
		}
		done++
	}
	p.inflight = p.inflight[:copy(p.inflight, p.inflight[done:])]
	if confirmed > p.cursor {
		// An earlier stream's batches have been applied since the greeting.
		p.rewind(confirmed)
	}
	if len(p.inflight) == 0 {
		p.watchdog.Stop()
	} else if moved {
		p.watchdog.Reset(p.o.AckTimeout)
	}
	p.mu.Unlock()
	if moved {
		p.feed.trim()
		p.feed.dirty()
	}
	p.signal()
	return nil
}

// next takes the next batch to send, nil when there is none or the window is full. load says that the log has to be read.
func (p *pipeline) next() (b *batch, load bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.collected && p.remote.FailMode != FailSkip {
		return nil, false, fmt.Errorf("%w: decree %d", errLogCollected, p.clean+1)
	}
	p.full, p.idle = p.windowFull(), false
	if p.full {
		return nil, false, nil
	}
	if p.collected && len(p.queue) == 0 {
		if b, err = p.skipCollected(); err != nil {
			return nil, false, err
		}
	}
	if b != nil {
		p.skipBytes = 0
	} else if len(p.queue) > 0 {
		b = p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		p.queueBytes -= b.bytes
		b.prev = p.cursor
		p.skipBytes = 0
	} else {
		b, load = p.fromTail()
	}
	if b == nil {
		return nil, load && p.mayLoad(), nil
	}
	b = p.dose(b)
	if len(p.inflight) == 0 {
		p.watchdog.Reset(p.o.AckTimeout)
	}
	p.cursor, p.clean = b.last, max(p.clean, b.last)
	p.inflight = append(p.inflight, sent{last: b.last, only: b.only(), bytes: b.bytes, first: b.first, newest: b.newest})
	p.inflightBytes += b.bytes
	return b, !p.windowFull() && p.mayLoad() && !p.feed.inTail(p.readTo()), nil
}

// windowFull says whether the remote has to confirm something before more is sent. The caller holds mu.
func (p *pipeline) windowFull() bool {
	if len(p.inflight) == 0 {
		return false
	}
	return len(p.inflight) >= p.o.WindowBatches || p.inflightBytes >= p.o.WindowBytes || p.inflight[0].last <= p.careful
}

// fromTail makes a batch of what the tail has next. It returns none, and behind, when the log has to be read first.
// The caller holds mu.
func (p *pipeline) fromTail() (b *batch, behind bool) {
	v := p.feed.after(p.clean, p.o.BatchBytes, p.records[:0])
	for {
		p.records = v.records
		if v.behind {
			return nil, true
		}
		b = &batch{prev: p.cursor, mutations: p.scratch[:0]}
		for i := range v.records {
			r := &v.records[i]
			if r.data != nil {
				b.add(r.decree, r.timestamp, r.data)
			}
			v.clean = r.decree
		}
		clear(v.records)
		p.scratch = b.mutations
		moved := v.clean > p.clean
		p.clean, b.last = v.clean, v.clean
		if len(b.mutations) > 0 {
			p.passed, p.skipBytes = v.passed, 0
			return b, false
		}
		if !moved {
			break
		}
		v = p.feed.after(p.clean, p.o.BatchBytes, p.records[:0])
	}
	bytes := v.passed - p.passed + p.skipBytes
	if p.clean-p.cursor >= p.o.SkipDecrees || p.clean > p.cursor && bytes >= uint64(p.o.SkipBytes) {
		p.passed, p.skipBytes = v.passed, 0
		return b, false
	}
	p.idle = true
	if len(p.inflight) == 0 {
		p.recover()
	}
	return nil, false
}

// recover forgets the last failure: the remote has confirmed more since, or there is nothing that it lacks. The caller holds mu.
func (p *pipeline) recover() { p.lastError, p.errorAt = nil, time.Time{} }

// readTo is the last decree that is sent, queued or needs no sending. The caller holds mu.
func (p *pipeline) readTo() uint64 {
	if n := len(p.queue); n > 0 {
		return p.queue[n-1].last
	}
	return p.clean
}

// shipped counts a batch that was sent.
func (p *pipeline) shipped(b *batch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.batches++
	p.mutations += uint64(len(b.mutations))
	p.bytes += uint64(b.bytes)
	if b.loaded {
		p.loadedBytes += uint64(b.bytes)
	}
}

// lag says how far behind the remote is.
func (p *pipeline) lag(now time.Time) Lag {
	p.mu.Lock()
	defer p.mu.Unlock()
	position := p.confirmed
	if p.cursor <= p.confirmed {
		position = max(position, p.clean)
	}
	p.feed.mu.Lock()
	defer p.feed.mu.Unlock()
	f := p.feed
	oldest, bytes, some := f.line.after(position)
	lag := Lag{Bytes: bytes}
	if position >= f.base {
		if !some {
			return Lag{}
		}
		lag.Decrees = f.line.last - position
	} else {
		lag.Decrees = max(f.base, f.line.last) - position
		lag.Bytes += p.unseenBytes(f.base - position)
		if oldest = p.oldestUnseen(); oldest == 0 {
			// At least as old as this process's knowledge of the partition.
			oldest = mutation.TimestampOf(p.started)
		}
	}
	if oldest != 0 {
		lag.Seconds = max(0, now.Sub(oldest.Time()).Seconds())
	}
	return lag
}
