package duplication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"replicanode/internal/handover"
	"replicanode/plog"
	"replicanode/replica/mutation"
	"replicanode/tasks"
	"replicanode/threadpool"
)

// jobBatches is how many batches one job reads at most before it ends and lets others of its priority run.
const jobBatches = 8

// yieldEntries is how many small entries a job reads between two looks at the clock.
const yieldEntries = 64

// arenaBytes is the largest piece of memory that a loaded batch takes at once for small entries.
const arenaBytes = 256 << 10

// mayLoad says whether a job may be submitted now. The caller holds mu.
func (p *pipeline) mayLoad() bool {
	return !p.loading && p.queueBytes < p.o.ReadAheadBytes && !time.Now().Before(p.loadAfter)
}

// submit asks the long pool to read the log. Only the main goroutine calls it, and only it ends p.job.
func (p *pipeline) submit(ctx context.Context) {
	p.mu.Lock()
	if p.loading {
		p.mu.Unlock()
		return
	}
	p.loading, p.reading = true, false
	p.mu.Unlock()
	job, err := p.o.Jobs.Submit(ctx, tasks.LoadPrivateLog, p.key, p.load)
	if err != nil {
		p.loadEnded(fmt.Errorf("read the private log: %w", err))
		return
	}
	p.job = job
}

// prefetch reads what a remote lacked when this process started, before the remote answers: how far behind it is depends on the
// first mutation that it lacks, which may be in the log only.
func (p *pipeline) prefetch(ctx context.Context) {
	p.mu.Lock()
	position := p.clean
	p.mu.Unlock()
	if !p.feed.inTail(position) {
		p.submit(ctx)
	}
}

// harvest takes in the end of a job.
func (p *pipeline) harvest() {
	err := p.job.Err()
	p.job = nil
	p.loadEnded(err)
}

// loadEnded allows the next job, after a failure only when some time has passed.
func (p *pipeline) loadEnded(err error) {
	if err == nil {
		p.loadRetry.Reset()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loading, p.reading = false, false
	if err == nil || errors.Is(err, context.Canceled) {
		return
	}
	delay := max(p.loadRetry.NextBackOff(), time.Millisecond)
	p.loadAfter = time.Now().Add(delay)
	p.lastError, p.errorAt = err, time.Now()
	p.failures++
	p.logger.Error("private log cannot be read for duplication", "error", err, "retry_in", delay)
	p.loadTimer = time.AfterFunc(delay, p.signal)
}

// load is the job. It reads on a goroutine of its own: a disk that does not answer holds no slot.
func (p *pipeline) load(ctx context.Context, turn *threadpool.Turn) error {
	slice := turn.Slice()
	return handover.Run(turn, func(w *handover.Work) error { return p.loadOn(ctx, &readTurn{w, turn, slice}) })
}

// readTurn is the turn of a job, for the goroutine that reads.
type readTurn struct {
	w     *handover.Work
	turn  *threadpool.Turn
	slice time.Duration
}

func (t *readTurn) yield(ioBytes int) error {
	return t.w.Do(func() error { return t.turn.Yield(ioBytes) })
}

func (t *readTurn) await(ch <-chan struct{}) error {
	return t.w.Do(func() error { return t.turn.Await(ch) })
}

// loadOn reads a few batches and hands them over.
func (p *pipeline) loadOn(ctx context.Context, turn *readTurn) error {
	p.mu.Lock()
	p.reading = true
	position := p.readTo()
	p.mu.Unlock()
	for range jobBatches {
		if p.feed.inTail(position) {
			if p.o.tailLimit() > 0 {
				p.closeReader()
			}
			return nil
		}
		b, read, err := p.read(ctx, turn, position)
		if err != nil {
			p.closeReader()
		}
		if errors.Is(err, plog.ErrCompacted) {
			p.mu.Lock()
			p.collected = p.readTo() == position
			p.mu.Unlock()
			return nil
		}
		if err != nil {
			return fmt.Errorf("read the private log after decree %d: %w", position, err)
		}
		if !p.hand(b, position, read) {
			return nil
		}
		position = b.last
	}
	return nil
}

// hand gives the batch that follows position to the main goroutine and says whether there is room for another. A pipeline that
// was rewound meanwhile has no use for it.
func (p *pipeline) hand(b *batch, position uint64, read int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.signal()
	if position != p.readTo() {
		return false
	}
	p.readDecrees += b.last - position
	p.readBytes += uint64(b.bytes)
	switch {
	case len(b.mutations) > 0:
		p.queue = append(p.queue, b)
		p.queueBytes += b.bytes
	case len(p.queue) > 0:
		p.queue[len(p.queue)-1].last = b.last
	default:
		p.clean = b.last
		p.skipBytes += uint64(read)
	}
	return p.queueBytes < p.o.ReadAheadBytes
}

// read makes a batch of what follows position in the log, at least one decree, and says how many bytes it has read. It gives the
// slot away between slices.
func (p *pipeline) read(ctx context.Context, turn *readTurn, position uint64) (*batch, int, error) {
	if err := p.openReader(position + 1); err != nil {
		return nil, 0, err
	}
	b := &batch{last: position, loaded: true}
	var memory arena
	read, charged, started := 0, 0, time.Now()
	for n := 1; read < p.o.BatchBytes; n++ {
		e, err := p.reader.Next()
		if errors.Is(err, io.EOF) {
			if b.last > position {
				break
			}
			if err := p.awaitLog(ctx, turn); err != nil {
				return nil, 0, err
			}
			continue
		}
		if err != nil {
			return nil, 0, err
		}
		if e.Index != b.last+1 {
			return nil, 0, fmt.Errorf("decree %d follows %d", e.Index, b.last)
		}
		p.take(b, &e, &memory)
		p.readerAt = e.Index + 1
		read += len(e.Data) + recordOverhead
		if (n%yieldEntries == 0 || read-charged > tailChunkBytes) && time.Since(started) >= turn.slice {
			if err := turn.yield(read - charged); err != nil {
				return nil, 0, err
			}
			charged, started = read, time.Now()
		}
	}
	return b, read, turn.yield(read - charged)
}

// take adds an entry of the log to a batch, copied when it is to be shipped.
func (p *pipeline) take(b *batch, e *plog.Entry, memory *arena) {
	timestamp, ship, err := shippable(e, p.o.ClusterID)
	if err != nil {
		p.logger.Error("log entry is not a mutation; it is not duplicated", "decree", e.Index, "error", err)
	}
	if ship {
		b.add(e.Index, timestamp, memory.copy(e.Data))
	}
	b.last = e.Index
}

// awaitLog waits, without a slot, until the log has what was applied already.
func (p *pipeline) awaitLog(ctx context.Context, turn *readTurn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ready := make(chan struct{})
	var failure error
	go func() {
		defer close(ready)
		failure = p.reader.Wait(ctx)
	}()
	err := turn.await(ready)
	cancel()
	<-ready
	return errors.Join(err, failure)
}

func (p *pipeline) openReader(from uint64) error {
	if p.reader != nil && p.readerAt == from {
		return nil
	}
	p.closeReader()
	log, err := p.feed.log()
	if err != nil {
		return err
	}
	reader, err := log.NewReader(from)
	if err != nil {
		return err
	}
	p.reader, p.readerAt = reader, from
	return nil
}

func (p *pipeline) closeReader() {
	if p.reader == nil {
		return
	}
	if err := p.reader.Close(); err != nil {
		p.logger.Warn("private log reader cannot be closed", "error", err)
	}
	p.reader = nil
}

// unseenBytes estimates the size of decrees that the feed has not seen from those that were read. The caller holds mu.
func (p *pipeline) unseenBytes(decrees uint64) uint64 {
	if p.readDecrees == 0 {
		return 0
	}
	return uint64(float64(decrees) * float64(p.readBytes) / float64(p.readDecrees))
}

// oldestUnseen is the commit time of the oldest unconfirmed mutation, as far as is known without the feed. The caller holds mu.
func (p *pipeline) oldestUnseen() mutation.Timestamp {
	for i := range p.inflight {
		if p.inflight[i].first != 0 {
			return p.inflight[i].first
		}
	}
	if len(p.queue) > 0 {
		return p.queue[0].first
	}
	return p.oldest
}

// arena copies small pieces of data into few pieces of memory.
type arena struct {
	rest []byte
	size int
}

func (a *arena) copy(data []byte) []byte {
	if len(data) > len(a.rest) {
		a.size = min(max(2*a.size, 4<<10), arenaBytes)
		a.rest = make([]byte, max(a.size, len(data)))
	}
	kept := a.rest[:len(data):len(data)]
	copy(kept, data)
	a.rest = a.rest[len(data):]
	return kept
}
