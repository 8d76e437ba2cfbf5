package plog

import "sort"

// cacheBlockBytes is the usual size of a cache block; an entry that is larger gets a block of its own.
const cacheBlockBytes = 64 << 10

// maxFreeBlocks bounds the emptied blocks kept for reuse.
const maxFreeBlocks = 8

// cache holds the newest entries of a log: a contiguous run up to the last appended one. Everything not yet
// durable is in it, because that cannot be read from disk. It is guarded by Log.mu.
type cache struct {
	blocks []*cacheBlock // oldest first
	free   []*cacheBlock
	bytes  int64 // capacity of blocks
	limit  int64
}

type cacheBlock struct {
	first uint64 // decree of recs[0]
	recs  []cacheRec
	data  []byte
}

type cacheRec struct {
	term     uint64
	off, len uint32
	typ      uint8
}

// firstIndex is the oldest decree held; ok is false when the cache is empty.
func (c *cache) firstIndex() (uint64, bool) {
	if len(c.blocks) == 0 {
		return 0, false
	}
	return c.blocks[0].first, true
}

// holds reports whether index, which must not be beyond the last appended decree, can be served.
func (c *cache) holds(index uint64) bool {
	return len(c.blocks) > 0 && index >= c.blocks[0].first
}

func (b *cacheBlock) last() uint64 { return b.first + uint64(len(b.recs)) - 1 }

// add appends a copy of e, which follows the newest entry.
func (c *cache) add(e *Entry) {
	var b *cacheBlock
	if n := len(c.blocks); n > 0 {
		b = c.blocks[n-1]
	}
	if b == nil || cap(b.data)-len(b.data) < len(e.Data) || len(b.recs) >= cacheBlockBytes/16 {
		b = c.take(len(e.Data))
		b.first = e.Index
		c.blocks = append(c.blocks, b)
	}
	b.recs = append(b.recs, cacheRec{term: e.Term, off: uint32(len(b.data)), len: uint32(len(e.Data)), typ: e.Type})
	b.data = append(b.data, e.Data...)
}

func (c *cache) take(need int) *cacheBlock {
	var b *cacheBlock
	if n := len(c.free); n > 0 && need <= cacheBlockBytes {
		b, c.free = c.free[n-1], c.free[:n-1]
	} else {
		b = &cacheBlock{data: make([]byte, 0, max(need, cacheBlockBytes))}
	}
	c.bytes += int64(cap(b.data))
	return b
}

func (c *cache) drop(b *cacheBlock) {
	c.bytes -= int64(cap(b.data))
	if cap(b.data) != cacheBlockBytes || len(c.free) >= maxFreeBlocks {
		return
	}
	b.recs, b.data = b.recs[:0], b.data[:0]
	c.free = append(c.free, b)
}

// evict drops the oldest blocks while the cache is over its limit, as far as all their entries are durable.
func (c *cache) evict(durable uint64) {
	n := 0
	for n < len(c.blocks)-1 && c.bytes > c.limit && c.blocks[n].last() <= durable {
		c.drop(c.blocks[n])
		n++
	}
	if n > 0 {
		m := copy(c.blocks, c.blocks[n:])
		clear(c.blocks[m:])
		c.blocks = c.blocks[:m]
	}
}

// truncate forgets the entries from index on.
func (c *cache) truncate(index uint64) {
	for n := len(c.blocks); n > 0; n-- {
		b := c.blocks[n-1]
		if b.last() < index {
			return
		}
		if b.first < index {
			keep := index - b.first
			b.data = b.data[:b.recs[keep].off]
			b.recs = b.recs[:keep]
			return
		}
		c.drop(b)
		c.blocks[n-1] = nil
		c.blocks = c.blocks[:n-1]
	}
}

// find returns the place of index, which the cache holds.
func (c *cache) find(index uint64) (block, rec int) {
	block = sort.Search(len(c.blocks), func(i int) bool { return c.blocks[i].first > index }) - 1
	return block, int(index - c.blocks[block].first)
}

func (c *cache) term(index uint64) uint64 {
	b, r := c.find(index)
	return c.blocks[b].recs[r].term
}

// collect appends copies of the entries [lo,hi) to dst while their size stays within *budget. The first entry
// of an empty dst is always taken. full is true when the budget ended it.
func (c *cache) collect(dst []Entry, lo, hi uint64, budget *uint64) (out []Entry, full bool) {
	bi, ri := c.find(lo)
	n, bytes := 0, 0
	for b, r, i := bi, ri, lo; i < hi; i++ {
		if r == len(c.blocks[b].recs) {
			b, r = b+1, 0
		}
		rec := &c.blocks[b].recs[r]
		size := wireSize(i, rec.term, rec.typ, int(rec.len))
		if size > *budget && len(dst)+n > 0 {
			full = true
			break
		}
		*budget -= min(size, *budget)
		n, bytes, r = n+1, bytes+int(rec.len), r+1
	}
	if cap(dst)-len(dst) < n {
		grown := make([]Entry, len(dst), len(dst)+n)
		copy(grown, dst)
		dst = grown
	}
	slab := make([]byte, 0, bytes)
	for b, r, i := bi, ri, lo; n > 0; n, i = n-1, i+1 {
		if r == len(c.blocks[b].recs) {
			b, r = b+1, 0
		}
		rec := &c.blocks[b].recs[r]
		at := len(slab)
		slab = append(slab, c.blocks[b].data[rec.off:rec.off+rec.len]...)
		dst = append(dst, Entry{Index: i, Term: rec.term, Type: rec.typ, Data: slab[at:len(slab):len(slab)]})
		r++
	}
	return dst, full
}
