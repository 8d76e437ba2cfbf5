package threadpool

// heapItem is what a heap holds: it knows its order, and is told where in the heap it is.
type heapItem[T any] interface {
	before(T) bool
	// placed is told the item's index, -1 for none.
	placed(i int32)
}

// heap is a binary heap whose items may be changed and taken out wherever they are.
type heap[T heapItem[T]] []T

// entryHeap orders entries by arrival, timerHeap timers by time.
type (
	entryHeap = heap[*entry]
	timerHeap = heap[timer]
)

func (e *entry) before(o *entry) bool { return e.seq < o.seq }
func (e *entry) placed(i int32)       { e.heapIndex = i }

// timer is an entry and the time at which something is due for it.
type timer struct {
	at int64
	e  *entry
}

func (t timer) before(o timer) bool { return t.at < o.at }
func (t timer) placed(i int32)      { t.e.timerIdx = i }

// top is the first item, zero when there is none.
func (h heap[T]) top() (x T) {
	if len(h) > 0 {
		x = h[0]
	}
	return x
}

func (h *heap[T]) push(x T) {
	*h = append(*h, x)
	i := len(*h) - 1
	x.placed(int32(i))
	h.up(i)
}

func (h *heap[T]) remove(i int) {
	a := *h
	last := len(a) - 1
	a[i].placed(-1)
	if i != last {
		a[i] = a[last]
		a[i].placed(int32(i))
	}
	clear(a[last:])
	*h = a[:last]
	if i != last {
		h.fix(i)
	}
}

// fix puts the item at i, whose order has changed, where it belongs.
func (h heap[T]) fix(i int) {
	if !h.down(i) {
		h.up(i)
	}
}

func (h heap[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h[i].before(h[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h heap[T]) down(i int) (moved bool) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return moved
		}
		if right := child + 1; right < len(h) && h[right].before(h[child]) {
			child = right
		}
		if !h[child].before(h[i]) {
			return moved
		}
		h.swap(i, child)
		i, moved = child, true
	}
}

func (h heap[T]) swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].placed(int32(i))
	h[j].placed(int32(j))
}
