package replica

import (
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"

	"replicanode/replica/mutation"
)

// state is a partition's database plus the overlay: what a new mutation is evaluated against. Only the partition's
// goroutine uses it.
type state struct {
	db      *badger.DB
	overlay overlay
	// applied is the decree whose state the database is read at.
	applied uint64
	txn     *badger.Txn // reads at applied; nil until needed
	// tombstoneSeconds is how long a delete is remembered.
	tombstoneSeconds uint64
	// now is the time of the log entry that is evaluated, in seconds since 1970: what has expired by then is not there.
	now uint64

	keyBuf []byte
}

// moveTo reads the database at a later decree from now on.
func (s *state) moveTo(applied uint64) {
	s.applied = applied
	if s.txn != nil {
		s.txn.Discard()
		s.txn = nil
	}
}

// read is the latest record of a database key, nil if there is none. It is valid until the next apply.
func (s *state) read(dbKey []byte) ([]byte, error) {
	if e := s.overlay.get(dbKey); e != nil {
		if s.gone(e.expiresAt) {
			return nil, nil
		}
		return e.val, nil
	}
	if s.txn == nil {
		s.txn = s.db.NewTransactionAt(s.applied, false)
	}
	rec, expiresAt, err := readItem(s.txn, dbKey)
	if s.gone(expiresAt) {
		return nil, err
	}
	return rec, err
}

// readRecord reads one database key, nil if it is not there.
func readRecord(txn *badger.Txn, dbKey []byte) ([]byte, error) {
	rec, _, err := readItem(txn, dbKey)
	return rec, err
}

// readItem is readRecord with badger's expiry of the record.
func readItem(txn *badger.Txn, dbKey []byte) (rec []byte, expiresAt uint64, err error) {
	item, err := txn.Get(dbKey)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, 0, nil
	}
	if err == nil {
		expiresAt = item.ExpiresAt()
		err = item.Value(func(v []byte) error {
			rec = v
			return nil
		})
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read state at %d: %w", txn.ReadTs(), err)
	}
	return rec, expiresAt, nil
}

func (s *state) meta(key []byte) (meta, error) {
	s.keyBuf = appendMetaKey(s.keyBuf[:0], key)
	rec, err := s.read(s.keyBuf)
	if err != nil {
		return meta{}, err
	}
	return parseMeta(rec)
}

// field is the record of a hash's field; the zero field if there is none.
func (s *state) field(key []byte, g generation, name []byte) (f field, found bool, err error) {
	s.keyBuf = appendFieldKey(s.keyBuf[:0], key, g, name)
	rec, err := s.read(s.keyBuf)
	if err != nil || rec == nil {
		return field{}, false, err
	}
	f, err = parseField(rec)
	return f, err == nil, err
}

// chunks is the data of a chunked string.
func (s *state) chunks(key []byte, m *meta) ([]byte, error) {
	return readChunks(key, m, func(dbKey []byte) ([]byte, error) { return s.read(dbKey) })
}

func readChunks(key []byte, m *meta, read func(dbKey []byte) ([]byte, error)) ([]byte, error) {
	if m.length > maxValueBytes {
		return nil, fmt.Errorf("%w: chunked string of %d bytes", errState, m.length)
	}
	data := make([]byte, 0, m.length)
	var dbKey []byte
	for n := uint32(0); uint64(len(data)) < m.length; n++ {
		dbKey = appendChunkKey(dbKey[:0], key, m.gen, n)
		rec, err := read(dbKey)
		if err != nil {
			return nil, err
		}
		if len(rec) < 2 || recordKind(rec[0]) != recChunk || uint64(len(data)+len(rec)-1) > m.length {
			return nil, fmt.Errorf("%w: chunk %d of a string of %d bytes", errState, n, m.length)
		}
		data = append(data, rec[1:]...)
	}
	return data, nil
}

// fields calls f for every field record of a hash, in no order, until it returns false.
func (s *state) fields(key []byte, g generation, f func(name []byte, v field) bool) error {
	prefix := appendChildPrefix(nil, key, g)
	pending := make(map[string]*effect)
	s.overlay.children(prefix, func(e *effect) { pending[string(e.key)] = e })
	if s.txn == nil {
		s.txn = s.db.NewTransactionAt(s.applied, false)
	}
	more, err := eachChild(s.txn, prefix, prefix, func(item *badger.Item, rec []byte) (bool, error) {
		if pending[string(item.Key())] != nil || s.gone(item.ExpiresAt()) {
			return true, nil
		}
		v, err := parseField(rec)
		return err == nil && f(item.Key()[len(prefix)+hashBytes:], v), err
	})
	if err != nil || !more {
		return err
	}
	for _, e := range pending {
		if s.gone(e.expiresAt) {
			continue
		}
		v, err := parseField(e.val)
		if err != nil {
			return err
		}
		if !f(e.key[len(prefix)+hashBytes:], v) {
			return nil
		}
	}
	return nil
}

// eachChild calls f for every record under a prefix, from a key on, until it returns false; then more is false.
// Item and record are valid during the call only.
func eachChild(txn *badger.Txn, prefix, from []byte, f func(item *badger.Item, rec []byte) (bool, error)) (more bool, err error) {
	o := badger.DefaultIteratorOptions
	o.Prefix, o.PrefetchSize = prefix, 32
	it := txn.NewIterator(o)
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		item := it.Item()
		if len(item.Key()) < len(prefix)+hashBytes {
			return true, fmt.Errorf("%w: child key of %d bytes", errState, len(item.Key()))
		}
		more := true
		err := item.Value(func(rec []byte) (err error) {
			more, err = f(item, rec)
			return err
		})
		if err != nil || !more {
			return more, err
		}
	}
	return true, nil
}

// keepExpired is added to a record's expiry before badger gets it. badger would drop what has expired by the clock on the wall, so that
// a replay, a reader at an earlier decree or a copy made later would see another state; as it is, the expiry is only noted, and
// Partition.Sweep removes the record.
const keepExpired = 1 << 40

// badgerExpiry is what badger is told of a record that is gone at a time, in seconds since 1970; 0 for never.
func badgerExpiry(seconds uint64) uint64 {
	if seconds == 0 {
		return 0
	}
	return min(seconds, keepExpired) + keepExpired
}

// goneAt is whether a record with that expiry of badger's is gone at a time, in seconds since 1970.
func goneAt(expiresAt, now uint64) bool {
	return expiresAt > keepExpired && expiresAt-keepExpired <= now
}

// gone is whether a record is not there any more for the log entry that is evaluated.
func (s *state) gone(expiresAt uint64) bool { return goneAt(expiresAt, s.now) }

// tombstoneExpiry is when a delete made at ts is forgotten: late ones are remembered as long as others.
func (s *state) tombstoneExpiry(ts mutation.Timestamp) uint64 {
	return badgerExpiry(max(ts.Millis()/1000, s.now) + s.tombstoneSeconds)
}

// valueExpiry is when a string or hash that expires at a time is forgotten: as long after it as a delete made then would be
// remembered, because it is remembered as such a delete.
func (s *state) valueExpiry(expireAtMs uint64) uint64 {
	if expireAtMs == 0 {
		return 0
	}
	return badgerExpiry(max(expireAtMs/1000+1, s.now) + s.tombstoneSeconds)
}
