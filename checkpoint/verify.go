package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Verification is what Verify found.
type Verification struct {
	Manifest *Manifest `json:"manifest"`
	Bytes    int64     `json:"bytes"` // read
	// Bad holds one error for each damaged or missing chunk, in chunk order.
	Bad []error `json:"-"`
}

// Err joins what is wrong; nil when all is well.
func (v *Verification) Err() error { return errors.Join(v.Bad...) }

// Verify reads every byte of one checkpoint, decodes every entry, and names
// every bad chunk. It does not look at ancestors. An error is returned only
// when there is no readable manifest, or on cancellation; damage to chunks is
// in the Verification. turn may be nil.
func (s *Store) Verify(ctx context.Context, turn Turn, partition uint32, decree uint64) (*Verification, error) {
	m, err := s.manifest(ctx, partition, decree)
	if err != nil {
		return nil, err
	}
	dec, err := newDecoder()
	if err != nil {
		return nil, fmt.Errorf("make decompressor: %w", err)
	}
	defer dec.Close()
	v := &Verification{Manifest: m}
	slices := newSlicer(ctx, turn, time.Millisecond)
	var deletes uint64
	for i := range m.Chunks {
		check := &chunkSource{store: s, m: m, index: i, dec: dec, slices: slices}
		n, err := check.drain()
		v.Bytes += check.size
		deletes += n
		switch {
		case ctx.Err() != nil:
			return v, ctx.Err()
		case errors.Is(err, errStopped):
			return v, err
		case err != nil:
			v.Bad = append(v.Bad, err)
		}
	}
	if len(v.Bad) == 0 && deletes != m.Deletes {
		v.Bad = append(v.Bad, &CorruptError{Path: s.dir(partition, decree),
			Reason: fmt.Sprintf("%d deletes, the manifest says %d", deletes, m.Deletes)})
	}
	return v, nil
}

// manifest is load without the look at the chunks, which Verify reports one by one.
func (s *Store) manifest(ctx context.Context, partition uint32, decree uint64) (*Manifest, error) {
	m, err := s.readManifest(ctx, partition, decree)
	if err != nil {
		if _, lerr := s.load(ctx, partition, decree); errors.Is(lerr, ErrNotFound) {
			return nil, lerr
		}
		return nil, err
	}
	if m.Partition != partition || m.Decree != decree {
		_, err := s.load(ctx, partition, decree)
		return nil, err
	}
	return m, nil
}

// errStopped marks a cancellation that the turn reported before the context did.
var errStopped = errors.New("stopped")

// chunkSource reads one chunk of a manifest and holds it against both.
type chunkSource struct {
	store  *Store
	m      *Manifest
	index  int
	dec    *zstd.Decoder
	slices *slicer

	f     io.ReadCloser
	r     *chunkReader
	first bool
	size  int64
}

func (c *chunkSource) chunk() *Chunk { return &c.m.Chunks[c.index] }

func (c *chunkSource) path() string {
	return c.store.b.Path(path.Join(place(c.m.Partition, c.m.Decree), c.chunk().Name))
}

// open opens the file and reads its header.
func (c *chunkSource) open() error {
	f, err := c.store.b.Open(c.slices.ctx, path.Join(place(c.m.Partition, c.m.Decree), c.chunk().Name))
	if err != nil {
		return fmt.Errorf("open chunk: %w", err)
	}
	c.f, c.first = f, true
	id := chunkID{c.m.Partition, c.m.Decree, uint32(c.index + 1)}
	if c.r, err = openChunk(f, c.path(), id, c.dec); err != nil {
		return errors.Join(err, c.close())
	}
	c.r.afterBlock = func(n int) error {
		if err := c.slices.piece(n); err != nil {
			return fmt.Errorf("%w: %w", errStopped, err)
		}
		return nil
	}
	return nil
}

func (c *chunkSource) close() error {
	if c.f == nil {
		return nil
	}
	if c.r != nil {
		c.size = c.r.off
	}
	err := c.f.Close()
	c.f = nil
	return err
}

// next reads one entry; io.EOF after the last, when the whole chunk has been
// found to be what the manifest says.
func (c *chunkSource) next(e *Entry) error {
	err := c.r.next(e)
	if err == nil {
		return c.checkEntry(e)
	}
	if err == io.EOF {
		if reason := c.disagreement(); reason != "" {
			return &CorruptError{Path: c.path(), Reason: reason}
		}
	}
	return err
}

func (c *chunkSource) checkEntry(e *Entry) error {
	switch {
	case e.Version > c.m.Decree || e.Version <= c.m.Parent:
		return c.r.corrupt("version %d in a checkpoint of decrees %d to %d", e.Version, c.m.Parent+1, c.m.Decree)
	case e.Kind == Delete && c.m.Full():
		return c.r.corrupt("a delete in a full checkpoint")
	case c.first && !bytes.Equal(e.Key, c.chunk().First):
		return c.r.corrupt("the first key is not the one in the manifest")
	}
	c.first = false
	return nil
}

// disagreement says how the chunk, read to its end, differs from the manifest.
func (c *chunkSource) disagreement() string {
	chunk := c.chunk()
	switch {
	case c.r.off != chunk.Size:
		return fmt.Sprintf("chunk has %d bytes, the manifest says %d", c.r.off, chunk.Size)
	case crcString(c.r.crc) != chunk.CRC32C:
		return fmt.Sprintf("chunk has checksum %s, the manifest says %s", crcString(c.r.crc), chunk.CRC32C)
	case c.r.entries != chunk.Entries || c.r.rawSize != chunk.RawBytes:
		return "the counts are not those in the manifest"
	case !bytes.Equal(c.r.key, chunk.Last):
		return "the last key is not the one in the manifest"
	}
	return ""
}

// drain reads the chunk to its end and counts its deletes.
func (c *chunkSource) drain() (deletes uint64, err error) {
	if err := c.open(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	var e Entry
	for {
		switch err := c.next(&e); {
		case err == io.EOF:
			return deletes, nil
		case err != nil:
			return deletes, err
		}
		if e.Kind == Delete {
			deletes++
		}
		if err := c.slices.step(); err != nil {
			return deletes, fmt.Errorf("%w: %w", errStopped, err)
		}
	}
}
