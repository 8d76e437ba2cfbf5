package replica

import (
	"bytes"

	"github.com/cespare/xxhash/v2"
)

// effect is one database record that a mutation writes.
type effect struct {
	key, val []byte // in the arena of the owner
	hash     uint64
	// expiresAt is badger's own expiry in seconds since 1970, 0 for none.
	expiresAt uint64
	// superseded: a later effect of the same mutation is on the same key.
	superseded bool
	owner      *effects
	// prev is what the overlay held for the key before; used by undo only, until the next command begins.
	prev *effect
	// next is the next effect in the overlay with the same hash and another key.
	next *effect
}

// effects are what one mutation writes. Their memory is reused; see overlay.
type effects struct {
	list []*effect
	// arena holds keys and values. Whoever drops the effects resets it.
	arena *arena
	// generations is the number of lives that the mutation has begun.
	generations uint32
}

// overlay holds what is proposed, or being applied, and not yet in the database: the latest effect per database key.
// Only the partition's goroutine touches it. The memory of an effect may be reused once drop has been called for its
// owner, because nothing points to it any more.
type overlay struct {
	byHash map[uint64]*effect
	free   []*effect
}

func newOverlay() overlay { return overlay{byHash: make(map[uint64]*effect)} }

// get is the latest effect on a database key, nil if there is none.
func (o *overlay) get(key []byte) *effect {
	if len(o.byHash) == 0 {
		return nil
	}
	for e := o.byHash[xxhash.Sum64(key)]; e != nil; e = e.next {
		if bytes.Equal(e.key, key) {
			return e
		}
	}
	return nil
}

// add makes a new effect the latest on its key.
func (o *overlay) add(owner *effects, key, val []byte, expiresAt uint64) {
	e := o.alloc()
	e.key, e.val, e.expiresAt, e.owner = key, val, expiresAt, owner
	e.hash = xxhash.Sum64(key)
	owner.list = append(owner.list, e)
	head := o.byHash[e.hash]
	for link := head; link != nil; link = link.next {
		if bytes.Equal(link.key, key) {
			e.prev = link
			link.superseded = link.superseded || link.owner == owner
			head = o.unlink(head, link)
			break
		}
	}
	e.next = head
	o.byHash[e.hash] = e
}

// unlink takes e out of the chain and returns the new head.
func (o *overlay) unlink(head, e *effect) *effect {
	if head == e {
		return e.next
	}
	for link := head; link != nil; link = link.next {
		if link.next == e {
			link.next = e.next
			return head
		}
	}
	return head
}

func (o *overlay) setHead(hash uint64, head *effect) {
	if head == nil {
		delete(o.byHash, hash)
		return
	}
	o.byHash[hash] = head
}

// undo takes back the effects of owner after the first n, as if they had never been added. Nothing may have been
// dropped since they were.
func (o *overlay) undo(owner *effects, n int) {
	for i := len(owner.list) - 1; i >= n; i-- {
		e := owner.list[i]
		head := o.unlink(o.byHash[e.hash], e)
		if e.prev != nil {
			if e.prev.owner == owner {
				e.prev.superseded = false
			}
			e.prev.next = head
			head = e.prev
		}
		o.setHead(e.hash, head)
		o.release(e)
	}
	owner.list = owner.list[:n]
}

// drop forgets all effects of owner, because they are in the database or never will be.
func (o *overlay) drop(owner *effects) {
	for _, e := range owner.list {
		if !e.superseded {
			o.remove(e)
		}
		o.release(e)
	}
	owner.list = owner.list[:0]
	owner.generations = 0
}

// remove takes e out unless a later mutation's effect took its place.
func (o *overlay) remove(e *effect) {
	head := o.byHash[e.hash]
	if head == e {
		o.setHead(e.hash, e.next)
		return
	}
	for link := head; link != nil; link = link.next {
		if link.next == e {
			link.next = e.next
			return
		}
	}
}

func (o *overlay) alloc() *effect {
	if n := len(o.free); n > 0 {
		e := o.free[n-1]
		o.free = o.free[:n-1]
		return e
	}
	return new(effect)
}

const maxFreeEffects = 1 << 14

func (o *overlay) release(e *effect) {
	*e = effect{}
	if len(o.free) < maxFreeEffects {
		o.free = append(o.free, e)
	}
}

// children calls f for the latest effect on every database key with the prefix, in no order.
func (o *overlay) children(prefix []byte, f func(e *effect)) {
	for _, e := range o.byHash {
		for ; e != nil; e = e.next {
			if bytes.HasPrefix(e.key, prefix) {
				f(e)
			}
		}
	}
}

// arena hands out memory that is freed all at once.
type arena struct{ chunk []byte }

const (
	arenaChunkBytes = 64 << 10
	arenaKeepBytes  = 256 << 10
)

// take returns an empty slice with room for n bytes.
func (a *arena) take(n int) []byte {
	if cap(a.chunk)-len(a.chunk) < n {
		a.chunk = make([]byte, 0, max(n, arenaChunkBytes, min(2*cap(a.chunk), arenaKeepBytes)))
	}
	at := len(a.chunk)
	a.chunk = a.chunk[:at+n]
	return a.chunk[at : at : at+n]
}

func (a *arena) reset() {
	if cap(a.chunk) > arenaKeepBytes {
		a.chunk = nil
	}
	a.chunk = a.chunk[:0]
}
