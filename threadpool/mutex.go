package threadpool

import "sync"

// mutex is a sync.Mutex whose waiters look again for a moment before they sleep. The pool's sections are some dozen nanoseconds
// long, and to put a goroutine to sleep and wake it costs as much as a hundred of them.
type mutex struct{ sync.Mutex }

// A waiter pauses between its looks, at first for about a microsecond, in the end for some: whoever holds the lock takes it again
// and again meanwhile, which is cheap as long as what it guards stays in one processor's cache. Looking sooner tears it away after
// every few sections. Pauses are in steps of less than half a nanosecond; all together they are about a tenth of a millisecond.
const (
	mutexLooks   = 24
	firstPause   = 2048
	longestPause = 16384
)

// Lock locks m.
func (m *mutex) Lock() {
	if !m.TryLock() {
		m.wait()
	}
}

func (m *mutex) wait() {
	pause := firstPause
	for range mutexLooks {
		for range pause {
		}
		if m.TryLock() {
			return
		}
		pause = min(2*pause, longestPause)
	}
	m.Mutex.Lock()
}
