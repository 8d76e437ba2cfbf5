package threadpool

import "sync"

// mutex is a sync.Mutex whose waiters look again for a moment before they sleep. The pool's sections are some dozen nanoseconds
// long, and to put a goroutine to sleep and wake it costs as much as a hundred of them.
type mutex struct{ sync.Mutex }

// A waiter pauses between its looks, longer each time: whoever holds the lock takes it again and again meanwhile, which is cheap as
// long as what it guards stays in one processor's cache. In steps of about half a nanosecond, and some microseconds in all.
const (
	mutexLooks   = 12
	firstPause   = 32
	longestPause = 1024
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
