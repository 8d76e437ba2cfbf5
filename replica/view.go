package replica

import (
	"context"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// View is a consistent read of one partition, valid inside the function it was given to.
type View struct {
	txn    *badger.Txn
	nowMs  uint64
	keyBuf []byte
}

// View runs f on a linearizable read: it sees every command that had finished when View was called. f must not keep
// the view nor what it reads. While f runs, nothing that it can see is dropped from the database, so it should not
// run for long. Nothing is read once ctx has ended.
func (p *Partition) View(ctx context.Context, f func(v *View) error) error {
	if err := p.waitReadable(ctx); err != nil {
		return err
	}
	return p.viewApplied(f)
}

// viewApplied runs f on a read at the applied decree.
func (p *Partition) viewApplied(f func(v *View) error) error {
	p.views.RLock()
	defer p.views.RUnlock()
	p.mu.Lock()
	err := p.unreadable()
	p.mu.Unlock()
	if err != nil {
		return err
	}
	decree := p.pins.enter(&p.applied)
	defer p.pins.leave(decree)
	v := View{txn: p.db.NewTransactionAt(decree, false), nowMs: p.nowMs()}
	defer v.txn.Discard()
	return f(&v)
}

// nowMs is the time by which expiry is decided: that of the clock on the wall, but never before a time by which one of this
// cluster's mutations has decided. Timestamps may be ahead of it.
func (p *Partition) nowMs() uint64 {
	return max(uint64(max(p.o.Clock().UnixMilli(), 0)), p.decidedMs.Load())
}

// noteDecided remembers by which time a mutation of this cluster decided. Only the partition's goroutine calls it.
func (p *Partition) noteDecided(nowMs uint64) {
	p.decidedMs.Store(max(p.decidedMs.Load(), nowMs))
}

// Decree is the decree whose state is read.
func (v *View) Decree() uint64 { return v.txn.ReadTs() }

// NowMs is the time by which expiry is decided, in milliseconds since 1970.
func (v *View) NowMs() uint64 { return v.nowMs }

func (v *View) meta(key []byte) (meta, error) {
	v.keyBuf = appendMetaKey(v.keyBuf[:0], key)
	rec, err := readRecord(v.txn, v.keyBuf)
	if err != nil {
		return meta{}, err
	}
	return parseMeta(rec)
}

// Get reads a key; false when it is absent or expired. A hash's fields are not read.
func (v *View) Get(key []byte) (Value, bool, error) {
	m, err := v.meta(key)
	if err != nil || m.visible(v.nowMs) == None {
		return Value{}, false, err
	}
	value := m.value()
	if m.kind == recChunked {
		read := func(dbKey []byte) ([]byte, error) { return readRecord(v.txn, dbKey) }
		if value.Data, err = readChunks(key, &m, read); err != nil {
			return Value{}, false, err
		}
	}
	return value, true, nil
}

// Stat is Get without the data of a string: Data may be nil.
func (v *View) Stat(key []byte) (Value, bool, error) {
	m, err := v.meta(key)
	if err != nil || m.visible(v.nowMs) == None {
		return Value{}, false, err
	}
	return m.value(), true, nil
}

// hash is the record of a live hash; one of another kind when there is none.
func (v *View) hash(key []byte) (meta, error) {
	m, err := v.meta(key)
	if err != nil {
		return meta{}, err
	}
	switch m.visible(v.nowMs) {
	case String:
		return meta{}, ErrWrongType
	case None:
		return meta{}, nil
	}
	return m, nil
}

// HashGet reads a field. ErrWrongType if the key is a string.
func (v *View) HashGet(key, name []byte) ([]byte, bool, error) {
	m, err := v.hash(key)
	if err != nil || m.kind != recHash {
		return nil, false, err
	}
	v.keyBuf = appendFieldKey(v.keyBuf[:0], key, m.gen, name)
	rec, err := readRecord(v.txn, v.keyBuf)
	if err != nil || rec == nil {
		return nil, false, err
	}
	f, err := parseField(rec)
	return f.data, f.live, err
}

// HashAll calls f for every field, in no particular order, until it returns false. ErrWrongType if the key is a
// string. The slices are valid during the call only.
func (v *View) HashAll(key []byte, f func(field, value []byte) bool) error {
	m, err := v.hash(key)
	if err != nil || m.kind != recHash {
		return err
	}
	prefix := appendChildPrefix(nil, key, m.gen)
	_, err = eachChild(v.txn, prefix, prefix, func(item *badger.Item, rec []byte) (bool, error) {
		fd, err := parseField(rec)
		if err != nil || !fd.live {
			return true, err
		}
		return f(item.Key()[len(prefix)+hashBytes:], fd.data), nil
	})
	return err
}

// CursorBits is the width of a cursor of View.Scan and View.HashScan. A cursor is a position in the order of the hashes
// of keys (or fields): stateless, and valid for ever. 0 starts, and is returned at the end.
const CursorBits = 8 * hashBytes

// scanWork bounds the records that one call of a scan looks at, as a multiple of the count asked for: absent records
// (deleted or expired ones) are skipped, but not without end. A call can therefore return few or no elements and
// still not be the last.
const scanWork = 10

// HashScan calls f for about count fields from the cursor on and returns the next cursor. A field that is there from
// the first call to the last is passed at least once. ErrWrongType if the key is a string.
func (v *View) HashScan(key []byte, cursor uint64, count int, f func(field, value []byte)) (next uint64, err error) {
	m, err := v.hash(key)
	if err != nil || m.kind != recHash || cursor>>CursorBits != 0 {
		return 0, err
	}
	prefix := appendChildPrefix(nil, key, m.gen)
	from := appendHash48(append([]byte(nil), prefix...), cursor)
	s := scanState{left: count, work: count * scanWork}
	_, err = eachChild(v.txn, prefix, from, func(item *badger.Item, rec []byte) (bool, error) {
		dbKey := item.Key()
		if s.stop(readHash48(dbKey[len(prefix):])) {
			next = s.at
			return false, nil
		}
		fd, err := parseField(rec)
		if err == nil && fd.live {
			s.left--
			f(dbKey[len(prefix)+hashBytes:], fd.data)
		}
		return true, err
	})
	return next, err
}

// scanState decides where a scan pauses: only between different hashes, so that a cursor misses none of those which
// share one.
type scanState struct {
	left, work int
	at         uint64
	begun      bool
}

func (s *scanState) stop(h uint64) bool {
	s.work--
	if s.begun && h != s.at && (s.left <= 0 || s.work <= 0) {
		s.at = h
		return true
	}
	s.at, s.begun = h, true
	return false
}

// Scan calls f for about count keys from the cursor on and returns the next cursor. A key that is there from the
// first call to the last is passed at least once. The key is valid during the call only.
func (v *View) Scan(cursor uint64, count int, f func(key []byte, kind Kind)) (next uint64, err error) {
	if cursor>>CursorBits != 0 {
		return 0, nil
	}
	s := scanState{left: count, work: count * scanWork}
	err = v.eachMeta(appendHash48([]byte{tableMeta}, cursor), func(dbKey []byte, kind Kind) bool {
		if s.stop(readHash48(dbKey[1:])) {
			next = s.at
			return false
		}
		if kind != None {
			s.left--
			f(dbKey[metaPrefixBytes:], kind)
		}
		return true
	})
	return next, err
}

// eachMeta calls f for every record of a key, from a database key on, until it returns false. It reads values only
// where it must to know whether the key has expired.
func (v *View) eachMeta(from []byte, f func(dbKey []byte, kind Kind) bool) error {
	o := badger.IteratorOptions{Prefix: []byte{tableMeta}}
	it := v.txn.NewIterator(o)
	defer it.Close()
	for it.Seek(from); it.Valid(); it.Next() {
		kind, err := v.kindOf(it.Item())
		if err != nil {
			return err
		}
		if !f(it.Item().Key(), kind) {
			return nil
		}
	}
	return nil
}

func (v *View) kindOf(item *badger.Item) (kind Kind, err error) {
	switch recordKind(item.UserMeta()) {
	case recTombstone, recEmptyHash:
		return None, nil
	case recString, recChunked:
		if item.ExpiresAt() == 0 {
			return String, nil
		}
	}
	err = item.Value(func(rec []byte) error {
		m, err := parseMeta(rec)
		kind = m.visible(v.nowMs)
		return err
	})
	if err != nil {
		return None, fmt.Errorf("scan keys: %w", err)
	}
	return kind, nil
}

// countSlice is how many records Count looks at between two calls of yield.
const countSlice = 4096

// Count is the number of live keys. It counts them one by one in slices, each on a view of its own, so keys that come
// and go meanwhile may or may not be counted; yield (may be nil) is called between slices with the bytes read. It ends with ctx.
func (p *Partition) Count(ctx context.Context, yield func(bytes int) error) (n uint64, err error) {
	for cursor := uint64(0); ; {
		bytes := 0
		err := p.View(ctx, func(v *View) (err error) {
			cursor, err = v.Scan(cursor, countSlice, func(key []byte, _ Kind) {
				n++
				bytes += len(key)
			})
			return err
		})
		if err != nil || cursor == 0 {
			return n, err
		}
		if yield != nil {
			if err := yield(bytes); err != nil {
				return n, err
			}
		}
	}
}
