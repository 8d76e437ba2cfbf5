package replica

import (
	"context"

	"github.com/dgraph-io/badger/v4"

	"replicanode/plog"
	"replicanode/replica/mutation"
)

// Tx is a command's access to its partition.
type Tx struct{}

// NowMs is the time of the mutation, in milliseconds since 1970: what expiry is decided by.
func (tx *Tx) NowMs() uint64 { return 0 }

// Get reads a key; false when it is absent or expired. A hash's fields are not read.
func (tx *Tx) Get(key []byte) (Value, bool, error) { return Value{}, false, ErrNotReady }

// Stat is Get without the data of a string: Data is nil.
func (tx *Tx) Stat(key []byte) (Value, bool, error) { return Value{}, false, ErrNotReady }

// HashGet reads a field. ErrWrongType if the key is a string.
func (tx *Tx) HashGet(key, field []byte) ([]byte, bool, error) { return nil, false, ErrNotReady }

// HashAll calls f for every field, in no particular order, until it returns false. ErrWrongType if the key is a string.
func (tx *Tx) HashAll(key []byte, f func(field, value []byte) bool) error { return ErrNotReady }

// Put sets a key to a string. expireAt is in milliseconds since 1970, 0 for never. Whatever was there is replaced,
// without being read. TooLargeError beyond the limits.
func (tx *Tx) Put(key, data []byte, expireAt uint64) error { return ErrNotReady }

// Delete removes a key of any kind and says whether it was there.
func (tx *Tx) Delete(key []byte) (bool, error) { return false, ErrNotReady }

// Expire sets when a key expires (0: never) and says whether the key is there.
func (tx *Tx) Expire(key []byte, at uint64) (bool, error) { return false, ErrNotReady }

// HashPut sets a field and says whether it is new. ErrWrongType if the key is a string.
func (tx *Tx) HashPut(key, field, data []byte) (bool, error) { return false, ErrNotReady }

// HashDelete removes a field and says whether it was there. ErrWrongType if the key is a string.
func (tx *Tx) HashDelete(key, field []byte) (bool, error) { return false, ErrNotReady }

// View is a consistent read of one partition, valid inside the function it was given to.
type View struct{}

// Decree is the decree whose state is read.
func (v *View) Decree() uint64 { return 0 }

// NowMs is the time by which expiry is decided, in milliseconds since 1970.
func (v *View) NowMs() uint64 { return 0 }

// Get reads a key; false when it is absent or expired. A hash's fields are not read.
func (v *View) Get(key []byte) (Value, bool, error) { return Value{}, false, ErrNotReady }

// Stat is Get without the data of a string.
func (v *View) Stat(key []byte) (Value, bool, error) { return Value{}, false, ErrNotReady }

// HashGet reads a field. ErrWrongType if the key is a string.
func (v *View) HashGet(key, field []byte) ([]byte, bool, error) { return nil, false, ErrNotReady }

// HashAll calls f for every field, in no particular order, until it returns false.
func (v *View) HashAll(key []byte, f func(field, value []byte) bool) error { return ErrNotReady }

// HashScan calls f for about count fields from the cursor on and returns the next cursor; 0 starts and ends.
func (v *View) HashScan(key []byte, cursor uint64, count int, f func(field, value []byte)) (uint64, error) {
	return 0, ErrNotReady
}

// Scan calls f for about count keys from the cursor on and returns the next cursor; 0 starts and ends. A cursor fits
// into CursorBits bits, so that a caller can put the partition above it.
func (v *View) Scan(cursor uint64, count int, f func(key []byte, kind Kind)) (uint64, error) {
	return 0, ErrNotReady
}

// CursorBits is the width of a cursor of View.Scan and View.HashScan.
const CursorBits = 48

// Subscriber is told what a partition applies.
type Subscriber interface {
	// Applied gets entries in decree order, without gaps from the first call on, after they were applied. It must not
	// block; the entries and their data are valid during the call only. Entries with Type != 0 or without data are no
	// mutations.
	Applied(entries []plog.Entry)
}

// Status describes a partition.
type Status struct{}

// Partition is this node's replica of one partition.
type Partition struct{}

// ID is the partition's number, from 0.
func (p *Partition) ID() uint32 { return 0 }

// Propose queues a command. After an error the command's methods are not called.
func (p *Partition) Propose(c Command) error { return ErrNotReady }

// View runs f on a linearizable read.
func (p *Partition) View(ctx context.Context, f func(v *View) error) error { return ErrNotReady }

// Count is the number of live keys, counted in slices; yield (may be nil) is called between them.
func (p *Partition) Count(ctx context.Context, yield func(bytes int) error) (uint64, error) {
	return 0, ErrNotReady
}

// Applied is the applied decree.
func (p *Partition) Applied() uint64 { return 0 }

// Durable is the durable decree: what a crash of the machine leaves applied.
func (p *Partition) Durable() uint64 { return 0 }

// Log is the private log; nil until the partition is open.
func (p *Partition) Log() *plog.Log { return nil }

// Leader is the node id of the leader (0 unknown), and whether it is this node.
func (p *Partition) Leader() (id uint64, isSelf bool) { return 0, false }

// Ready is whether commands and views are served.
func (p *Partition) Ready() bool { return false }

// Status describes the partition.
func (p *Partition) Status() Status { return Status{} }

// Err is why the partition does not serve; nil while it does, is being opened or replayed.
func (p *Partition) Err() error { return ErrNotReady }

// DB is the database; nil until the partition is open.
func (p *Partition) DB() *badger.DB { return nil }

// ReadAt is a transaction that reads the state at a decree, which must be pinned; discard it before the pin's release.
func (p *Partition) ReadAt(decree uint64) (*badger.Txn, error) { return nil, ErrNotReady }

// Pin keeps the state at a decree readable until release is called (once; more are harmless).
func (p *Partition) Pin(decree uint64) (release func(), err error) { return nil, ErrNotReady }

// PinApplied pins the applied decree and returns it.
func (p *Partition) PinApplied() (decree uint64, release func(), err error) {
	return 0, nil, ErrNotReady
}

// Subscribe calls s for everything applied from now on. After cancel has returned, s is not called any more.
func (p *Partition) Subscribe(s Subscriber) (cancel func()) { return func() {} }

// ApplyDuplicated proposes a batch of a remote cluster. done is called exactly once, with the source decree up to
// which everything is applied here and durable, or with an error (GapError, ErrBusy, ...). b is not kept.
func (p *Partition) ApplyDuplicated(ctx context.Context, b mutation.Batch, done func(confirmed uint64, err error)) {
	done(0, ErrNotReady)
}

// DuplicationProgress is the source decree up to which a remote partition's mutations are applied here; 0 for none.
func (p *Partition) DuplicationProgress(cluster uint64, partition uint32) (uint64, error) {
	return 0, ErrNotReady
}

// RecordConfirmed logs that a remote has everything up to decree. It returns when that is applied.
func (p *Partition) RecordConfirmed(remote string, decree uint64) error { return ErrNotReady }

// Confirmed is the last recorded confirmed decree of a remote.
func (p *Partition) Confirmed(remote string) (uint64, bool) { return 0, false }

// ReleaseLog lets the private log forget everything up to decree, but never what recovery or a voter needs.
func (p *Partition) ReleaseLog(decree uint64) error { return ErrNotReady }

// Sweep removes from the database what no key refers to any more, in slices; it changes no key.
func (p *Partition) Sweep(ctx context.Context, yield func(bytes int) error) error { return ErrNotReady }

// Host hosts all partitions of a node.
type Host struct{}

// NewHost checks the options.
func NewHost(o Options) (*Host, error) { return nil, ErrNotReady }

// Start begins to open the partitions and returns; WaitReady waits for them.
func (h *Host) Start(ctx context.Context) error { return ErrNotReady }

// WaitReady waits until every partition serves or has failed, and returns the failures joined.
func (h *Host) WaitReady(ctx context.Context) error { return ErrNotReady }

// Stop refuses new work, finishes what is in flight and closes everything. When ctx ends first, what is in flight is
// abandoned.
func (h *Host) Stop(ctx context.Context) error { return ErrNotReady }

// Partition is the partition with that number, nil beyond the last.
func (h *Host) Partition(id uint32) *Partition { return nil }

// Partitions are all partitions, by number. The slice must not be changed.
func (h *Host) Partitions() []*Partition { return nil }

// Route is the partition of a key.
func (h *Host) Route(key []byte) *Partition { return nil }

// Step takes a message from another node.
func (h *Host) Step(m Message) error { return ErrNotReady }

// RefuseWrites makes Propose return err for every command, on all partitions, until it is called with nil.
// Reads, duplication and maintenance go on.
func (h *Host) RefuseWrites(err error) {}
