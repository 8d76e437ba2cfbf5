package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dgraph-io/badger/v4"
	"github.com/klauspost/compress/zstd"

	"replicanode/replica"
)

// ErrNothingApplied is returned for a partition that is still at decree 0.
var ErrNothingApplied = errors.New("nothing has been applied to the partition yet")

// Source is the partition to copy.
type Source interface {
	ID() uint32
	// PinApplied returns the applied decree, and keeps every entry visible at that
	// decree from being discarded until release is called.
	PinApplied() (decree uint64, release func(), err error)
	// Term is the Raft term of a decree that was just pinned.
	Term(decree uint64) (uint64, error)
	// Mark differs, at a decree that was just pinned, between two histories of the
	// partition; "" when the source cannot tell.
	Mark(decree uint64) (string, error)
	// DB is the partition's database, in managed mode with version = decree.
	DB() *badger.DB
}

// Advancer is a Source whose applied decree can be made greater without changing what it holds.
type Advancer interface {
	// Advance returns when the applied decree is greater than when it was called, and the time of its mark than beyond.
	Advance(ctx context.Context, beyond uint64) error
}

// Sizer is a Source that knows about how much there is to copy.
type Sizer interface {
	// ChangedBytes is about how many raw bytes a copy of what changed after a decree has, 0 for all; 0 when it cannot tell.
	ChangedBytes(since uint64) uint64
}

// CreateOptions are the options of Store.Create.
type CreateOptions struct {
	// ClusterID and Partitions go into the manifest; a restore holds the second
	// against the target's.
	ClusterID  uint64
	Partitions uint32
	// ChunkBytes is the size at which a chunk file ends, 4 KiB to 1 GiB, default
	// 16 MiB. A chunk can exceed it by one entry.
	ChunkBytes int64
	// Slice is the longest time between two yields, default 1 ms.
	Slice time.Duration
	// Incremental allows a copy of only what changed since Parent, or with nil since
	// the newest usable checkpoint, when that is usable and at most MaxAge old, its
	// chain is shorter than MaxDepth (default 6), and the chain's incremental copies
	// take no more than the full one, or a chunk. The parent must be of the source's own history: a
	// partition that began anew or was put back to an earlier state has another one.
	// What the source removed since then without a trace must be what no reader can
	// see. MaxAge 0 forbids incremental copies.
	Incremental bool
	Parent      *Manifest
	MaxAge      time.Duration
	MaxDepth    int
	// Full demands a copy that builds on no other. Where an incremental one of the very
	// state exists, the source is advanced for it, so that both stay.
	Full bool
	// After is the time of a mark (replica.MarkTime) that the copy's must not be before, or
	// another history's would count as newer: a source that was put back to an earlier
	// state, or an earlier life of it, is advanced for it. 0 = none.
	After uint64
	// Progress is kept up to date while the copy is made; may be nil.
	Progress *Progress
	// Now is the clock, default time.Now.
	Now func() time.Time
}

// Progress counts what a running Create has done. All fields may be read at any time.
type Progress struct {
	Entries  atomic.Uint64 // copied
	RawBytes atomic.Uint64 // copied, before compression
	Bytes    atomic.Int64  // written
	Chunks   atomic.Uint32 // finished
	Decree   atomic.Uint64 // being copied, 0 until pinned
	Parent   atomic.Uint64 // decree that it builds on, 0 for a full copy and until that is decided
	Expected atomic.Uint64 // about RawBytes at the end, 0 = unknown
}

// EnsureDefaults fills in the defaults.
func (o *CreateOptions) EnsureDefaults() {
	o.ChunkBytes = cmp.Or(o.ChunkBytes, 16<<20)
	o.Slice = cmp.Or(o.Slice, time.Millisecond)
	o.MaxDepth = cmp.Or(o.MaxDepth, 6)
	if o.Progress == nil {
		o.Progress = &Progress{}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
}

// Validate says what is wrong with the options.
func (o *CreateOptions) Validate() error {
	switch {
	case o.ChunkBytes < 4<<10 || o.ChunkBytes > 1<<30:
		return fmt.Errorf("chunk size of %d bytes is not within 4 KiB and 1 GiB", o.ChunkBytes)
	case o.Slice < 0:
		return fmt.Errorf("slice of %v is negative", o.Slice)
	case o.MaxDepth < 0 || o.MaxDepth > 1000:
		return fmt.Errorf("chain depth of %d is not within 0 and 1000", o.MaxDepth)
	case o.Full && o.Incremental:
		return errors.New("a full copy can't be incremental")
	case o.MaxAge < 0:
		return fmt.Errorf("age of %v is negative", o.MaxAge)
	}
	return nil
}

// Create copies src at its applied decree. If a usable checkpoint of that very
// state exists it is returned and nothing is written. On an error nothing new
// can be listed or restored.
func (s *Store) Create(ctx context.Context, turn Turn, src Source, o CreateOptions) (m *Manifest, err error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	err = onOwn(turn, func(turn Turn) error {
		made, err := s.create(ctx, turn, src, o)
		m = made
		return err
	})
	return m, err
}

func (s *Store) create(ctx context.Context, turn Turn, src Source, o CreateOptions) (*Manifest, error) {
	if err := s.Clean(ctx, turn, src.ID()); err != nil {
		return nil, err
	}
	c := &creation{store: s, src: src, o: o, slices: newSlicer(ctx, turn, o.Slice)}
	release, there, err := c.pin()
	if err != nil {
		return nil, err
	}
	if behind := c.m.behind(o.After); behind || there != nil && o.Full && !there.Full() {
		release()
		if behind {
			err = c.goBeyond()
		} else {
			err = c.advance(there.Decree)
		}
		if err != nil {
			return nil, err
		}
		if release, there, err = c.pin(); err != nil {
			return nil, err
		}
	}
	defer release()
	if there != nil {
		return there, nil
	}
	if err := c.chooseParent(); err != nil {
		return nil, err
	}
	if sizer, ok := src.(Sizer); ok {
		o.Progress.Expected.Store(sizer.ChangedBytes(c.m.Parent))
	}
	o.Progress.Parent.Store(c.m.Parent)
	if err := c.run(); err != nil {
		return nil, fmt.Errorf("checkpoint partition %d at decree %d: %w", c.m.Partition, c.m.Decree, err)
	}
	return c.m, nil
}

// pin begins the manifest of the applied decree, which stays readable until release
// is called, and returns the usable checkpoint of that very state, if there is one.
func (c *creation) pin() (release func(), there *Manifest, err error) {
	id := c.src.ID()
	decree, unpin, err := c.src.PinApplied()
	if err != nil {
		return nil, nil, fmt.Errorf("pin partition %d: %w", id, err)
	}
	defer func() {
		if err != nil {
			unpin()
		}
	}()
	if decree == 0 {
		return nil, nil, ErrNothingApplied
	}
	term, err := c.src.Term(decree)
	if err != nil {
		return nil, nil, fmt.Errorf("term of decree %d of partition %d: %w", decree, id, err)
	}
	mark, err := c.src.Mark(decree)
	if err != nil {
		return nil, nil, fmt.Errorf("mark of decree %d of partition %d: %w", decree, id, err)
	}
	c.o.Progress.Decree.Store(decree)
	c.m = &Manifest{
		FormatVersion: FormatVersion, ClusterID: c.o.ClusterID, Partition: id, Partitions: c.o.Partitions,
		Decree: decree, Term: term, Mark: mark, Created: c.o.Now().UTC(), Chunks: []Chunk{},
	}
	m, err := c.existing(decree)
	if err != nil {
		return nil, nil, err
	}
	if m != nil && m.Term == term && m.Mark == mark && m.ClusterID == c.o.ClusterID {
		there = m
	}
	return unpin, there, nil
}

// advance makes room for a full copy beside an incremental one of the same decree,
// which other copies and checkpoints of the node may build on.
func (c *creation) advance(decree uint64) error {
	a, ok := c.src.(Advancer)
	if !ok {
		return fmt.Errorf("full checkpoint of partition %d: an incremental one of decree %d is there, and nothing has changed since", c.src.ID(), decree)
	}
	if err := c.slices.await(func() error { return a.Advance(c.slices.ctx, 0) }); err != nil {
		return fmt.Errorf("full checkpoint of partition %d beside the incremental one of decree %d: begin a new decree: %w", c.src.ID(), decree, err)
	}
	return nil
}

// goBeyond makes the source newer than the checkpoints of another history of it. What only follows another node can't be
// advanced, and is copied as it is.
func (c *creation) goBeyond() error {
	a, ok := c.src.(Advancer)
	if !ok {
		return nil
	}
	err := c.slices.await(func() error { return a.Advance(c.slices.ctx, c.o.After) })
	var follower *replica.NotLeaderError
	if err != nil && !errors.As(err, &follower) {
		return fmt.Errorf("checkpoint partition %d, which has newer ones of another life: begin a new decree: %w", c.src.ID(), err)
	}
	return nil
}

// existing returns the usable checkpoint at a decree; nil when there is none.
func (c *creation) existing(decree uint64) (m *Manifest, err error) {
	err = c.slices.await(func() error {
		if chain, err := c.store.chain(c.slices.ctx, c.src.ID(), decree); err == nil {
			m = chain[len(chain)-1]
		}
		return nil
	})
	return m, err
}

// creation is one run of Create.
type creation struct {
	store  *Store
	src    Source
	o      CreateOptions
	slices *slicer
	m      *Manifest
	draft  Draft
	file   slotWriter

	txn    *badger.Txn
	enc    *zstd.Encoder
	w      *chunkWriter
	resume []byte // first key not yet copied
	entry  Entry
}

// chooseParent makes the copy incremental if the options allow it and a usable
// parent exists.
func (c *creation) chooseParent() error {
	if !c.o.Incremental || c.o.MaxAge == 0 || c.o.MaxDepth == 0 {
		return nil
	}
	var chain []*Manifest
	err := c.slices.await(func() (err error) {
		chain, err = c.store.parentChain(c.slices.ctx, c.m.Partition, c.o.Parent)
		return err
	})
	if chain == nil {
		return err
	}
	parent, full := chain[len(chain)-1], chain[0]
	var grown int64
	for _, m := range chain[1:] {
		grown += m.Bytes
	}
	age := c.m.Created.Sub(parent.Created)
	if age < 0 || age > c.o.MaxAge || parent.Depth >= c.o.MaxDepth || parent.Decree >= c.m.Decree || grown > max(full.Bytes, c.o.ChunkBytes) ||
		parent.ClusterID != c.m.ClusterID || parent.Partitions != c.m.Partitions {
		return nil
	}
	c.m.Parent, c.m.ParentCRC, c.m.Depth = parent.Decree, parent.CRC, parent.Depth+1
	return nil
}

// run writes everything into a draft, and publishes it last.
func (c *creation) run() (err error) {
	defer func() {
		if err != nil && c.draft != nil {
			c.draft.Discard()
		}
	}()
	if err := c.slices.await(func() (err error) {
		c.draft, err = c.store.b.Begin(c.slices.ctx, place(c.m.Partition, c.m.Decree))
		return err
	}); err != nil {
		return err
	}
	if err := c.copyAll(); err != nil {
		return err
	}
	manifest, err := c.m.encode()
	if err != nil {
		return err
	}
	if err := c.readBack(); err != nil {
		return fmt.Errorf("read back: %w", err)
	}
	return c.slices.await(func() error { return c.draft.Publish(manifest) })
}
