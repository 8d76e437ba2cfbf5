package mutation

import (
	"encoding/binary"
	"fmt"
)

// OpCode says what an operation does.
type OpCode uint8

const (
	// OpPut sets a key to a string value, whatever was there.
	OpPut OpCode = 1 + iota
	// OpDelete removes a key of any kind.
	OpDelete
	// OpExpire changes when one life of a hash expires: that since the last write of the whole key, which Base names. (A string's
	// expiry is changed by putting it again.)
	OpExpire
	// OpHashPut sets one field of a hash; an absent hash comes to be.
	OpHashPut
	// OpHashDelete removes one field; a hash without fields is gone.
	OpHashDelete
	// OpNow says by which time it was decided what had expired. It comes first, or not at all.
	OpNow
)

// String is the operation's name.
func (c OpCode) String() string {
	switch c {
	case OpPut:
		return "put"
	case OpDelete:
		return "delete"
	case OpExpire:
		return "expire"
	case OpHashPut:
		return "hash put"
	case OpHashDelete:
		return "hash delete"
	case OpNow:
		return "now"
	}
	return fmt.Sprintf("op(%d)", uint8(c))
}

const flagExpire = 1 << 0

// Op is one operation. Slices alias the data it was decoded from.
type Op struct {
	Code  OpCode
	Key   []byte
	Field []byte // hash operations
	Value []byte // OpPut, OpHashPut
	// ExpireAt is in milliseconds since 1970; 0 is never. OpPut and OpExpire.
	ExpireAt uint64
	// BaseAt and BaseCluster stamp the last write of the whole key. OpExpire.
	BaseAt      Timestamp
	BaseCluster uint64
	// Now is in milliseconds since 1970. OpNow.
	Now uint64
}

// Builder encodes a user mutation by appending to one buffer. The zero Builder needs a Reset first.
// It is not safe for concurrent use.
type Builder struct {
	buf []byte
	ops int
}

// Reset starts a new mutation in the same buffer; what Bytes returned before is overwritten.
func (b *Builder) Reset(h Header) {
	b.buf = AppendHeader(b.buf[:0], h)
	b.ops = 0
}

// Put appends an OpPut.
func (b *Builder) Put(key, value []byte, expireAt uint64) {
	var flags byte
	if expireAt != 0 {
		flags |= flagExpire
	}
	b.buf = append(b.buf, byte(OpPut), flags)
	b.buf = appendBytes(b.buf, key)
	b.buf = appendBytes(b.buf, value)
	if expireAt != 0 {
		b.buf = binary.AppendUvarint(b.buf, expireAt)
	}
	b.ops++
}

// Delete appends an OpDelete.
func (b *Builder) Delete(key []byte) {
	b.buf = append(b.buf, byte(OpDelete))
	b.buf = appendBytes(b.buf, key)
	b.ops++
}

// Expire appends an OpExpire.
func (b *Builder) Expire(key []byte, expireAt uint64, baseAt Timestamp, baseCluster uint64) {
	b.buf = append(b.buf, byte(OpExpire))
	b.buf = appendBytes(b.buf, key)
	b.buf = binary.AppendUvarint(b.buf, expireAt)
	b.buf = binary.AppendUvarint(b.buf, uint64(baseAt))
	b.buf = binary.AppendUvarint(b.buf, baseCluster)
	b.ops++
}

// HashPut appends an OpHashPut.
func (b *Builder) HashPut(key, field, value []byte) {
	b.buf = append(b.buf, byte(OpHashPut))
	b.buf = appendBytes(b.buf, key)
	b.buf = appendBytes(b.buf, field)
	b.buf = appendBytes(b.buf, value)
	b.ops++
}

// HashDelete appends an OpHashDelete.
func (b *Builder) HashDelete(key, field []byte) {
	b.buf = append(b.buf, byte(OpHashDelete))
	b.buf = appendBytes(b.buf, key)
	b.buf = appendBytes(b.buf, field)
	b.ops++
}

// Now appends an OpNow, which Ops does not count. It must follow Reset.
func (b *Builder) Now(ms uint64) {
	b.buf = append(b.buf, byte(OpNow))
	b.buf = binary.AppendUvarint(b.buf, ms)
}

// PutBytes is what Put appends, in bytes; the others likewise.
func PutBytes(key, value []byte, expireAt uint64) int {
	n := 2 + bytesLen(key) + bytesLen(value)
	if expireAt != 0 {
		n += uvarintLen(expireAt)
	}
	return n
}

// DeleteBytes is what Delete appends.
func DeleteBytes(key []byte) int { return 1 + bytesLen(key) }

// ExpireBytes bounds what Expire appends.
func ExpireBytes(key []byte, expireAt uint64) int {
	return 1 + bytesLen(key) + uvarintLen(expireAt) + 2*binary.MaxVarintLen64
}

// HashPutBytes is what HashPut appends.
func HashPutBytes(key, field, value []byte) int {
	return 1 + bytesLen(key) + bytesLen(field) + bytesLen(value)
}

// HashDeleteBytes is what HashDelete appends.
func HashDeleteBytes(key, field []byte) int { return 1 + bytesLen(key) + bytesLen(field) }

func bytesLen(v []byte) int { return uvarintLen(uint64(len(v))) + len(v) }

// Ops is the number of operations so far.
func (b *Builder) Ops() int { return b.ops }

// Len is the size in bytes so far.
func (b *Builder) Len() int { return len(b.buf) }

// Bytes is the mutation so far; it is valid until the next call of any other method.
func (b *Builder) Bytes() []byte { return b.buf }

// Mark is a position to which Rollback can return.
type Mark struct{ bytes, ops int }

// Mark remembers what has been appended so far.
func (b *Builder) Mark() Mark { return Mark{len(b.buf), b.ops} }

// Rollback forgets what was appended since the mark was taken.
func (b *Builder) Rollback(m Mark) { b.buf, b.ops = b.buf[:m.bytes], m.ops }

// Decoder reads the operations of a user mutation, without allocating.
type Decoder struct {
	rest  []byte
	err   error
	begun bool
}

// Decode starts decoding a user mutation.
func Decode(data []byte) (Header, Decoder, error) {
	h, err := expectKind(data, User)
	if err != nil {
		return Header{}, Decoder{}, err
	}
	return h, Decoder{rest: data[HeaderBytes:]}, nil
}

// Next reads the next operation into op; false at the end and after an error.
func (d *Decoder) Next(op *Op) bool {
	if len(d.rest) == 0 || d.err != nil {
		return false
	}
	*op = Op{Code: OpCode(d.rest[0])}
	b, ok := d.rest[1:], true
	switch op.Code {
	case OpPut:
		b, ok = decodePut(op, b)
	case OpDelete:
		op.Key, b, ok = takeBytes(b)
	case OpExpire:
		b, ok = decodeExpire(op, b)
	case OpHashPut:
		if op.Key, b, ok = takeBytes(b); ok {
			if op.Field, b, ok = takeBytes(b); ok {
				op.Value, b, ok = takeBytes(b)
			}
		}
	case OpHashDelete:
		if op.Key, b, ok = takeBytes(b); ok {
			op.Field, b, ok = takeBytes(b)
		}
	case OpNow:
		op.Now, b, ok = takeUvarint(b)
		ok = ok && !d.begun
	default:
		ok = false
	}
	d.begun = true
	if !ok {
		d.err = fmt.Errorf("%w: bad %v, %d bytes before the end", ErrFormat, op.Code, len(d.rest))
		return false
	}
	d.rest = b
	return true
}

func decodePut(op *Op, b []byte) (rest []byte, ok bool) {
	if len(b) == 0 || b[0]&^flagExpire != 0 {
		return nil, false
	}
	flags := b[0]
	if op.Key, b, ok = takeBytes(b[1:]); !ok {
		return nil, false
	}
	if op.Value, b, ok = takeBytes(b); !ok || flags&flagExpire == 0 {
		return b, ok
	}
	op.ExpireAt, b, ok = takeUvarint(b)
	return b, ok && op.ExpireAt != 0
}

func decodeExpire(op *Op, b []byte) (rest []byte, ok bool) {
	if op.Key, b, ok = takeBytes(b); !ok {
		return nil, false
	}
	if op.ExpireAt, b, ok = takeUvarint(b); !ok {
		return nil, false
	}
	at, b, ok := takeUvarint(b)
	if !ok {
		return nil, false
	}
	op.BaseAt = Timestamp(at)
	op.BaseCluster, b, ok = takeUvarint(b)
	return b, ok
}

// Err says why Next stopped before the end; nil if it did not.
func (d *Decoder) Err() error { return d.err }

// Validate reads the whole mutation, of any kind, and says whether it is well formed.
func Validate(data []byte) error {
	h, err := ParseHeader(data)
	if err != nil {
		return err
	}
	switch h.Kind {
	case Duplicated:
		_, _, err = DecodeDuplicated(data)
		return err
	case Progress:
		_, _, err = DecodeProgress(data)
		return err
	}
	_, d, err := Decode(data)
	if err != nil {
		return err
	}
	for op := (Op{}); d.Next(&op); {
	}
	return d.Err()
}
