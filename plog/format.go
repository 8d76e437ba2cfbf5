package plog

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
)

// Sizes and marks of the format; the package comment draws them.
const (
	formatVersion = 1

	segmentHeaderLen  = 512 // header and padding: frames start here
	segmentHeaderUsed = 56
	frameHeaderLen    = 44
	hardStateLen      = 24
	recordHeaderLen   = 9

	segmentMagic = 0x314753474f4c5052 // "RPLOGSG1"
	frameMagic   = 0x4d465250         // "PRFM"

	flagHardState = 1 << 0 // a hard state follows the frame header
	flagContinued = 1 << 1 // the batch goes on in the next frame
	flagSynced    = 1 << 2 // everything before this frame in this segment was synced before it was written
	flagsKnown    = flagHardState | flagContinued | flagSynced
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Entry is one decree of the log.
type Entry struct {
	Index uint64 // the decree, from 1
	Term  uint64 // the ballot
	Type  uint8  // opaque to the log
	Data  []byte
}

// HardState is what Raft must remember besides its entries.
type HardState struct {
	Term, Vote, Commit uint64
}

// segmentKey spreads partition and sequence number over 64 bits; every checksum of the segment starts from it.
func segmentKey(partition uint32, seq uint64) uint64 {
	return spread(spread(uint64(partition)+0x9e3779b97f4a7c15) ^ seq)
}

// spread is the finalizer of splitmix64: a bijection without fixed structure.
func spread(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// frameSeed starts the checksum of the frame header at off.
func frameSeed(key uint64, off int64) uint32 {
	return uint32(spread(key^uint64(off)) >> 32)
}

// recordSeed starts the checksum of the record at off. A CRC is linear in its start value, so the same bytes
// at two places with different seeds never have the same checksum.
func recordSeed(key uint64, off int64, index, term uint64) uint32 {
	x := key + uint64(off)*0x9e3779b97f4a7c15 + index*0xc2b2ae3d27d4eb4f + term*0x165667b19e3779f9
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	return uint32(x >> 32)
}

// fold adds a record's checksum to its frame's digest; order matters.
func fold(digest, crc uint32) uint32 {
	return bits.RotateLeft32(digest, 5)*0x9e3779b1 ^ crc
}

// firstLink is what the first frame of a segment links to.
func firstLink(key uint64) uint32 { return uint32(key) }

// frameHeader is the decoded header of a frame.
type frameHeader struct {
	link    uint32 // chain value of the frame before
	digest  uint32 // fold of the records' checksums
	body    uint32 // bytes of all records
	count   uint32 // records
	first   uint64 // decree of the first record
	term    uint64 // of every record
	flags   uint8
	session uint32 // 24 bits, drawn anew by each Open and after each failed write
	hs      HardState
	chain   uint32 // chain value: the header's checksum without flagSynced
}

// size is the number of bytes before the records.
func (h *frameHeader) size() int {
	if h.flags&flagHardState != 0 {
		return frameHeaderLen + hardStateLen
	}
	return frameHeaderLen
}

// put encodes h for offset off into b and sets h.chain.
func (h *frameHeader) put(b []byte, key uint64, off int64) {
	le := binary.LittleEndian
	le.PutUint32(b[4:], frameMagic)
	le.PutUint32(b[8:], h.link)
	le.PutUint32(b[12:], h.digest)
	le.PutUint32(b[16:], h.body)
	le.PutUint32(b[20:], h.count)
	le.PutUint64(b[24:], h.first)
	le.PutUint64(b[32:], h.term)
	le.PutUint32(b[40:], uint32(h.flags)|h.session<<8)
	if h.flags&flagHardState != 0 {
		putHardState(b[frameHeaderLen:], h.hs)
	}
	h.chain = crc32.Update(frameSeed(key, off), castagnoli, b[4:h.size()])
	le.PutUint32(b, h.chain)
}

// markSynced sets flagSynced in the encoded header b and renews its checksum; the chain does not change.
func markSynced(b []byte, key uint64, off int64) {
	n := frameHeaderLen
	if b[40]&flagHardState != 0 {
		n += hardStateLen
	}
	b[40] |= flagSynced
	binary.LittleEndian.PutUint32(b, crc32.Update(frameSeed(key, off), castagnoli, b[4:n]))
}

// parseFrameHeader decodes the header at off. It fails when b is not a whole header written for this place.
func parseFrameHeader(b []byte, key uint64, off int64, h *frameHeader) bool {
	le := binary.LittleEndian
	if len(b) < frameHeaderLen || le.Uint32(b[4:]) != frameMagic {
		return false
	}
	word := le.Uint32(b[40:])
	h.flags, h.session = uint8(word), word>>8
	n := h.size()
	if len(b) < n || h.flags&^flagsKnown != 0 {
		return false
	}
	h.chain = crc32.Update(frameSeed(key, off), castagnoli, b[4:n])
	if h.chain != le.Uint32(b) {
		return false
	}
	h.link, h.digest = le.Uint32(b[8:]), le.Uint32(b[12:])
	h.body, h.count = le.Uint32(b[16:]), le.Uint32(b[20:])
	h.first, h.term = le.Uint64(b[24:]), le.Uint64(b[32:])
	h.hs = HardState{}
	if h.flags&flagHardState != 0 {
		h.hs = getHardState(b[frameHeaderLen:])
	}
	if h.flags&flagSynced != 0 {
		var plain [frameHeaderLen + hardStateLen]byte
		copy(plain[:n], b)
		plain[40] &^= flagSynced
		h.chain = crc32.Update(frameSeed(key, off), castagnoli, plain[4:n])
	}
	return uint64(h.count)*recordHeaderLen <= uint64(h.body) && h.body <= MaxBatchBytes
}

// appendRecord encodes e, which will stand at off, and returns its checksum.
func appendRecord(b []byte, key uint64, off int64, e *Entry) ([]byte, uint32) {
	at := len(b)
	b = slices.Grow(b, recordHeaderLen+len(e.Data))[:at+recordHeaderLen+len(e.Data)]
	r := b[at:]
	binary.LittleEndian.PutUint32(r[4:], uint32(len(e.Data)))
	r[8] = e.Type
	copy(r[recordHeaderLen:], e.Data)
	crc := crc32.Update(recordSeed(key, off, e.Index, e.Term), castagnoli, r[4:])
	binary.LittleEndian.PutUint32(r, crc)
	return b, crc
}

func putHardState(b []byte, hs HardState) {
	binary.LittleEndian.PutUint64(b, hs.Term)
	binary.LittleEndian.PutUint64(b[8:], hs.Vote)
	binary.LittleEndian.PutUint64(b[16:], hs.Commit)
}

func getHardState(b []byte) HardState {
	le := binary.LittleEndian
	return HardState{Term: le.Uint64(b), Vote: le.Uint64(b[8:]), Commit: le.Uint64(b[16:])}
}

// segmentHeader is the decoded first sector of a segment.
type segmentHeader struct {
	partition  uint32
	seq        uint64
	generation uint64 // of the manifest that made this segment the active one
	first      uint64 // decree expected first
	created    int64  // unix nanoseconds
}

// put encodes h into b, which has segmentHeaderLen bytes.
func (h *segmentHeader) put(b []byte) {
	le := binary.LittleEndian
	clear(b[:segmentHeaderLen])
	le.PutUint64(b[4:], segmentMagic)
	le.PutUint32(b[12:], formatVersion)
	le.PutUint32(b[16:], h.partition)
	le.PutUint64(b[20:], h.seq)
	le.PutUint64(b[28:], h.generation)
	le.PutUint64(b[36:], h.first)
	le.PutUint64(b[44:], uint64(h.created))
	le.PutUint32(b, crc32.Update(frameSeed(segmentKey(h.partition, h.seq), 0), castagnoli, b[4:segmentHeaderLen]))
}

// otherVersion returns the version of a whole segment header that this version does not read, 0 when b is none. The place of the
// fields that the checksum starts from is the same in all versions.
func otherVersion(b []byte) uint32 {
	le := binary.LittleEndian
	if len(b) < segmentHeaderLen || le.Uint64(b[4:]) != segmentMagic || le.Uint32(b[12:]) == formatVersion {
		return 0
	}
	seed := frameSeed(segmentKey(le.Uint32(b[16:]), le.Uint64(b[20:])), 0)
	if crc32.Update(seed, castagnoli, b[4:segmentHeaderLen]) != le.Uint32(b) {
		return 0
	}
	return le.Uint32(b[12:])
}

// parseSegmentHeader decodes b. ok: the header is whole and belongs to the partition and sequence number it names.
func parseSegmentHeader(b []byte) (h segmentHeader, ok bool) {
	le := binary.LittleEndian
	if len(b) < segmentHeaderLen || le.Uint64(b[4:]) != segmentMagic || le.Uint32(b[12:]) != formatVersion {
		return h, false
	}
	h.partition, h.seq = le.Uint32(b[16:]), le.Uint64(b[20:])
	h.generation, h.first, h.created = le.Uint64(b[28:]), le.Uint64(b[36:]), int64(le.Uint64(b[44:]))
	crc := crc32.Update(frameSeed(segmentKey(h.partition, h.seq), 0), castagnoli, b[4:segmentHeaderLen])
	return h, crc == le.Uint32(b)
}
