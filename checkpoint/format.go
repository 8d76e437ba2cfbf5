package checkpoint

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// FormatVersion is the version of the chunk and manifest formats this package
// writes, and the newest it reads.
const FormatVersion = 1

const (
	chunkMagic      = "RNODECKP"
	chunkHeaderSize = 32
	blockHeaderSize = 12
	endPayloadSize  = 16

	// blockRawBytes bounds the work between two yields and a reader's memory.
	blockRawBytes = 128 << 10

	maxKeyBytes   = 65535
	maxValueBytes = 1 << 30
	maxChunks     = 1 << 20
)

// EntryKind tells what an entry does to its key.
type EntryKind uint8

const (
	// Put sets the key to the entry's value.
	Put EntryKind = 1
	// Delete removes the key; it occurs only in incremental checkpoints.
	Delete EntryKind = 2
)

// Entry is one key's newest state at or below the checkpoint's decree.
type Entry struct {
	Kind      EntryKind
	UserMeta  byte   // badger's user meta byte
	Version   uint64 // decree that wrote the entry
	ExpiresAt uint64 // badger's expiry, seconds since 1970, 0 = never
	Key       []byte // 1..65535 bytes
	Value     []byte // 0..1 GiB, empty for Delete
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CorruptError says which byte of which file is damaged.
type CorruptError struct {
	Path   string // file, as it was opened
	Offset int64  // of the damaged header, block or entry within the file
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("checkpoint file %s is damaged at offset %d: %s", e.Path, e.Offset, e.Reason)
}

// chunkID names the chunk a file must hold.
type chunkID struct {
	partition uint32
	decree    uint64
	number    uint32
}

func (id chunkID) name() string { return fmt.Sprintf("%06d.chunk", id.number) }

// appendHeader appends the chunk header for id.
func (id chunkID) appendHeader(b []byte) []byte {
	start := len(b)
	b = append(b, chunkMagic...)
	b = binary.LittleEndian.AppendUint32(b, FormatVersion)
	b = binary.LittleEndian.AppendUint32(b, id.partition)
	b = binary.LittleEndian.AppendUint64(b, id.decree)
	b = binary.LittleEndian.AppendUint32(b, id.number)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// checkHeader says why b is not the header of chunk id, or returns "".
func (id chunkID) checkHeader(b []byte) string {
	le := binary.LittleEndian
	switch {
	case string(b[:8]) != chunkMagic:
		return "not a chunk file"
	case le.Uint32(b[28:]) != crc32.Checksum(b[:28], castagnoli):
		return "header checksum differs"
	case le.Uint32(b[8:]) != FormatVersion:
		return fmt.Sprintf("format version %d is not supported", le.Uint32(b[8:]))
	case le.Uint32(b[12:]) != id.partition:
		return fmt.Sprintf("belongs to partition %d, not %d", le.Uint32(b[12:]), id.partition)
	case le.Uint64(b[16:]) != id.decree:
		return fmt.Sprintf("belongs to decree %d, not %d", le.Uint64(b[16:]), id.decree)
	case le.Uint32(b[24:]) != id.number:
		return fmt.Sprintf("is chunk %d, not %d", le.Uint32(b[24:]), id.number)
	}
	return ""
}

// blockCRC covers a block's two lengths and its stored bytes.
func blockCRC(lengths, stored []byte) uint32 {
	return crc32.Update(crc32.Checksum(lengths[:8], castagnoli), castagnoli, stored)
}

// appendEntryHead appends everything of e but the value's bytes.
func appendEntryHead(b []byte, e *Entry) []byte {
	b = append(b, byte(e.Kind), e.UserMeta)
	b = binary.AppendUvarint(b, e.Version)
	b = binary.AppendUvarint(b, e.ExpiresAt)
	b = binary.AppendUvarint(b, uint64(len(e.Key)))
	b = append(b, e.Key...)
	if e.Kind == Put {
		b = binary.AppendUvarint(b, uint64(len(e.Value)))
	}
	return b
}
