package replica

import (
	"replicanode/replica/mutation"
)

// Tx is a command's access to its partition. It is valid inside Execute only; so is what it returns.
//
// A command is written as a whole or not at all, whatever Execute does about an error. When a method fails because the
// database cannot be read or because a limit is exceeded, the whole command fails with that error and writes nothing. When a writing
// method returns ErrWrongType, the command writes nothing either, but finishes like one that has only read: that the key is of
// another kind may be known from a write that is not committed yet.
type Tx struct {
	mu     mutator
	b      mutation.Builder
	limits *Options
	// start is where the command begins in b.
	start int
	err   error
	// void: the command does not fail, but nothing that it writes may stay.
	void bool
}

// begin prepares for the next command of the mutation.
func (tx *Tx) begin() { tx.start, tx.err, tx.void = tx.b.Len(), nil, false }

// NowMs is the time of the mutation, in milliseconds since 1970: what expiry is decided by.
func (tx *Tx) NowMs() uint64 { return tx.mu.nowMs }

// Get reads a key; false when it is absent or expired. A hash's fields are not read.
func (tx *Tx) Get(key []byte) (Value, bool, error) { return tx.get(key, true) }

// Stat is Get without the data of a string: Data may be nil.
func (tx *Tx) Stat(key []byte) (Value, bool, error) { return tx.get(key, false) }

func (tx *Tx) get(key []byte, data bool) (Value, bool, error) {
	m, err := tx.mu.s.meta(key)
	if err != nil || m.visible(tx.mu.nowMs) == None {
		return Value{}, false, tx.note(err)
	}
	v := m.value()
	if m.kind == recChunked && data {
		v.Data, err = tx.mu.s.chunks(key, &m)
	}
	return v, err == nil, tx.note(err)
}

// HashGet reads a field. ErrWrongType if the key is a string.
func (tx *Tx) HashGet(key, field []byte) ([]byte, bool, error) {
	m, err := tx.hash(key)
	if err != nil || m.kind != recHash {
		return nil, false, err
	}
	f, _, err := tx.mu.s.field(key, m.gen, field)
	return f.data, f.live, tx.note(err)
}

// HashAll calls f for every field, in no particular order, until it returns false. ErrWrongType if the key is a string.
func (tx *Tx) HashAll(key []byte, f func(field, value []byte) bool) error {
	m, err := tx.hash(key)
	if err != nil || m.kind != recHash {
		return err
	}
	err = tx.mu.s.fields(key, m.gen, func(name []byte, v field) bool { return !v.live || f(name, v.data) })
	return tx.note(err)
}

// hash is the record of a live hash; one of another kind when there is none.
func (tx *Tx) hash(key []byte) (meta, error) {
	m, err := tx.mu.s.meta(key)
	if err != nil {
		return meta{}, tx.note(err)
	}
	switch m.visible(tx.mu.nowMs) {
	case String:
		return meta{}, ErrWrongType
	case None:
		return meta{}, nil
	}
	return m, nil
}

// Put sets a key to a string. expireAt is in milliseconds since 1970, 0 for never. Whatever was there is replaced,
// without being read. TooLargeError beyond the limits.
func (tx *Tx) Put(key, data []byte, expireAt uint64) error {
	if err := tx.checkSize("key", len(key), tx.limits.MaxKeyBytes); err != nil {
		return err
	}
	if err := tx.checkSize("value", len(data), tx.limits.MaxValueBytes); err != nil {
		return err
	}
	if err := tx.admit(mutation.PutBytes(key, data, expireAt)); err != nil {
		return err
	}
	if err := tx.note(tx.mu.put(key, data, expireAt)); err != nil {
		return err
	}
	tx.b.Put(key, data, expireAt)
	return nil
}

// Delete removes a key of any kind and says whether it was there.
func (tx *Tx) Delete(key []byte) (bool, error) {
	m, err := tx.mu.s.meta(key)
	if err != nil || m.visible(tx.mu.nowMs) == None {
		return false, tx.note(err)
	}
	if err := tx.admit(mutation.DeleteBytes(key)); err != nil {
		return false, err
	}
	if err := tx.note(tx.mu.delete(key)); err != nil {
		return false, err
	}
	tx.b.Delete(key)
	return true, nil
}

// Expire sets when a key expires (0: never) and says whether the key is there. The expiry of a string is part of its
// value, so the string is logged again.
func (tx *Tx) Expire(key []byte, at uint64) (bool, error) {
	v, found, err := tx.Get(key)
	if err != nil || !found {
		return false, err
	}
	if at != 0 && at <= tx.mu.nowMs {
		return tx.Delete(key)
	}
	if v.Kind == String {
		return true, tx.Put(key, v.Data, at)
	}
	if err := tx.admit(mutation.ExpireBytes(key, at)); err != nil {
		return false, err
	}
	return true, tx.expireHash(key, at)
}

// expireHash sets when a hash expires, of which no field may be left.
func (tx *Tx) expireHash(key []byte, at uint64) error {
	m, err := tx.mu.s.meta(key)
	if err == nil {
		err = tx.mu.expire(key, at, m.stamp)
	}
	if err != nil {
		return tx.note(err)
	}
	tx.b.Expire(key, at, m.stamp.ts, m.stamp.cluster)
	return nil
}

// HashPut sets a field and says whether it is new. ErrWrongType if the key is a string.
func (tx *Tx) HashPut(key, field, data []byte) (bool, error) {
	if err := tx.checkSize("key", len(key)+len(field), tx.limits.MaxKeyBytes); err != nil {
		return false, err
	}
	if err := tx.checkSize("hash field value", len(data), tx.limits.MaxFieldValueBytes); err != nil {
		return false, err
	}
	if err := tx.hashToPut(key, mutation.HashPutBytes(key, field, data)); err != nil {
		return false, err
	}
	created, err := tx.mu.hashPut(key, field, data)
	if tx.note(err) != nil {
		return false, err
	}
	tx.b.HashPut(key, field, data)
	return created, nil
}

// HashDelete removes a field and says whether it was there. ErrWrongType if the key is a string.
func (tx *Tx) HashDelete(key, field []byte) (bool, error) {
	m, err := tx.hash(key)
	if err != nil {
		tx.void = true
		return false, err
	}
	if m.kind != recHash {
		return false, nil
	}
	if err := tx.admit(mutation.HashDeleteBytes(key, field) + mutation.ExpireBytes(key, 0)); err != nil {
		return false, err
	}
	deleted, err := tx.mu.hashDelete(key, field)
	if tx.note(err) != nil || !deleted {
		return false, err
	}
	tx.b.HashDelete(key, field)
	if m.count == 1 && m.expireAt != 0 {
		// The hash is gone, and its expiry with it.
		return true, tx.expireHash(key, 0)
	}
	return true, nil
}

// hashToPut checks that n bytes may be written to a hash, and ends what is left of a life that is over.
func (tx *Tx) hashToPut(key []byte, n int) error {
	if _, err := tx.hash(key); err != nil {
		tx.void = true
		return err
	}
	m, err := tx.mu.s.meta(key)
	if err != nil {
		return tx.note(err)
	}
	switch {
	case m.kind == recEmptyHash && m.expireAt != 0:
		if err := tx.admit(n + mutation.ExpireBytes(key, 0)); err != nil {
			return err
		}
		return tx.expireHash(key, 0)
	case m.expired(tx.mu.nowMs):
		if err := tx.admit(n + mutation.DeleteBytes(key)); err != nil {
			return err
		}
		if err := tx.mu.delete(key); err != nil {
			return tx.note(err)
		}
		tx.b.Delete(key)
		return nil
	}
	return tx.admit(n)
}

// admit checks, before anything of an operation of n encoded bytes takes effect, that the command may grow by it.
func (tx *Tx) admit(n int) error {
	return tx.checkSize("command", tx.b.Len()-tx.start+n, tx.limits.MaxMutationBytes)
}

func (tx *Tx) checkSize(what string, n, limit int) error {
	if n > limit {
		return tx.note(&TooLargeError{What: what, Bytes: n, Limit: limit})
	}
	return nil
}

// note remembers the first error that dooms the command.
func (tx *Tx) note(err error) error {
	if err != nil && tx.err == nil {
		tx.err = err
	}
	return err
}
