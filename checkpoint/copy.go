package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"path"

	"github.com/dgraph-io/badger/v4"
)

// copyAll writes the chunks. Each chunk has its own iterator, so that tables
// and memtables which the database has replaced are held for one chunk's time only.
func (c *creation) copyAll() error {
	var err error
	if c.enc, err = newEncoder(); err != nil {
		return fmt.Errorf("make compressor: %w", err)
	}
	defer c.enc.Close()
	c.w = newChunkWriter(c.enc, func(n int) error {
		c.o.Progress.Bytes.Add(int64(n))
		return c.slices.piece(n)
	})
	// The transaction reads above the decree on purpose: badger would skip newer
	// versions in a loop of unbounded length, here each of them is a step.
	c.txn = c.src.DB().NewTransactionAt(math.MaxUint64, false)
	defer c.txn.Discard()
	for more := true; more; {
		if more, err = c.copyChunk(); err != nil {
			return err
		}
	}
	return nil
}

// copyChunk writes one chunk and tells whether entries are left. Nothing is
// written when none is.
func (c *creation) copyChunk() (more bool, err error) {
	it := c.txn.NewIterator(badger.IteratorOptions{AllVersions: true, SinceTs: c.m.Parent})
	defer it.Close()
	it.Seek(c.resume)
	found, err := c.findNext(it)
	if err != nil || !found {
		return false, err
	}
	if len(c.m.Chunks) >= maxChunks {
		return false, fmt.Errorf("more than %d chunks", maxChunks)
	}
	id := chunkID{c.m.Partition, c.m.Decree, uint32(len(c.m.Chunks) + 1)}
	var f DraftFile
	err = c.slices.await(func() (err error) {
		f, err = c.draft.Create(id.name())
		return err
	})
	if f != nil {
		defer func() { err = errors.Join(err, f.Close()) }()
	}
	if err != nil {
		return false, err
	}
	c.file.reset(f, c.slices)
	if err := c.w.reset(&c.file, id); err != nil {
		return false, fmt.Errorf("write chunk %s: %w", id.name(), err)
	}
	chunk := Chunk{Name: id.name()}
	for found && c.w.estimate() < c.o.ChunkBytes {
		if chunk.First == nil {
			chunk.First = it.Item().KeyCopy(nil)
		}
		if err := c.copyItem(it.Item()); err != nil {
			return false, fmt.Errorf("write chunk %s: %w", id.name(), err)
		}
		if found, err = c.findNext(it); err != nil {
			return false, err
		}
	}
	chunk.Last = bytes.Clone(c.w.lastK)
	if err := c.finishChunk(f, &chunk); err != nil {
		return false, err
	}
	if found {
		c.resume = it.Item().KeyCopy(c.resume)
	}
	return found, nil
}

// findNext moves it to the next item to copy: the newest version at or below
// the decree of a key not yet copied in this chunk.
func (c *creation) findNext(it *badger.Iterator) (bool, error) {
	for ; it.Valid(); it.Next() {
		if err := c.slices.step(); err != nil {
			return false, err
		}
		item := it.Item()
		if item.Version() > c.m.Decree || bytes.Equal(item.Key(), c.entry.Key) {
			continue
		}
		if c.m.Full() && item.IsDeletedOrExpired() {
			// Older versions of the key are hidden by this one.
			c.entry.Key = append(c.entry.Key[:0], item.Key()...)
			continue
		}
		return true, nil
	}
	return false, nil
}

func (c *creation) copyItem(item *badger.Item) error {
	e := &c.entry
	e.Kind, e.UserMeta, e.Version, e.ExpiresAt = Put, item.UserMeta(), item.Version(), item.ExpiresAt()
	e.Key = append(e.Key[:0], item.Key()...)
	if item.IsDeletedOrExpired() {
		e.Kind, e.Value, e.ExpiresAt = Delete, nil, 0
		c.m.Deletes++
		return c.add()
	}
	return item.Value(func(v []byte) error {
		e.Value = v
		err := c.add()
		e.Value = nil
		return err
	})
}

func (c *creation) add() error {
	c.o.Progress.Entries.Add(1)
	before := c.w.rawSize
	err := c.w.add(&c.entry)
	c.o.Progress.RawBytes.Add(c.w.rawSize - before)
	return err
}

func (c *creation) finishChunk(f DraftFile, chunk *Chunk) error {
	if err := c.w.finish(); err != nil {
		return fmt.Errorf("write chunk %s: %w", chunk.Name, err)
	}
	if err := c.file.flush(); err != nil {
		return fmt.Errorf("write chunk %s: %w", chunk.Name, err)
	}
	if err := c.slices.await(f.Finish); err != nil {
		return fmt.Errorf("sync chunk %s: %w", chunk.Name, err)
	}
	chunk.Size, chunk.CRC32C = c.w.size, crcString(c.w.crc)
	chunk.Entries, chunk.RawBytes = c.w.entries, c.w.rawSize
	c.m.Chunks = append(c.m.Chunks, *chunk)
	c.m.Bytes += chunk.Size
	c.m.Entries += chunk.Entries
	c.m.RawBytes += chunk.RawBytes
	c.o.Progress.Chunks.Add(1)
	return nil
}

// slotWriter collects small writes and makes each large one without the slot:
// a place that is slow, or full of other writes, holds up nobody.
type slotWriter struct {
	f      io.Writer
	slices *slicer
	buf    []byte
}

// slotWriteBytes is how much is written at once.
const slotWriteBytes = 256 << 10

func (w *slotWriter) reset(f io.Writer, slices *slicer) {
	w.f, w.slices, w.buf = f, slices, w.buf[:0]
}

// Write implements io.Writer.
func (w *slotWriter) Write(p []byte) (int, error) {
	w.buf = append(w.buf, p...)
	if len(w.buf) < slotWriteBytes {
		return len(p), nil
	}
	return len(p), w.flush()
}

func (w *slotWriter) flush() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.slices.await(func() error {
		_, err := w.f.Write(w.buf)
		return err
	})
	w.buf = w.buf[:0]
	return err
}

// readBack holds the chunks' bytes against the checksums taken while they were
// written, unless the backend has done that.
func (c *creation) readBack() error {
	buf := make([]byte, 256<<10)
	for i := range c.m.Chunks {
		if err := c.readBackChunk(&c.m.Chunks[i], buf); err != nil {
			return err
		}
	}
	return nil
}

func (c *creation) readBackChunk(chunk *Chunk, buf []byte) error {
	var f io.ReadCloser
	err := c.slices.await(func() (err error) {
		f, err = c.draft.Open(chunk.Name)
		return err
	})
	if f != nil {
		defer f.Close()
	}
	if err != nil {
		return fmt.Errorf("open chunk: %w", err)
	}
	if f == nil {
		return nil
	}
	var crc uint32
	var size int64
	for {
		n, err := f.Read(buf)
		crc = crc32.Update(crc, castagnoli, buf[:n])
		size += int64(n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("read chunk %s: %w", chunk.Name, err)
		}
		if err := c.slices.piece(n); err != nil {
			return err
		}
	}
	if size != chunk.Size || crcString(crc) != chunk.CRC32C {
		return &CorruptError{Path: path.Join(c.store.dir(c.m.Partition, c.m.Decree), chunk.Name), Reason: "what was read differs from what was written"}
	}
	return nil
}
