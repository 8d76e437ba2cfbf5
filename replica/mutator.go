package replica

import (
	"encoding/binary"

	"replicanode/replica/mutation"
)

// mutator turns operations into effects. Evaluating a command and applying a log entry both go through it, so that
// the leader's effects, a follower's and a replay's are the same: what it does depends on nothing but the records
// below the mutation's decree and the mutation itself.
//
// Greater stamps win, per key, per field of a hash and per expiry of a hash's life. A string or a delete of the key kills the
// fields with smaller stamps and ends the hash's life, its expiry with it; a field with a greater stamp than the string replaces it.
// The mutations of this cluster's clients are stamped after everything in the partition, so for them (local) there is nothing to
// compare.
//
// No operation looks at a clock, or clusters that get the same ones at different times would differ: a key whose time is over stands
// there until it is written, and a client's command that begins a new life on it deletes it first.
type mutator struct {
	s   *state
	set *effects
	// at is the timestamp of the log entry: unique in the partition, so it names generations.
	at    mutation.Timestamp
	stamp stamp
	// nowMs is the time by which a command decides what has expired.
	nowMs uint64
	local bool
}

// enter prepares for a log entry with that timestamp, whose effects go to set.
func (mu *mutator) enter(set *effects, at mutation.Timestamp) {
	mu.set, mu.at, mu.s.now = set, at, at.Millis()/1000
}

// begin prepares for the operations of one user mutation: the log entry itself (local), or one inside a duplicated
// batch.
func (mu *mutator) begin(h mutation.Header, local bool) {
	mu.stamp = stamp{h.Timestamp, h.Cluster}
	mu.nowMs = h.Timestamp.Millis()
	mu.local = local
}

// apply does one decoded operation.
func (mu *mutator) apply(op *mutation.Op) error {
	var err error
	switch op.Code {
	case mutation.OpPut:
		err = mu.put(op.Key, op.Value, op.ExpireAt)
	case mutation.OpDelete:
		err = mu.delete(op.Key)
	case mutation.OpExpire:
		err = mu.expire(op.Key, op.ExpireAt, stamp{op.BaseAt, op.BaseCluster})
	case mutation.OpHashPut:
		_, err = mu.hashPut(op.Key, op.Field, op.Value)
	case mutation.OpHashDelete:
		_, err = mu.hashDelete(op.Key, op.Field)
	case mutation.OpNow:
		mu.nowMs = op.Now
	}
	return err
}

func (mu *mutator) put(key, data []byte, expireAt uint64) error {
	m := meta{kind: recString, stamp: mu.stamp, expireAt: expireAt}
	if !mu.local {
		lost, err := mu.loses(key)
		if err != nil || lost {
			return err
		}
	}
	if len(data) > chunkBytes {
		m.kind, m.gen, m.length = recChunked, mu.nextGeneration(), uint64(len(data))
		mu.putChunks(key, m.gen, data, expireAt)
		data = nil
	}
	rec := m.appendHead(mu.set.arena.take(max(stringHead+len(data), chunkedSize)))
	mu.writeMeta(key, append(rec, data...), mu.s.valueExpiry(expireAt))
	return nil
}

func (mu *mutator) putChunks(key []byte, g generation, data []byte, expireAt uint64) {
	for n := uint32(0); len(data) > 0; n++ {
		part := data[:min(chunkBytes, len(data))]
		data = data[len(part):]
		dbKey := appendChunkKey(mu.set.arena.take(metaPrefixBytes+2+len(key)+generationBytes+4), key, g, n)
		rec := append(mu.set.arena.take(1+len(part)), byte(recChunk))
		mu.s.overlay.add(mu.set, dbKey, append(rec, part...), mu.s.valueExpiry(expireAt))
	}
}

func (mu *mutator) delete(key []byte) error {
	if !mu.local {
		lost, err := mu.loses(key)
		if err != nil || lost {
			return err
		}
	}
	m := meta{kind: recTombstone, stamp: mu.stamp}
	mu.writeMeta(key, m.appendHead(mu.set.arena.take(1+stampBytes)), mu.s.tombstoneExpiry(mu.stamp.ts))
	return nil
}

// late is whether the mutation is older than what stands there. What bears the mutation's own stamp was written by an earlier
// operation of the same mutation, and the later one wins: a mutation is applied once, so there is no other way to meet it.
func (mu *mutator) late(standing stamp) bool { return standing.after(mu.stamp) }

// loses is whether a put or delete of the whole key comes too late. When only some fields of a hash are newer, it
// kills the others on the way and leaves a hash.
func (mu *mutator) loses(key []byte) (bool, error) {
	m, err := mu.s.meta(key)
	if err != nil || m.kind == recNone {
		return false, err
	}
	if mu.late(m.stamp) {
		return true, nil
	}
	if m.kind != recHash && m.kind != recEmptyHash || m.writer == mu.stamp.cluster {
		return false, nil
	}
	return mu.cutFields(key, &m)
}

// cutFields kills the fields that are older than the mutation. False when no record, live or dead, is newer: then
// the whole generation is dead.
func (mu *mutator) cutFields(key []byte, m *meta) (bool, error) {
	var older [][]byte
	newer := false
	err := mu.s.fields(key, m.gen, func(name []byte, f field) bool {
		switch {
		case f.stamp.after(mu.stamp):
			newer = true
		case f.live:
			older = append(older, append([]byte(nil), name...))
		}
		return true
	})
	if err != nil || !newer {
		return false, err
	}
	for _, name := range older {
		mu.writeFieldTombstone(key, m.gen, name)
	}
	m.count -= uint64(len(older))
	m.stamp, m.expireAt, m.expiry = mu.stamp, 0, mu.stamp
	mu.writeHash(key, m)
	return true, nil
}

// expire changes the expiry of a hash whose life began at base, or has no field left of it.
func (mu *mutator) expire(key []byte, at uint64, base stamp) error {
	m, err := mu.s.meta(key)
	if err != nil || m.kind != recHash && m.kind != recEmptyHash {
		return err
	}
	if m.stamp.after(base) || mu.late(m.stamp) || mu.late(m.expiry) {
		return nil
	}
	m.expireAt, m.expiry = at, mu.stamp
	mu.writeHash(key, &m)
	return nil
}

// hashPut sets a field; created says that it was not live before.
func (mu *mutator) hashPut(key, name, data []byte) (created bool, err error) {
	m, alive, err := mu.hashFor(key)
	if err != nil || !alive {
		return false, err
	}
	before := m
	if m.kind == recNone {
		m.kind, m.gen, m.writer = recEmptyHash, mu.nextGeneration(), mu.stamp.cluster
	}
	f, found := field{}, false
	if before.kind != recNone {
		if f, found, err = mu.s.field(key, m.gen, name); err != nil {
			return false, err
		}
	}
	if found && !mu.local && mu.late(f.stamp) {
		return false, nil
	}
	if !f.live {
		m.count++
	}
	if m.writer != mu.stamp.cluster {
		m.writer = 0
	}
	rec := append(mu.set.arena.take(fieldHead+len(data)), byte(recField))
	rec = mu.stamp.append(rec)
	mu.writeField(key, m.gen, name, append(rec, data...), 0)
	if m.count != before.count || m.writer != before.writer || m.gen != before.gen {
		mu.writeHash(key, &m)
	}
	return !f.live, nil
}

// hashFor is the record of the hash that a field operation works on. Not alive: the operation comes too late. Kind
// recNone: there is no hash, and a new one gets the returned stamp.
func (mu *mutator) hashFor(key []byte) (m meta, alive bool, err error) {
	m, err = mu.s.meta(key)
	if err != nil {
		return m, false, err
	}
	if !mu.local && m.kind != recNone && mu.late(m.stamp) {
		return m, false, nil
	}
	if m.kind != recHash && m.kind != recEmptyHash {
		m = meta{stamp: m.stamp, expiry: m.stamp}
	}
	return m, true, nil
}

// hashDelete removes a field; deleted says that it was live.
func (mu *mutator) hashDelete(key, name []byte) (deleted bool, err error) {
	was, err := mu.s.meta(key)
	if err != nil {
		return false, err
	}
	m, alive, err := mu.hashFor(key)
	if err != nil || !alive {
		return false, err
	}
	if m.kind == recNone {
		if was.kind != recString && was.kind != recChunked {
			return false, nil
		}
		m.kind, m.gen, m.writer = recEmptyHash, mu.nextGeneration(), mu.stamp.cluster
		mu.writeFieldTombstone(key, m.gen, name)
		mu.writeHash(key, &m)
		return false, nil
	}
	f, found, err := mu.s.field(key, m.gen, name)
	if err != nil || found && !mu.local && mu.late(f.stamp) || !f.live && mu.local {
		return false, err
	}
	writer := m.writer
	if m.writer != mu.stamp.cluster {
		m.writer = 0
	}
	if f.live {
		m.count--
	}
	mu.writeFieldTombstone(key, m.gen, name)
	if f.live || m.writer != writer {
		mu.writeHash(key, &m)
	}
	return f.live, nil
}

func (mu *mutator) nextGeneration() generation {
	mu.set.generations++
	return newGeneration(mu.at, mu.set.generations)
}

func (mu *mutator) writeMeta(key, rec []byte, expiresAt uint64) {
	dbKey := appendMetaKey(mu.set.arena.take(metaPrefixBytes+len(key)), key)
	mu.s.overlay.add(mu.set, dbKey, rec, expiresAt)
}

// writeHash writes the record of a hash, which is absent for readers when no field is left.
func (mu *mutator) writeHash(key []byte, m *meta) {
	expiresAt := mu.s.valueExpiry(m.expireAt)
	m.kind = recHash
	if m.count == 0 {
		m.kind, expiresAt = recEmptyHash, mu.s.tombstoneExpiry(mu.stamp.ts)
	}
	mu.writeMeta(key, m.appendHead(mu.set.arena.take(hashBytesN)), expiresAt)
}

func (mu *mutator) writeField(key []byte, g generation, name, rec []byte, expiresAt uint64) {
	size := metaPrefixBytes + 2 + len(key) + generationBytes + hashBytes + len(name)
	dbKey := appendFieldKey(mu.set.arena.take(size), key, g, name)
	mu.s.overlay.add(mu.set, dbKey, rec, expiresAt)
}

func (mu *mutator) writeFieldTombstone(key []byte, g generation, name []byte) {
	rec := append(mu.set.arena.take(fieldHead), byte(recFieldTombstone))
	mu.writeField(key, g, name, mu.stamp.append(rec), mu.s.tombstoneExpiry(mu.stamp.ts))
}

// writeSystem writes a number under a system key.
func (mu *mutator) writeSystem(dbKey []byte, value uint64) {
	rec := binary.LittleEndian.AppendUint64(mu.set.arena.take(8), value)
	mu.s.overlay.add(mu.set, append(mu.set.arena.take(len(dbKey)), dbKey...), rec, 0)
}
