package threadpool

import "sync"

// mutex is a sync.Mutex whose waiters look again for a moment, and then nap and look, before they sleep. The pool's sections are
// some dozen nanoseconds long, and to put a goroutine to sleep and wake it costs as much as a hundred of them.
type mutex struct{ sync.Mutex }

// A waiter that has looked in vain for some microseconds waits for somebody who takes the lock again and again: another worker whose
// tasks are next to nothing, and which does them all sooner alone, while what the lock guards stays in one processor's cache. So it
// leaves the processor to others and comes back ever later, for about a millisecond in all. What it can cost is one
// slot, idle for the rest of a nap, when the other's next task is long.
const (
	spins = 2
	// firstSpin is in steps of less than half a nanosecond, firstNap in nanoseconds. Both double.
	firstSpin = 2048
	naps      = 3
	firstNap  = 100_000
)

// Lock locks m. The compiler does not inline it; where every task passes, its two halves stand in its place.
func (m *mutex) Lock() {
	if !m.TryLock() {
		m.wait()
	}
}

func (m *mutex) wait() {
	for i := range spins {
		spin(firstSpin << i)
		if m.TryLock() {
			return
		}
	}
	for i := range naps {
		nap(firstNap << i)
		if m.TryLock() {
			return
		}
	}
	m.Mutex.Lock()
}

func spin(steps int) {
	for range steps {
	}
}
