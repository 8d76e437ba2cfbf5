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

// entryHeap is a binary heap by order of arrival.
type entryHeap []*entry

func (h entryHeap) top() *entry {
	if len(h) == 0 {
		return nil
	}
	return h[0]
}

func (h *entryHeap) push(e *entry) {
	e.heapIndex = int32(len(*h))
	*h = append(*h, e)
	h.up(len(*h) - 1)
}

func (h *entryHeap) remove(i int) {
	a := *h
	last := len(a) - 1
	a[i].heapIndex = -1
	if i != last {
		a[i] = a[last]
		a[i].heapIndex = int32(i)
	}
	a[last] = nil
	*h = a[:last]
	if i != last && !h.down(i) {
		h.up(i)
	}
}

func (h entryHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].seq <= h[i].seq {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h entryHeap) down(i int) bool {
	moved := false
	for {
		child := 2*i + 1
		if child >= len(h) {
			return moved
		}
		if right := child + 1; right < len(h) && h[right].seq < h[child].seq {
			child = right
		}
		if h[i].seq <= h[child].seq {
			return moved
		}
		h.swap(i, child)
		i, moved = child, true
	}
}

func (h entryHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].heapIndex, h[j].heapIndex = int32(i), int32(j)
}

// timer is an entry and the time at which something is due for it.
type timer struct {
	at int64
	e  *entry
}

// timerHeap is a binary heap by time.
type timerHeap []timer

func (h *timerHeap) set(e *entry, at int64) {
	if e.timerIdx < 0 {
		e.timerIdx = int32(len(*h))
		*h = append(*h, timer{at, e})
		h.up(len(*h) - 1)
		return
	}
	(*h)[e.timerIdx].at = at
	if i := int(e.timerIdx); !h.down(i) {
		h.up(i)
	}
}

func (h *timerHeap) clear(e *entry) {
	i := int(e.timerIdx)
	if i < 0 {
		return
	}
	a := *h
	last := len(a) - 1
	e.timerIdx = -1
	if i != last {
		a[i] = a[last]
		a[i].e.timerIdx = int32(i)
	}
	a[last] = timer{}
	*h = a[:last]
	if i != last && !h.down(i) {
		h.up(i)
	}
}

func (h timerHeap) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if h[parent].at <= h[i].at {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h timerHeap) down(i int) bool {
	moved := false
	for {
		child := 2*i + 1
		if child >= len(h) {
			return moved
		}
		if right := child + 1; right < len(h) && h[right].at < h[child].at {
			child = right
		}
		if h[i].at <= h[child].at {
			return moved
		}
		h.swap(i, child)
		i, moved = child, true
	}
}

func (h timerHeap) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].e.timerIdx, h[j].e.timerIdx = int32(i), int32(j)
}
