package threadpool

// queue holds the waiting tasks of one code and one base level. Nearly all tasks arrive in order and go through the
// list; those that come back (parked, promoted to the head of their key, moved between levels) go through heaps
// ordered by arrival, one per effective level. All operations are O(1) or O(log n).
type queue struct {
	code *code
	base Priority
	// active is the queue's index in core.active, or -1.
	active int
	// head and tail are the list's ends. The head's prev means nothing, so that taking the head leaves the next one alone.
	head, tail *entry
	late       int
	stats      levelStats
	fresh      [levels]entryHeap
	ready      [levels]entryHeap
}

// push adds e at effective level eff. Only entries without any promotion may use the list, whose aging is
// computed from its head alone.
func (q *queue) push(e *entry, eff Priority) {
	switch {
	case e.state == stateReady:
		e.place, e.heapLevel = placeReady, eff
		q.ready[eff].push(e)
		q.late++
	case eff == q.base && e.aged == 0 && (q.tail == nil || q.tail.seq < e.seq && q.tail.since <= e.since):
		e.place = placeList
		e.prev, e.next = q.tail, nil
		if q.head == nil {
			q.head = e
		} else {
			q.tail.next = e
		}
		q.tail = e
	default:
		e.place, e.heapLevel = placeFresh, eff
		q.fresh[eff].push(e)
		q.late++
	}
}

// remove takes e out, wherever in the queue it is.
func (q *queue) remove(e *entry) {
	switch e.place {
	case placeList:
		q.unlist(e)
	case placeFresh:
		q.fresh[e.heapLevel].remove(int(e.heapIndex))
		q.late--
	case placeReady:
		q.ready[e.heapLevel].remove(int(e.heapIndex))
		q.late--
	}
	e.place = placeNone
}

// unlist takes e out of the list.
func (q *queue) unlist(e *entry) {
	next := e.next
	switch {
	case q.head == e:
		q.head = next
		if next == nil {
			q.tail = nil
		}
	case next == nil:
		q.tail = e.prev
		e.prev.next = nil
	default:
		e.prev.next = next
		next.prev = e.prev
	}
	e.next, e.prev = nil, nil
}

// each calls f for every entry, in no useful order across the parts, until it returns false. f must not change the queue.
func (q *queue) each(f func(*entry) bool) {
	for e := q.head; e != nil; e = e.next {
		if !f(e) {
			return
		}
	}
	if q.late == 0 {
		return
	}
	for l := range q.fresh {
		for _, e := range q.fresh[l] {
			if !f(e) {
				return
			}
		}
		for _, e := range q.ready[l] {
			if !f(e) {
				return
			}
		}
	}
}
