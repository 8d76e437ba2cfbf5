package threadpool

import "syscall"

// nap leaves the processor to others for at least so many nanoseconds. A timer of the runtime would not do: it is a
// millisecond late when nothing else runs, and virtual under testing/synctest, where whoever holds a lock needs real time.
func nap(ns int64) {
	t := syscall.NsecToTimespec(ns)
	// A signal ends the nap sooner, which does no harm.
	_ = syscall.Nanosleep(&t, nil)
}
