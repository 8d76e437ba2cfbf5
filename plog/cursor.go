package plog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// cursor decodes the records of one segment in order, verifying each. It reads only below end.
type cursor struct {
	f         vfs.File
	partition uint32
	seq       uint64
	key       uint64

	buf  []byte
	r, w int
	off  int64 // file offset of buf[r]
	end  int64

	index uint64 // of the next record
	term  uint64
	left  uint32 // records left in the frame
	bytes int64  // read from the file

	growing bool // the buffer grows while whole ones are read
}

// start positions the cursor at a record; left is 0 to start at a frame.
func (c *cursor) start(f vfs.File, s *segment, partition uint32, p point, end int64) {
	*c = cursor{f: f, partition: partition, seq: s.seq, key: s.key, buf: c.buf, off: int64(p.off), end: end,
		index: p.index, term: p.term, left: p.left, bytes: c.bytes, growing: c.growing}
}

func (c *cursor) corrupt(kind Kind) error {
	return &ErrCorrupt{Partition: c.partition, Segment: c.seq, Offset: c.off, Decree: c.index, Kind: kind}
}

// next decodes the next record into e. e.Data is valid until the next call. io.EOF at end.
func (c *cursor) next(e *Entry) error {
	for c.left == 0 {
		if err := c.frame(); err != nil {
			return err
		}
	}
	b := c.buf[c.r:c.w]
	if len(b) < recordHeaderLen {
		var err error
		if b, err = c.fill(recordHeaderLen); err != nil {
			return c.short(err)
		}
	}
	size := uint64(binary.LittleEndian.Uint32(b[4:])) + recordHeaderLen
	if size > uint64(len(b)) {
		if size > MaxBatchBytes {
			return c.corrupt(KindRecord)
		}
		var err error
		if b, err = c.fill(int(size)); err != nil {
			return c.short(err)
		}
	}
	if crc32.Update(recordSeed(c.key, c.off, c.index, c.term), castagnoli, b[4:size]) != binary.LittleEndian.Uint32(b) {
		return c.corrupt(KindRecord)
	}
	e.Index, e.Term, e.Type = c.index, c.term, b[8]
	e.Data = b[recordHeaderLen:size:size]
	c.r += int(size)
	c.off += int64(size)
	c.index++
	c.left--
	return nil
}

// frame decodes the frame header at the cursor.
func (c *cursor) frame() error {
	if c.off >= c.end {
		return io.EOF
	}
	b, err := c.fill(int(min(frameHeaderLen+hardStateLen, c.end-c.off)))
	if err != nil {
		return c.short(err)
	}
	var h frameHeader
	if !parseFrameHeader(b, c.key, c.off, &h) {
		return c.corrupt(KindFrame)
	}
	if h.count > 0 {
		if h.first != c.index {
			return c.corrupt(KindOrder)
		}
		c.term = h.term
	}
	c.left = h.count
	c.r += h.size()
	c.off += int64(h.size())
	return nil
}

// short turns the end of the data inside a frame into damage; other errors pass.
func (c *cursor) short(err error) error {
	if errors.Is(err, io.EOF) {
		return c.corrupt(KindSegmentTruncated)
	}
	return err
}

// fill makes at least n bytes available at the cursor.
func (c *cursor) fill(n int) ([]byte, error) {
	if c.w-c.r >= n {
		return c.buf[c.r:c.w], nil
	}
	if c.off+int64(n) > c.end {
		return nil, io.EOF
	}
	c.makeRoom(n)
	want := min(int64(len(c.buf)-c.w), c.end-c.off-int64(c.w))
	m, err := c.f.ReadAt(c.buf[c.w:c.w+int(want)], c.off+int64(c.w))
	c.w += m
	c.bytes += int64(m)
	if c.w < n {
		if err == nil || errors.Is(err, io.EOF) {
			return nil, io.EOF
		}
		return nil, fmt.Errorf("read plog segment %d at %d: %w", c.seq, c.off, err)
	}
	return c.buf[:c.w], nil
}

// makeRoom moves what is left to the front of a buffer that holds n bytes.
func (c *cursor) makeRoom(n int) {
	size := len(c.buf)
	if full := c.w == size; c.growing && full && size < maxReadBuffer {
		size *= 2
	}
	if n > size {
		size = n + n/4
	}
	to := c.buf
	if size > len(c.buf) {
		to = make([]byte, size)
	}
	c.w = copy(to, c.buf[c.r:c.w])
	c.buf, c.r = to, 0
}
