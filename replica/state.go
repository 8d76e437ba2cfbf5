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
		return e.val, nil
	}
	if s.txn == nil {
		s.txn = s.db.NewTransactionAt(s.applied, false)
	}
	return readRecord(s.txn, dbKey)
}

// readRecord reads one database key, nil if it is not there.
func readRecord(txn *badger.Txn, dbKey []byte) (rec []byte, err error) {
	item, err := txn.Get(dbKey)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, nil
	}
	if err == nil {
		err = item.Value(func(v []byte) error {
			rec = v
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("read state at %d: %w", txn.ReadTs(), err)
	}
	return rec, nil
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
	more, err := eachChild(s.txn, prefix, prefix, func(dbKey, rec []byte) (bool, error) {
		if pending[string(dbKey)] != nil {
			return true, nil
		}
		v, err := parseField(rec)
		return err == nil && f(dbKey[len(prefix)+hashBytes:], v), err
	})
	if err != nil || !more {
		return err
	}
	for _, e := range pending {
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
// The slices are valid during the call only.
func eachChild(txn *badger.Txn, prefix, from []byte, f func(dbKey, rec []byte) (bool, error)) (more bool, err error) {
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
			more, err = f(item.Key(), rec)
			return err
		})
		if err != nil || !more {
			return more, err
		}
	}
	return true, nil
}

// tombstoneExpiry is when badger may forget a delete made at ts, in seconds since 1970.
func (s *state) tombstoneExpiry(ts mutation.Timestamp) uint64 {
	return ts.Millis()/1000 + s.tombstoneSeconds
}

// stringExpiry is when badger may drop a string that expires at a time: as long after it as a delete made then would
// be remembered, because an expired string is remembered as such a delete.
func (s *state) stringExpiry(expireAtMs uint64) uint64 {
	if expireAtMs == 0 {
		return 0
	}
	return expireAtMs/1000 + 1 + s.tombstoneSeconds
}
