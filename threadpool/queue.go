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

// inOrder says whether e, at effective level eff, belongs at the end of the list. Only entries without any promotion do: the
// list's aging is computed from its head alone.
func (q *queue) inOrder(e *entry, eff Priority) bool {
	return e.state != stateReady && eff == q.base && e.aged == 0 && (q.tail == nil || q.tail.seq < e.seq && q.tail.since <= e.since)
}

// append adds e to the list.
func (q *queue) append(e *entry) {
	e.place = placeList
	e.prev, e.next = q.tail, nil
	if q.head == nil {
		q.head = e
	} else {
		q.tail.next = e
	}
	q.tail = e
}

// pushLate adds e, which does not belong into the list, to a heap.
func (q *queue) pushLate(e *entry, eff Priority) {
	e.heapLevel = eff
	if e.state == stateReady {
		e.place = placeReady
		q.ready[eff].push(e)
	} else {
		e.place = placeFresh
		q.fresh[eff].push(e)
	}
	q.late++
}

// removeLate takes e out of its heap.
func (q *queue) removeLate(e *entry) {
	if e.place == placeReady {
		q.ready[e.heapLevel].remove(int(e.heapIndex))
	} else {
		q.fresh[e.heapLevel].remove(int(e.heapIndex))
	}
	q.late--
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
