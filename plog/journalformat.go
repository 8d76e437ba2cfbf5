package plog

import (
	"encoding/binary"
	"hash/crc32"
)

const (
	journalMagic = 0x314e4a474f4c5052 // "RPLOGJN1"
	blockMagic   = 0x4b424c50         // "PLBK"

	// journalAlign is what blocks begin at a multiple of: a write that fails or is torn in the middle of a physical sector does not
	// touch the block before.
	journalAlign       = 4096
	journalAreas       = 2
	journalHeaderLen   = 512 // of the first page of an area
	blockHeaderLen     = 40
	blockEntryLen      = 32
	maxBlockEntryBytes = 64 << 10
	maxBlockBytes      = 1 << 20
)

// journalHeader is the first sector of an area.
type journalHeader struct {
	id         uint64
	generation uint64
	areaBytes  int64
	area       uint32
}

// put encodes h into b, which has journalHeaderLen bytes.
func (h *journalHeader) put(b []byte) {
	le := binary.LittleEndian
	clear(b[:journalHeaderLen])
	le.PutUint64(b[4:], journalMagic)
	le.PutUint32(b[12:], formatVersion)
	le.PutUint64(b[16:], h.id)
	le.PutUint64(b[24:], h.generation)
	le.PutUint64(b[32:], uint64(h.areaBytes))
	le.PutUint32(b[40:], h.area)
	le.PutUint32(b, crc32.Checksum(b[4:journalHeaderLen], castagnoli))
}

// parseJournalHeader decodes b. ok: it is whole.
func parseJournalHeader(b []byte) (h journalHeader, version uint32, ok bool) {
	le := binary.LittleEndian
	if len(b) < journalHeaderLen || le.Uint64(b[4:]) != journalMagic || crc32.Checksum(b[4:journalHeaderLen], castagnoli) != le.Uint32(b) {
		return h, 0, false
	}
	h = journalHeader{id: le.Uint64(b[16:]), generation: le.Uint64(b[24:]), areaBytes: int64(le.Uint64(b[32:])), area: le.Uint32(b[40:])}
	return h, le.Uint32(b[12:]), true
}

// block gathers what one round writes to the journal.
type block struct {
	buf     []byte
	entries uint32
	limit   int // bytes, padding included
}

func (b *block) reset(limit int) {
	var room [blockHeaderLen]byte
	b.buf, b.entries, b.limit = append(b.buf[:0], room[:]...), 0, limit
}

// fits says whether n more bytes of a log do.
func (b *block) fits(n int) bool { return padded(len(b.buf)+blockEntryLen+n) <= b.limit }

func padded(n int) int { return (n + journalAlign - 1) &^ (journalAlign - 1) }

// add takes bytes that stand at off of a segment.
func (b *block) add(log uint64, partition uint32, seq uint64, off int64, bytes []byte) {
	le := binary.LittleEndian
	b.buf = le.AppendUint64(b.buf, log)
	b.buf = le.AppendUint64(b.buf, seq)
	b.buf = le.AppendUint64(b.buf, uint64(off))
	b.buf = le.AppendUint32(b.buf, partition)
	b.buf = le.AppendUint32(b.buf, uint32(len(bytes)))
	b.buf = append(b.buf, bytes...)
	b.entries++
}

// blockPlace is where a block stands.
type blockPlace struct {
	id         uint64 // of the journal
	generation uint64 // of the area
	number     uint64 // of the block in it
	off        int64  // in the file
}

// seed starts the checksum of the block: one of an earlier generation, of another journal, or at another place never has it.
func (p blockPlace) seed() uint32 {
	return frameSeed(spread(spread(p.id+0x9e3779b97f4a7c15)^p.generation), p.off)
}

// seal ends the block for its place and returns its bytes, padding included. was is how far the area went that was used before.
func (b *block) seal(p blockPlace, was Reach) []byte {
	le := binary.LittleEndian
	le.PutUint32(b.buf[4:], blockMagic)
	le.PutUint32(b.buf[8:], uint32(len(b.buf)))
	le.PutUint32(b.buf[12:], b.entries)
	le.PutUint64(b.buf[16:], p.number)
	le.PutUint64(b.buf[24:], was.Generation)
	le.PutUint64(b.buf[32:], uint64(was.End))
	le.PutUint32(b.buf, crc32.Update(p.seed(), castagnoli, b.buf[4:]))
	for n := padded(len(b.buf)); len(b.buf) < n; {
		var zero [journalAlign]byte
		b.buf = append(b.buf, zero[:n-len(b.buf)]...)
	}
	return b.buf
}

// blockEntry is one log's part of a block; bytes points into it.
type blockEntry struct {
	log       uint64
	partition uint32
	seq       uint64
	off       int64
	bytes     []byte
}

// blockLen returns the bytes of the block whose header begins b, 0 when there is none.
func blockLen(b []byte) int {
	le := binary.LittleEndian
	if len(b) < blockHeaderLen || le.Uint32(b[4:]) != blockMagic {
		return 0
	}
	if n := le.Uint32(b[8:]); n >= blockHeaderLen && n <= maxBlockBytes {
		return int(n)
	}
	return 0
}

// parseBlock decodes b, a block of blockLen bytes. ok: it is whole and belongs to its place.
func parseBlock(b []byte, p blockPlace, visit func(blockEntry) error) (was Reach, ok bool, err error) {
	le := binary.LittleEndian
	if !blockValid(b, p) || le.Uint64(b[16:]) != p.number {
		return was, false, nil
	}
	was = Reach{Generation: le.Uint64(b[24:]), End: int64(le.Uint64(b[32:]))}
	n := le.Uint32(b[12:])
	b = b[blockHeaderLen:]
	for range n {
		if len(b) < blockEntryLen {
			return was, false, nil
		}
		e := blockEntry{log: le.Uint64(b), seq: le.Uint64(b[8:]), off: int64(le.Uint64(b[16:])), partition: le.Uint32(b[24:])}
		size := uint64(le.Uint32(b[28:]))
		if b = b[blockEntryLen:]; size > uint64(len(b)) {
			return was, false, nil
		}
		e.bytes, b = b[:size:size], b[size:]
		if err := visit(e); err != nil {
			return was, true, err
		}
	}
	return was, len(b) == 0, nil
}

// blockValid checks the checksum of a whole block.
func blockValid(b []byte, p blockPlace) bool {
	n := blockLen(b)
	return n > 0 && n == len(b) && crc32.Update(p.seed(), castagnoli, b[4:]) == binary.LittleEndian.Uint32(b)
}
