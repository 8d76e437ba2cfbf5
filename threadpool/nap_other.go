//go:build !linux

package threadpool

// nap lets a few microseconds pass: where there is no call that sleeps for so short a time, the waiter goes on to look.
func nap(int64) { spin(8 * firstSpin) }
