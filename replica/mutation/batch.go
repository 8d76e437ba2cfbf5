package mutation

import (
	"encoding/binary"
	"fmt"
)

// SourceMutation is one user mutation of a remote cluster, with the decree it has there.
type SourceMutation struct {
	Decree uint64
	// Data is the user mutation, byte for byte.
	Data []byte
}

// Batch is a run of a remote partition's mutations: all user mutations with Prev < decree <= Last. Decrees that are
// missing in between were no user mutations at the source (no-ops, duplicated ones, progress records).
type Batch struct {
	Cluster   uint64
	Partition uint32
	Prev      uint64
	Last      uint64
	Mutations []SourceMutation
}

// Append appends the encoded batch to dst. The batch must be valid: decrees ascending within (Prev, Last].
func (b *Batch) Append(dst []byte) []byte {
	dst = binary.LittleEndian.AppendUint64(dst, b.Cluster)
	dst = binary.LittleEndian.AppendUint32(dst, b.Partition)
	dst = binary.AppendUvarint(dst, b.Prev)
	dst = binary.AppendUvarint(dst, b.Last)
	before := b.Prev
	for i := range b.Mutations {
		m := &b.Mutations[i]
		dst = binary.AppendUvarint(dst, m.Decree-before)
		dst = appendBytes(dst, m.Data)
		before = m.Decree
	}
	return dst
}

// EncodedBytes is the exact size of what Append appends.
func (b *Batch) EncodedBytes() int {
	n := 12 + uvarintLen(b.Prev) + uvarintLen(b.Last)
	before := b.Prev
	for i := range b.Mutations {
		m := &b.Mutations[i]
		n += uvarintLen(m.Decree-before) + uvarintLen(uint64(len(m.Data))) + len(m.Data)
		before = m.Decree
	}
	return n
}

func uvarintLen(v uint64) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// ParseBatch decodes what Append encoded and checks it, the mutations in it included. Data aliases the input.
func ParseBatch(data []byte) (Batch, error) {
	if len(data) < 12 {
		return Batch{}, fmt.Errorf("%w: batch of %d bytes", ErrFormat, len(data))
	}
	b := Batch{Cluster: binary.LittleEndian.Uint64(data), Partition: binary.LittleEndian.Uint32(data[8:])}
	rest, ok := data[12:], false
	if b.Prev, rest, ok = takeUvarint(rest); ok {
		b.Last, rest, ok = takeUvarint(rest)
	}
	if !ok || b.Last < b.Prev {
		return Batch{}, fmt.Errorf("%w: batch range", ErrFormat)
	}
	for before := b.Prev; len(rest) > 0; {
		var m SourceMutation
		delta := uint64(0)
		if delta, rest, ok = takeUvarint(rest); ok {
			m.Data, rest, ok = takeBytes(rest)
		}
		if !ok || delta == 0 || delta > b.Last-before {
			return Batch{}, fmt.Errorf("%w: batch entry after decree %d", ErrFormat, before)
		}
		m.Decree = before + delta
		before = m.Decree
		b.Mutations = append(b.Mutations, m)
	}
	return b, b.checkMutations()
}

func (b *Batch) checkMutations() error {
	for i := range b.Mutations {
		m := &b.Mutations[i]
		if _, err := expectKind(m.Data, User); err != nil {
			return fmt.Errorf("decree %d: %w", m.Decree, err)
		}
		if err := Validate(m.Data); err != nil {
			return fmt.Errorf("decree %d: %w", m.Decree, err)
		}
	}
	return nil
}

// Validate says whether the batch can be encoded and decoded again: decrees in order and in range, every mutation a
// well-formed user mutation.
func (b *Batch) Validate() error {
	if b.Last < b.Prev {
		return fmt.Errorf("%w: batch from %d to %d", ErrFormat, b.Prev, b.Last)
	}
	before := b.Prev
	for i := range b.Mutations {
		d := b.Mutations[i].Decree
		if d <= before || d > b.Last {
			return fmt.Errorf("%w: decree %d after %d in a batch up to %d", ErrFormat, d, before, b.Last)
		}
		before = d
	}
	return b.checkMutations()
}

// AppendDuplicated appends a duplicated mutation with the batch as its body.
func AppendDuplicated(dst []byte, ts Timestamp, cluster uint64, b *Batch) []byte {
	dst = AppendHeader(dst, Header{Kind: Duplicated, Timestamp: ts, Cluster: cluster})
	return b.Append(dst)
}

// DecodeDuplicated decodes a duplicated mutation.
func DecodeDuplicated(data []byte) (Header, Batch, error) {
	h, err := expectKind(data, Duplicated)
	if err != nil {
		return Header{}, Batch{}, err
	}
	b, err := ParseBatch(data[HeaderBytes:])
	return h, b, err
}

// ProgressRecord is the body of a progress mutation: everything up to Decree is durable at the remote.
type ProgressRecord struct {
	Remote string
	Decree uint64
}

// AppendProgress appends a progress mutation.
func AppendProgress(dst []byte, ts Timestamp, cluster uint64, p ProgressRecord) []byte {
	dst = AppendHeader(dst, Header{Kind: Progress, Timestamp: ts, Cluster: cluster})
	dst = binary.AppendUvarint(dst, uint64(len(p.Remote)))
	dst = append(dst, p.Remote...)
	return binary.AppendUvarint(dst, p.Decree)
}

// DecodeProgress decodes a progress mutation.
func DecodeProgress(data []byte) (Header, ProgressRecord, error) {
	h, err := expectKind(data, Progress)
	if err != nil {
		return Header{}, ProgressRecord{}, err
	}
	remote, rest, ok := takeBytes(data[HeaderBytes:])
	var p ProgressRecord
	if ok {
		p.Remote = string(remote)
		p.Decree, rest, ok = takeUvarint(rest)
	}
	if !ok || len(rest) != 0 {
		return Header{}, ProgressRecord{}, fmt.Errorf("%w: progress record", ErrFormat)
	}
	return h, p, nil
}
