package replica

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/dgraph-io/badger/v4"

	"replicanode/replica/mutation"
)

const (
	// sweepRecords bounds the records that one slice of a sweep looks at, sweepBytes what it removes, and sweepTime how long it looks.
	sweepRecords = 2048
	sweepBytes   = 1 << 20
	sweepTime    = time.Millisecond
	// sweepClock is how many records share one look at the clock.
	sweepClock = 64
)

// Sweep removes from the database what no key refers to any more, in slices with a call of yield (may be nil) between
// them, which is told how many bytes were read and written:
//   - fields of hashes and chunks of strings that were overwritten, deleted or have expired; overwriting and deleting
//     leave them behind, so that they cost the same whatever the key held;
//   - deletes, and keys that have expired, which need not be remembered any more (Options.TombstoneTTL) at the time of the
//     newest log entry that is applied: for all later ones they are not there anyway.
//
// It changes no key, so it is not logged, every replica does it for itself, and it may be interrupted anywhere. The
// removals are written at the version at which the records were seen to be garbage. Readers at earlier decrees still
// see the records, and so does a replay, because it reads below the decrees that it repeats: a decree not above that
// version was decided without the removal, and a later one cannot bring a dead generation back.
func (p *Partition) Sweep(ctx context.Context, yield func(bytes int) error) error {
	for _, pass := range []func(v *View, s *sweepSlice) error{p.sweepExpired, p.sweepChildren} {
		for s := (sweepSlice{}); !s.done; {
			s.garbage, s.bytes, s.looked, s.began = s.garbage[:0], 0, 0, time.Now()
			s.now = mutation.Timestamp(p.entryTime.Load()).Millis() / 1000
			err := p.viewApplied(func(v *View) error {
				if err := pass(v, &s); err != nil {
					return err
				}
				return p.removeRecords(v.Decree(), s.garbage)
			})
			if err == nil && yield != nil {
				err = yield(s.bytes)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return fmt.Errorf("sweep partition %d: %w", p.id, err)
			}
		}
	}
	return nil
}

// sweepSlice is where a pass goes on, and what its current slice found.
type sweepSlice struct {
	from    []byte
	garbage [][]byte
	bytes   int
	looked  int
	done    bool
	began   time.Time
	// now is the time of an applied log entry, in seconds since 1970, read before the view was made.
	now uint64
}

func (s *sweepSlice) full() bool {
	return s.looked >= sweepRecords || s.bytes >= sweepBytes ||
		s.looked > 0 && s.looked%sweepClock == 0 && time.Since(s.began) >= sweepTime
}

func (s *sweepSlice) look(item *badger.Item) {
	s.looked++
	s.bytes += int(item.KeySize())
}

func (s *sweepSlice) remove(item *badger.Item) {
	s.garbage = append(s.garbage, item.KeyCopy(nil))
	s.bytes += int(item.EstimatedSize())
}

// sweepChildren finds fields and chunks of dead generations, and deletes of fields that are forgotten.
func (p *Partition) sweepChildren(v *View, s *sweepSlice) error {
	it := v.txn.NewIterator(badger.IteratorOptions{Prefix: []byte{tableChild}})
	defer it.Close()
	var dead, live []byte
	for it.Seek(s.from); it.Valid(); {
		item := it.Item()
		if s.full() {
			s.from = item.KeyCopy(s.from[:0])
			return nil
		}
		s.look(item)
		if live != nil && bytes.HasPrefix(item.Key(), live) {
			if goneAt(item.ExpiresAt(), s.now) {
				s.remove(item)
			}
			it.Next()
			continue
		}
		if dead == nil || !bytes.HasPrefix(item.Key(), dead) {
			key, g, prefix, _, ok := splitChildKey(item.Key())
			if !ok {
				return fmt.Errorf("%w: child key %x", errState, item.Key())
			}
			m, err := v.meta(key)
			if err != nil {
				return err
			}
			if m.ownsChildren(g) {
				live = bytes.Clone(prefix)
				continue
			}
			dead = bytes.Clone(prefix)
		}
		s.remove(item)
		it.Next()
	}
	s.done = true
	return nil
}

// ownsChildren is whether records of the generation are part of the key.
func (m *meta) ownsChildren(g generation) bool {
	switch m.kind {
	case recHash, recEmptyHash, recChunked:
		return m.gen == g
	}
	return false
}

// sweepExpired finds records of keys that are forgotten.
func (p *Partition) sweepExpired(v *View, s *sweepSlice) error {
	it := v.txn.NewIterator(badger.IteratorOptions{Prefix: []byte{tableMeta}})
	defer it.Close()
	for it.Seek(s.from); it.Valid(); it.Next() {
		item := it.Item()
		if s.full() {
			s.from = item.KeyCopy(s.from[:0])
			return nil
		}
		s.look(item)
		if goneAt(item.ExpiresAt(), s.now) {
			s.remove(item)
		}
	}
	s.done = true
	return nil
}

func (p *Partition) removeRecords(decree uint64, dbKeys [][]byte) error {
	if len(dbKeys) == 0 {
		return nil
	}
	room := int64(0)
	for _, k := range dbKeys {
		room += int64(len(k)) + entryRoom
	}
	if err := p.mem.reserve(room); err != nil {
		return err
	}
	defer p.mem.done(room)
	wb := p.db.NewManagedWriteBatch()
	defer wb.Cancel()
	for _, k := range dbKeys {
		if err := wb.DeleteAt(k, decree); err != nil {
			return err
		}
	}
	return wb.Flush()
}
