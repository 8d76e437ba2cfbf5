package duplication

import "replicanode/replica/mutation"

// recordOverhead is what a record costs in memory beside its data, rounded up: it counts against the tail's limit, so that
// decrees without data are bounded too.
const recordOverhead = 64

// tailChunkBytes is the size of the pieces in which the tail takes memory.
const tailChunkBytes = 64 << 10

// record is one applied decree. Its data never changes and is nil when the decree is not to be shipped.
type record struct {
	decree    uint64
	timestamp mutation.Timestamp
	data      []byte
}

// tail is the newest applied decrees of one partition, without gaps, at most limit bytes of them. It is not safe for concurrent
// use; the data of records that were read from it stays valid for ever.
type tail struct {
	limit int
	bytes int
	// ring holds count records from position head on; next is the decree that follows the last of them.
	ring  []record
	head  int
	count int
	next  uint64
	chunk []byte // the unused rest of the newest piece of memory
}

// first is the oldest decree in the tail, or next when it is empty.
func (t *tail) first() uint64 { return t.next - uint64(t.count) }

// reset empties the tail; the next decree to be added is next.
func (t *tail) reset(next uint64) { *t = tail{limit: t.limit, next: next} }

// add appends a decree, copying data; nil data means that the decree is not to be shipped. A decree that does not follow the last
// one starts the tail anew.
func (t *tail) add(decree uint64, timestamp mutation.Timestamp, data []byte) {
	if decree != t.next {
		t.reset(decree)
	}
	cost := recordOverhead + len(data)
	if cost > t.limit {
		t.reset(decree + 1)
		return
	}
	for t.bytes+cost > t.limit {
		t.drop()
	}
	if t.count == len(t.ring) {
		t.grow()
	}
	t.ring[(t.head+t.count)%len(t.ring)] = record{decree: decree, timestamp: timestamp, data: t.copy(data)}
	t.count++
	t.bytes += cost
	t.next = decree + 1
}

// copy keeps small data together in pieces of memory, which the garbage collector frees when no record uses them.
func (t *tail) copy(data []byte) []byte {
	if data == nil {
		return nil
	}
	if len(data) > tailChunkBytes/4 {
		return append(make([]byte, 0, len(data)), data...)
	}
	if len(data) > len(t.chunk) {
		t.chunk = make([]byte, min(tailChunkBytes, t.limit))
	}
	kept := t.chunk[:len(data):len(data)]
	copy(kept, data)
	t.chunk = t.chunk[len(data):]
	return kept
}

func (t *tail) drop() {
	oldest := &t.ring[t.head]
	t.bytes -= recordOverhead + len(oldest.data)
	*oldest = record{}
	t.head = (t.head + 1) % len(t.ring)
	t.count--
}

func (t *tail) grow() {
	ring := make([]record, max(64, 2*len(t.ring)))
	n := copy(ring, t.ring[t.head:])
	copy(ring[n:], t.ring[:t.head])
	t.ring, t.head = ring, 0
}

// trim drops the decrees up to and including decree: nobody will ask for them.
func (t *tail) trim(decree uint64) {
	for t.count > 0 && t.ring[t.head].decree <= decree {
		t.drop()
	}
}

// read appends to into the records from decree from on, until their cost reaches maxBytes or the tail ends; at least one if there
// is one. It reports false when from is not in the tail any more.
func (t *tail) read(from uint64, maxBytes int, into []record) ([]record, bool) {
	if from < t.first() {
		return into, false
	}
	for bytes := 0; from < t.next && bytes < maxBytes; from++ {
		r := t.ring[(t.head+t.count-int(t.next-from))%len(t.ring)]
		bytes += recordOverhead + len(r.data)
		into = append(into, r)
	}
	return into, true
}
