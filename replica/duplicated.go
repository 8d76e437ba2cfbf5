package replica

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"

	"replicanode/replica/mutation"
)

// ApplyDuplicated proposes a batch of a remote cluster. done is called exactly once, maybe before ApplyDuplicated
// returns: with the source decree up to which everything is applied here and durable, or with an error (GapError,
// ClockSkewError, TooLargeError, mutation.ErrFormat, and those of Propose). b is not kept. What of the batch is already
// applied is skipped. RefuseWrites does not hold it back, and a disk that fills up holds it back later than clients. ctx is only looked at before the batch is proposed.
func (p *Partition) ApplyDuplicated(ctx context.Context, b mutation.Batch, done func(confirmed uint64, err error)) {
	if err := ctx.Err(); err != nil {
		done(0, err)
		return
	}
	if err := p.checkBatch(&b); err != nil {
		done(0, err)
		return
	}
	if err := p.disk.space.admitDuplicated(); err != nil {
		done(0, err)
		return
	}
	c := &duplicatedCommand{done: done, last: b.Last}
	c.data = mutation.AppendDuplicated(make([]byte, 0, mutation.HeaderBytes+b.EncodedBytes()), 0, p.o.ClusterID, &b)
	if err := p.enqueue(c); err != nil {
		done(0, err)
	}
}

func (p *Partition) checkBatch(b *mutation.Batch) error {
	if err := b.Validate(); err != nil {
		return err
	}
	if b.Cluster == p.o.ClusterID {
		return fmt.Errorf("%w: a batch of this very cluster", mutation.ErrFormat)
	}
	if n := b.EncodedBytes(); n > p.o.MaxDuplicatedBytes {
		return &TooLargeError{What: "batch", Bytes: n, Limit: p.o.MaxDuplicatedBytes}
	}
	limit := mutation.TimestampOf(p.o.Clock().Add(p.o.MaxClockSkew))
	var op mutation.Op
	for i := range b.Mutations {
		h, d, err := mutation.Decode(b.Mutations[i].Data)
		if err != nil {
			return err
		}
		if h.Timestamp > limit {
			ahead := h.Timestamp.Time().Sub(p.o.Clock())
			return &ClockSkewError{AheadSeconds: ahead.Seconds(), LimitSeconds: p.o.MaxClockSkew.Seconds()}
		}
		for d.Next(&op) {
			if err := p.checkOp(&op); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkOp applies the format's own limits: the remote cluster may have configured larger ones than this one.
func (p *Partition) checkOp(op *mutation.Op) error {
	valueLimit := maxValueBytes
	if op.Code == mutation.OpHashPut {
		valueLimit = maxFieldValueBytes
	}
	switch {
	case len(op.Key)+len(op.Field) > maxKeyBytes:
		return &TooLargeError{What: "key", Bytes: len(op.Key) + len(op.Field), Limit: maxKeyBytes}
	case len(op.Value) > valueLimit:
		return &TooLargeError{What: "value", Bytes: len(op.Value), Limit: valueLimit}
	}
	return nil
}

// duplicatedCommand turns one batch into one mutation.
type duplicatedCommand struct {
	data []byte
	last uint64
	have uint64 // when the whole batch was applied before
	done func(confirmed uint64, err error)
}

// Execute is never called: the command is an ownMutation.
func (c *duplicatedCommand) Execute(*Tx) {}

// Finish implements Command.
func (c *duplicatedCommand) Finish(err error) {
	if err != nil {
		c.done(0, err)
		return
	}
	c.done(max(c.last, c.have), nil)
}

func (c *duplicatedCommand) mutate(p *Partition, mu *mutator) ([]byte, error) {
	h, b, err := mutation.DecodeDuplicated(c.data)
	if err != nil {
		return nil, err
	}
	have, err := mu.progress(b.Cluster, b.Partition)
	if err != nil {
		return nil, err
	}
	if b.Prev > have {
		return nil, &GapError{Have: have}
	}
	if b.Last <= have {
		c.have = have
		return nil, nil
	}
	for i := range b.Mutations {
		source, err := mutation.ParseHeader(b.Mutations[i].Data)
		if err != nil {
			return nil, err
		}
		p.clock.Observe(source.Timestamp)
	}
	h.Timestamp = p.clock.Next()
	mutation.AppendHeader(c.data[:0], h)
	mu.enter(mu.set, h.Timestamp)
	return c.data, p.mutateDuplicated(mu, c.data)
}

// mutateDuplicated does a duplicated mutation: what is beyond the progress is applied, and the progress moves with it
// in the same decree. That is what makes it exactly once.
func (p *Partition) mutateDuplicated(mu *mutator, data []byte) error {
	_, b, err := mutation.DecodeDuplicated(data)
	if err != nil {
		return err
	}
	have, err := mu.progress(b.Cluster, b.Partition)
	if err != nil {
		return err
	}
	if b.Prev > have || b.Last <= have {
		return nil
	}
	for i := range b.Mutations {
		m := &b.Mutations[i]
		if m.Decree <= have {
			continue
		}
		if err := mu.applyUser(m.Data, false); err != nil {
			return fmt.Errorf("source decree %d: %w", m.Decree, err)
		}
		p.clock.Observe(mu.stamp.ts)
	}
	mu.writeSystem(appendProgressKey(nil, b.Cluster, b.Partition), b.Last)
	return nil
}

// progress is the source decree up to which a remote partition is applied.
func (mu *mutator) progress(cluster uint64, partition uint32) (uint64, error) {
	rec, err := mu.s.read(appendProgressKey(nil, cluster, partition))
	if err != nil || rec == nil {
		return 0, err
	}
	return parseNumber(rec)
}

func parseNumber(rec []byte) (uint64, error) {
	if len(rec) != 8 {
		return 0, fmt.Errorf("%w: number of %d bytes", errState, len(rec))
	}
	return binary.LittleEndian.Uint64(rec), nil
}

// DuplicationProgress is the source decree up to which a remote partition's mutations are applied here; 0 for none. ErrNotReady unless
// this node leads and has applied everything of earlier leaders: others may lack what is confirmed.
func (p *Partition) DuplicationProgress(cluster uint64, partition uint32) (have uint64, err error) {
	if !p.serving.Load() {
		return 0, ErrNotReady
	}
	err = p.viewApplied(func(v *View) error {
		rec, err := readRecord(v.txn, appendProgressKey(nil, cluster, partition))
		if err == nil && rec != nil {
			have, err = parseNumber(rec)
		}
		return err
	})
	return have, err
}

// progressCommand records what a remote has confirmed.
type progressCommand struct {
	record mutation.ProgressRecord
	done   chan error
}

// Execute is never called: the command is an ownMutation.
func (c *progressCommand) Execute(*Tx) {}

// Finish implements Command.
func (c *progressCommand) Finish(err error) { c.done <- err }

func (c *progressCommand) mutate(p *Partition, mu *mutator) ([]byte, error) {
	mu.enter(mu.set, p.clock.Next())
	data := mutation.AppendProgress(nil, mu.at, p.o.ClusterID, c.record)
	return data, mu.applyProgress(data)
}

func (mu *mutator) applyProgress(data []byte) error {
	_, rec, err := mutation.DecodeProgress(data)
	if err == nil {
		mu.writeSystem(appendConfirmedKey(nil, rec.Remote), rec.Decree)
	}
	return err
}

const maxRemoteName = 256

// RecordConfirmed logs that a remote has everything up to decree. It returns when that is applied, so the record
// survives restarts and changes of leader. Callers limit how often they call.
func (p *Partition) RecordConfirmed(remote string, decree uint64) error {
	if remote == "" || len(remote) > maxRemoteName {
		return fmt.Errorf("record confirmed decree: name of %d bytes", len(remote))
	}
	c := &progressCommand{record: mutation.ProgressRecord{Remote: remote, Decree: decree}, done: make(chan error, 1)}
	if err := p.enqueue(c); err != nil {
		return err
	}
	return <-c.done
}

// Confirmed is the last recorded confirmed decree of a remote.
func (p *Partition) Confirmed(remote string) (uint64, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	decree, ok := p.confirmed[remote]
	return decree, ok
}

// Confirmations are the last recorded confirmed decrees of all remotes.
func (p *Partition) Confirmations() map[string]uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.confirmed)
}

// noteProgress keeps the copy of the confirmed decrees up to date.
func (p *Partition) noteProgress(a *applier) {
	for i := range a.steps {
		data := a.steps[i].entry.GetData()
		if a.steps[i].effects == nil || len(data) < 2 || mutation.Kind(data[1]) != mutation.Progress {
			continue
		}
		if _, rec, err := mutation.DecodeProgress(data); err == nil {
			p.mu.Lock()
			p.confirmed[rec.Remote] = rec.Decree
			p.mu.Unlock()
		}
	}
}
