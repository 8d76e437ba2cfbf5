package replica

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"replicanode/replica/mutation"
)

// The first byte of a database key says what it is.
const (
	tableMeta   = 'k' // 'k' hash48(key) key                                            -> one record per key
	tableChild  = 'f' // 'f' hash48(key) len(key)(2) key generation(12) hash48(field) field -> fields and chunks
	tableSystem = 's' // 's' what ...                                                   -> the partition's own state
)

const (
	hashBytes       = 6
	generationBytes = 12
	metaPrefixBytes = 1 + hashBytes
)

// hash48 orders keys, and fields within a hash, so that a position between any two of them is a number: a cursor.
func hash48(b []byte) uint64 { return xxhash.Sum64(b) >> 16 }

func appendHash48(dst []byte, h uint64) []byte {
	return append(dst, byte(h>>40), byte(h>>32), byte(h>>24), byte(h>>16), byte(h>>8), byte(h))
}

func readHash48(b []byte) uint64 {
	return uint64(b[0])<<40 | uint64(b[1])<<32 | uint64(b[2])<<24 | uint64(b[3])<<16 | uint64(b[4])<<8 | uint64(b[5])
}

func appendMetaKey(dst, key []byte) []byte {
	dst = append(dst, tableMeta)
	dst = appendHash48(dst, hash48(key))
	return append(dst, key...)
}

// generation tells the lives of a key's children apart: the timestamp of the mutation that began the life and the
// number of lives that this mutation had begun before.
type generation [generationBytes]byte

func newGeneration(ts mutation.Timestamp, ordinal uint32) (g generation) {
	binary.BigEndian.PutUint64(g[:], uint64(ts))
	binary.BigEndian.PutUint32(g[8:], ordinal)
	return g
}

// appendChildPrefix appends what the keys of all children of one life of a key start with.
func appendChildPrefix(dst, key []byte, g generation) []byte {
	dst = append(dst, tableChild)
	dst = appendHash48(dst, hash48(key))
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(key)))
	dst = append(dst, key...)
	return append(dst, g[:]...)
}

func appendFieldKey(dst, key []byte, g generation, field []byte) []byte {
	dst = appendChildPrefix(dst, key, g)
	dst = appendHash48(dst, hash48(field))
	return append(dst, field...)
}

// appendChunkKey is the key of a chunk of a long string, numbered from 0: in ascending order.
func appendChunkKey(dst, key []byte, g generation, n uint32) []byte {
	dst = appendChildPrefix(dst, key, g)
	return binary.BigEndian.AppendUint32(dst, n)
}

// splitChildKey cuts a database key of tableChild into the user's key and the generation; prefix is what all
// children of that life start with, rest the hash and the field.
func splitChildKey(dbKey []byte) (key []byte, g generation, prefix, rest []byte, ok bool) {
	const head = metaPrefixBytes + 2
	if len(dbKey) < head || dbKey[0] != tableChild {
		return nil, g, nil, nil, false
	}
	end := head + int(binary.BigEndian.Uint16(dbKey[metaPrefixBytes:]))
	if len(dbKey) < end+generationBytes {
		return nil, g, nil, nil, false
	}
	copy(g[:], dbKey[end:])
	end += generationBytes
	return dbKey[head : end-generationBytes], g, dbKey[:end], dbKey[end:], true
}

// System keys.
const (
	sysApplied   = 'a' // -> appliedRecord, written with every applied batch at its last decree
	sysBase      = 'b' // -> decree(8): that of the checkpoint which the partition was restored from
	sysConf      = 'c' // -> raftpb.ConfState, written by membership changes
	sysProgress  = 'd' // cluster(8) partition(4) -> decree(8): what is applied of a remote cluster's partition
	sysConfirmed = 'r' // name of a remote -> decree(8): what that remote has confirmed
)

var (
	appliedKey = []byte{tableSystem, sysApplied}
	baseKey    = []byte{tableSystem, sysBase}
	confKey    = []byte{tableSystem, sysConf}
)

func appendProgressKey(dst []byte, cluster uint64, partition uint32) []byte {
	dst = append(dst, tableSystem, sysProgress)
	dst = binary.BigEndian.AppendUint64(dst, cluster)
	return binary.BigEndian.AppendUint32(dst, partition)
}

func appendConfirmedKey(dst []byte, remote string) []byte {
	dst = append(dst, tableSystem, sysConfirmed)
	return append(dst, remote...)
}

// appliedRecord goes with the last decree of every applied batch.
//
//	version(1) = 1, term(8), the greatest timestamp of a mutation applied up to there(8); little endian
type appliedRecord struct {
	term      uint64
	timestamp mutation.Timestamp
}

const appliedRecordBytes = 17

func (r appliedRecord) append(dst []byte) []byte {
	dst = append(dst, 1)
	dst = binary.LittleEndian.AppendUint64(dst, r.term)
	return binary.LittleEndian.AppendUint64(dst, uint64(r.timestamp))
}

func parseAppliedRecord(b []byte) (r appliedRecord, err error) {
	if len(b) != appliedRecordBytes || b[0] != 1 {
		return r, fmt.Errorf("%w: applied record of %d bytes", errState, len(b))
	}
	r.term = binary.LittleEndian.Uint64(b[1:])
	r.timestamp = mutation.Timestamp(binary.LittleEndian.Uint64(b[9:]))
	return r, nil
}

// recordKind is the first byte of every value in tableMeta and tableChild, and badger's user meta byte of it, so that
// scans which do not read values know it.
type recordKind byte

const (
	recNone           recordKind = 0
	recString         recordKind = 1 // stamp, expire-at(8), data
	recHash           recordKind = 2 // stamp, expire-at(8), expiry's stamp, generation(12), fields(8), writer(8)
	recTombstone      recordKind = 3 // stamp
	recField          recordKind = 4 // stamp, data
	recFieldTombstone recordKind = 5 // stamp
	recChunked        recordKind = 6 // stamp, expire-at(8), generation(12), length(8)
	recChunk          recordKind = 7 // data
	recEmptyHash      recordKind = 8 // as recHash, without live fields: an absent key that remembers its fields' deletes
)

const (
	stampBytes  = 16
	stringHead  = 1 + stampBytes + 8
	hashBytesN  = 1 + stampBytes + 8 + stampBytes + generationBytes + 8 + 8
	fieldHead   = 1 + stampBytes
	chunkedSize = 1 + stampBytes + 8 + generationBytes + 8
	// chunkBytes is the longest value stored in one record. It keeps badger's value log empty: what goes there is
	// not synced before the table that points to it, and collecting its garbage moves values back into memory only.
	chunkBytes = 768 << 10
)

// errState is wrapped by errors about database contents that this package never writes.
var errState = errors.New("malformed state record")

// stamp is what decides which of two writes of the same thing wins: the greater one.
type stamp struct {
	ts      mutation.Timestamp
	cluster uint64
}

func (s stamp) after(o stamp) bool {
	return s.ts > o.ts || s.ts == o.ts && s.cluster > o.cluster
}

func (s stamp) append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, uint64(s.ts))
	return binary.LittleEndian.AppendUint64(dst, s.cluster)
}

func readStamp(b []byte) stamp {
	return stamp{mutation.Timestamp(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:])}
}

// meta is a decoded record of tableMeta.
type meta struct {
	kind recordKind
	// stamp is that of the last write or delete of the key as a whole. Fields stamped before it are dead.
	stamp    stamp
	expireAt uint64 // ms
	// expiry is the stamp of the last OpExpire of a hash.
	expiry stamp
	gen    generation
	// count is the number of live fields of a hash.
	count uint64
	// writer is the only cluster that wrote fields in this generation, 0 when there were more.
	writer uint64
	// length is that of a chunked string.
	length uint64
	data   []byte
}

func parseMeta(rec []byte) (m meta, err error) {
	if len(rec) == 0 {
		return m, nil
	}
	m.kind = recordKind(rec[0])
	ok := false
	switch m.kind {
	case recString:
		if ok = len(rec) >= stringHead; ok {
			m.stamp, m.expireAt = readStamp(rec[1:]), binary.LittleEndian.Uint64(rec[17:])
			m.data = rec[stringHead:len(rec):len(rec)]
		}
	case recTombstone:
		if ok = len(rec) == 1+stampBytes; ok {
			m.stamp = readStamp(rec[1:])
		}
	case recHash, recEmptyHash:
		if ok = len(rec) == hashBytesN; ok {
			m.stamp, m.expireAt = readStamp(rec[1:]), binary.LittleEndian.Uint64(rec[17:])
			m.expiry = readStamp(rec[25:])
			copy(m.gen[:], rec[41:])
			m.count = binary.LittleEndian.Uint64(rec[53:])
			m.writer = binary.LittleEndian.Uint64(rec[61:])
		}
	case recChunked:
		if ok = len(rec) == chunkedSize; ok {
			m.stamp, m.expireAt = readStamp(rec[1:]), binary.LittleEndian.Uint64(rec[17:])
			copy(m.gen[:], rec[25:])
			m.length = binary.LittleEndian.Uint64(rec[37:])
		}
	}
	if !ok {
		return meta{}, fmt.Errorf("%w: kind %d, %d bytes", errState, rec[0], len(rec))
	}
	return m, nil
}

// appendHead appends the record of anything but a string, whose data follows.
func (m *meta) appendHead(dst []byte) []byte {
	dst = append(dst, byte(m.kind))
	dst = m.stamp.append(dst)
	switch m.kind {
	case recString:
		dst = binary.LittleEndian.AppendUint64(dst, m.expireAt)
	case recHash, recEmptyHash:
		dst = binary.LittleEndian.AppendUint64(dst, m.expireAt)
		dst = m.expiry.append(dst)
		dst = append(dst, m.gen[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, m.count)
		dst = binary.LittleEndian.AppendUint64(dst, m.writer)
	case recChunked:
		dst = binary.LittleEndian.AppendUint64(dst, m.expireAt)
		dst = append(dst, m.gen[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, m.length)
	}
	return dst
}

// expired is whether the key's time is over at nowMs.
func (m *meta) expired(nowMs uint64) bool { return m.expireAt != 0 && m.expireAt <= nowMs }

// visible is the kind of value that a reader sees.
func (m *meta) visible(nowMs uint64) Kind {
	switch {
	case m.expired(nowMs):
		return None
	case m.kind == recString, m.kind == recChunked:
		return String
	case m.kind == recHash:
		return Hash
	}
	return None
}

// value is what a reader sees, without the chunks of a long string.
func (m *meta) value() Value {
	switch m.kind {
	case recString:
		return Value{Kind: String, Data: m.data, ExpireAt: m.expireAt, Len: uint64(len(m.data))}
	case recChunked:
		return Value{Kind: String, ExpireAt: m.expireAt, Len: m.length}
	}
	return Value{Kind: Hash, ExpireAt: m.expireAt, Len: m.count}
}

// field is a decoded record of a hash's field.
type field struct {
	live  bool
	stamp stamp
	data  []byte
}

func parseField(rec []byte) (f field, err error) {
	switch {
	case len(rec) >= fieldHead && recordKind(rec[0]) == recField:
		return field{true, readStamp(rec[1:]), rec[fieldHead:len(rec):len(rec)]}, nil
	case len(rec) == fieldHead && recordKind(rec[0]) == recFieldTombstone:
		return field{stamp: readStamp(rec[1:])}, nil
	}
	return f, fmt.Errorf("%w: field record of %d bytes", errState, len(rec))
}
