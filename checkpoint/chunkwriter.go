package checkpoint

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

// newEncoder returns the compressor of one checkpoint. It starts no goroutine:
// all its work is done inside the caller's slot.
func newEncoder() (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest),
		zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false),
		zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(blockRawBytes),
	)
}

// chunkWriter turns entries into one chunk. Its buffers are reused from chunk
// to chunk by reset.
type chunkWriter struct {
	w     io.Writer
	enc   *zstd.Encoder
	raw   []byte // raw bytes of the block being filled
	out   []byte // one encoded block
	lastK []byte

	size    int64  // file bytes written
	crc     uint32 // CRC32C of the file so far
	entries uint64
	rawSize uint64

	// afterBlock runs after each written block with its file bytes: the place to yield.
	afterBlock func(n int) error
}

func newChunkWriter(enc *zstd.Encoder, afterBlock func(int) error) *chunkWriter {
	return &chunkWriter{
		enc:        enc,
		raw:        make([]byte, 0, blockRawBytes+4<<10),
		out:        make([]byte, 0, blockRawBytes+4<<10),
		afterBlock: afterBlock,
	}
}

// reset starts chunk id on w.
func (c *chunkWriter) reset(w io.Writer, id chunkID) error {
	c.w, c.raw, c.lastK = w, c.raw[:0], c.lastK[:0]
	c.size, c.crc, c.entries, c.rawSize = 0, 0, 0, 0
	c.out = id.appendHeader(c.out[:0])
	return c.write()
}

// estimate is the size the file would have if the chunk ended now, taking the
// pending block as uncompressed.
func (c *chunkWriter) estimate() int64 { return c.size + int64(len(c.raw)) }

// add appends e, whose key must be greater than every earlier one.
func (c *chunkWriter) add(e *Entry) error {
	if len(e.Key) == 0 || len(e.Key) > maxKeyBytes || len(e.Value) > maxValueBytes {
		return fmt.Errorf("entry with a key of %d and a value of %d bytes is outside the format's limits", len(e.Key), len(e.Value))
	}
	if c.entries > 0 && string(c.lastK) >= string(e.Key) {
		return fmt.Errorf("keys are out of order: %q follows %q", e.Key, c.lastK)
	}
	before := len(c.raw)
	c.raw = appendEntryHead(c.raw, e)
	c.rawSize += uint64(len(c.raw) - before + len(e.Value))
	c.entries++
	c.lastK = append(c.lastK[:0], e.Key...)
	for v := e.Value; ; {
		// A key near the limit may already have overfilled the block.
		n := min(len(v), max(0, blockRawBytes-len(c.raw)))
		c.raw = append(c.raw, v[:n]...)
		v = v[n:]
		if len(c.raw) >= blockRawBytes {
			if err := c.flush(blockRawBytes); err != nil {
				return err
			}
		}
		if len(v) == 0 {
			return nil
		}
	}
}

// flush writes the first n pending raw bytes as one block.
func (c *chunkWriter) flush(n int) error {
	var lengths [blockHeaderSize]byte
	c.out = append(c.out[:0], lengths[:]...)
	c.out = c.enc.EncodeAll(c.raw[:n], c.out)
	if len(c.out)-blockHeaderSize >= n {
		c.out = append(c.out[:blockHeaderSize], c.raw[:n]...)
	}
	rest := copy(c.raw, c.raw[n:])
	c.raw = c.raw[:rest]
	return c.seal(uint32(n))
}

// seal fills in the header of the block in c.out and writes it.
func (c *chunkWriter) seal(rawLen uint32) error {
	binary.LittleEndian.PutUint32(c.out[0:], rawLen)
	binary.LittleEndian.PutUint32(c.out[4:], uint32(len(c.out)-blockHeaderSize))
	binary.LittleEndian.PutUint32(c.out[8:], blockCRC(c.out, c.out[blockHeaderSize:]))
	n := len(c.out)
	if err := c.write(); err != nil {
		return err
	}
	if c.afterBlock == nil {
		return nil
	}
	return c.afterBlock(n)
}

// finish writes what is pending and the end block.
func (c *chunkWriter) finish() error {
	for len(c.raw) > 0 {
		if err := c.flush(min(len(c.raw), blockRawBytes)); err != nil {
			return err
		}
	}
	var zero [blockHeaderSize]byte
	c.out = append(c.out[:0], zero[:]...)
	c.out = binary.LittleEndian.AppendUint64(c.out, c.entries)
	c.out = binary.LittleEndian.AppendUint64(c.out, c.rawSize)
	return c.seal(0)
}

func (c *chunkWriter) write() error {
	c.crc = crc32.Update(c.crc, castagnoli, c.out)
	n, err := c.w.Write(c.out)
	c.size += int64(n)
	return err
}
