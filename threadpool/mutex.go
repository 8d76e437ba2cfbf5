package threadpool

import "sync"

// mutex is a sync.Mutex whose waiters look again for a moment before they sleep. The pool's sections are some dozen nanoseconds
// long, and to put a goroutine to sleep and wake it costs as much as a dozen of them.
type mutex struct{ sync.Mutex }

// mutexLooks is how often a waiter looks before it sleeps: for a microsecond or two.
const mutexLooks = 1000

// Lock locks m.
func (m *mutex) Lock() {
	if !m.TryLock() {
		m.wait()
	}
}

func (m *mutex) wait() {
	for range mutexLooks {
		if m.TryLock() {
			return
		}
	}
	m.Mutex.Lock()
}
