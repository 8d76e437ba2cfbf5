package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/zstd"
)

// newDecoder returns a decompressor that starts no goroutine and never yields
// more than one block.
func newDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1),
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxWindow(1<<20),
	)
}

// chunkReader reads one chunk from its first byte to its last, checking every
// checksum, length and the key order on the way. Memory is bounded by two
// blocks and the largest entry.
type chunkReader struct {
	r    io.Reader
	dec  *zstd.Decoder
	path string

	off    int64  // of the next unread file byte
	block  int64  // offset of the block being read
	crc    uint32 // CRC32C of the file so far
	stored []byte
	plain  []byte // capacity one block
	raw    []byte // unread raw bytes of the current block
	ended  bool

	entries uint64
	rawSize uint64
	key     []byte
	lastKey []byte
	value   []byte

	// afterBlock runs after each block with its file bytes; may be nil.
	afterBlock func(n int) error
}

// openChunk checks the header of r against id.
func openChunk(r io.Reader, path string, id chunkID, dec *zstd.Decoder) (*chunkReader, error) {
	c := &chunkReader{r: r, dec: dec, path: path, plain: make([]byte, 0, blockRawBytes)}
	header := make([]byte, chunkHeaderSize)
	if err := c.readFull(header); err != nil {
		return nil, err
	}
	if reason := id.checkHeader(header); reason != "" {
		return nil, &CorruptError{Path: path, Reason: reason}
	}
	return c, nil
}

// next reads one entry into e. Key and Value are valid until the call after.
// It returns io.EOF after the last entry, when the file has ended as it must.
func (c *chunkReader) next(e *Entry) error {
	var fixed [2]byte
	switch err := c.readRaw(fixed[:1]); {
	case err == io.EOF:
		return c.checkEnd()
	case err != nil:
		return err
	}
	if err := c.need(c.readRaw(fixed[1:])); err != nil {
		return err
	}
	*e = Entry{Kind: EntryKind(fixed[0]), UserMeta: fixed[1]}
	if e.Kind != Put && e.Kind != Delete {
		return c.corrupt("unknown entry kind %d", fixed[0])
	}
	var keyLen uint64
	for _, field := range []*uint64{&e.Version, &e.ExpiresAt, &keyLen} {
		if err := c.readUvarint(field); err != nil {
			return err
		}
	}
	if keyLen == 0 || keyLen > maxKeyBytes {
		return c.corrupt("key of %d bytes", keyLen)
	}
	if err := c.readKey(int(keyLen)); err != nil {
		return err
	}
	e.Key = c.key
	if e.Kind == Put {
		var n uint64
		if err := c.readUvarint(&n); err != nil {
			return err
		}
		if err := c.readValue(n); err != nil {
			return err
		}
		e.Value = c.value
	}
	c.entries++
	return nil
}

func (c *chunkReader) readKey(n int) error {
	c.key, c.lastKey = c.lastKey, c.key
	if cap(c.key) < n {
		c.key = make([]byte, n)
	}
	c.key = c.key[:n]
	if err := c.need(c.readRaw(c.key)); err != nil {
		return err
	}
	if c.entries > 0 && bytes.Compare(c.lastKey, c.key) >= 0 {
		return c.corrupt("keys out of order")
	}
	return nil
}

// readValue grows its buffer as the bytes really arrive, so that a false length
// costs no memory.
func (c *chunkReader) readValue(n uint64) error {
	if n > maxValueBytes {
		return c.corrupt("value of %d bytes", n)
	}
	c.value = c.value[:0]
	for uint64(len(c.value)) < n {
		if len(c.raw) == 0 {
			if err := c.need(c.nextBlock()); err != nil {
				return err
			}
		}
		take := min(n-uint64(len(c.value)), uint64(len(c.raw)))
		c.value = append(c.value, c.raw[:take]...)
		c.raw = c.raw[take:]
	}
	return nil
}

func (c *chunkReader) readUvarint(v *uint64) error {
	var b [1]byte
	*v = 0
	for shift := uint(0); ; shift += 7 {
		if err := c.need(c.readRaw(b[:])); err != nil {
			return err
		}
		if shift == 63 && b[0] > 1 {
			return c.corrupt("number too large")
		}
		*v |= uint64(b[0]&0x7f) << shift
		if b[0] < 0x80 {
			return nil
		}
	}
}

// readRaw fills p with raw bytes. io.EOF means that the chunk ended before p's first byte.
func (c *chunkReader) readRaw(p []byte) error {
	for filled := 0; filled < len(p); {
		if len(c.raw) == 0 {
			err := c.nextBlock()
			if err == io.EOF && filled > 0 {
				return c.need(err)
			}
			if err != nil {
				return err
			}
		}
		n := copy(p[filled:], c.raw)
		filled += n
		c.raw = c.raw[n:]
	}
	return nil
}

// need turns the chunk's end inside an entry into an error.
func (c *chunkReader) need(err error) error {
	if err == io.EOF {
		return c.corrupt("chunk ends within an entry")
	}
	return err
}

// nextBlock reads and decodes one block; io.EOF after the end block.
func (c *chunkReader) nextBlock() error {
	if c.ended {
		return io.EOF
	}
	c.block = c.off
	var head [blockHeaderSize]byte
	if err := c.readFull(head[:]); err != nil {
		return err
	}
	rawLen := binary.LittleEndian.Uint32(head[0:])
	storedLen := binary.LittleEndian.Uint32(head[4:])
	if rawLen > blockRawBytes || storedLen == 0 || storedLen > max(rawLen, endPayloadSize) ||
		(rawLen == 0 && storedLen != endPayloadSize) {
		return c.corrupt("impossible block lengths %d and %d", rawLen, storedLen)
	}
	if cap(c.stored) < int(storedLen) {
		c.stored = make([]byte, storedLen, max(int(storedLen), 64<<10))
	}
	c.stored = c.stored[:storedLen]
	if err := c.readFull(c.stored); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(head[8:]) != blockCRC(head[:], c.stored) {
		return c.corrupt("block checksum differs")
	}
	if rawLen == 0 {
		c.ended = true
		return io.EOF
	}
	if err := c.decode(rawLen); err != nil {
		return err
	}
	c.rawSize += uint64(rawLen)
	if c.afterBlock != nil {
		return c.afterBlock(blockHeaderSize + int(storedLen))
	}
	return nil
}

func (c *chunkReader) decode(rawLen uint32) error {
	if len(c.stored) == int(rawLen) {
		c.raw = c.stored
		return nil
	}
	plain, err := c.dec.DecodeAll(c.stored, c.plain[:0])
	if err != nil {
		return c.corrupt("cannot decompress: %v", err)
	}
	if len(plain) != int(rawLen) {
		return c.corrupt("block of %d bytes decompressed to %d", rawLen, len(plain))
	}
	c.raw = plain
	return nil
}

// checkEnd holds the end block's totals against what was read, and the file's
// end against the end block's.
func (c *chunkReader) checkEnd() error {
	entries, raw := binary.LittleEndian.Uint64(c.stored), binary.LittleEndian.Uint64(c.stored[8:])
	if entries != c.entries || raw != c.rawSize {
		return c.corrupt("%d entries in %d bytes, the end block says %d in %d", c.entries, c.rawSize, entries, raw)
	}
	var b [1]byte
	switch n, err := io.ReadFull(c.r, b[:]); {
	case n > 0:
		return c.corrupt("bytes after the end block")
	case err != io.EOF:
		return fmt.Errorf("read checkpoint file %s: %w", c.path, err)
	}
	return io.EOF
}

func (c *chunkReader) readFull(p []byte) error {
	n, err := io.ReadFull(c.r, p)
	c.off += int64(n)
	if err == nil {
		c.crc = crc32.Update(c.crc, castagnoli, p)
		return nil
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &CorruptError{Path: c.path, Offset: c.off, Reason: "file ends too early"}
	}
	return fmt.Errorf("read checkpoint file %s: %w", c.path, err)
}

func (c *chunkReader) corrupt(format string, args ...any) error {
	return &CorruptError{Path: c.path, Offset: c.block, Reason: fmt.Sprintf(format, args...)}
}
