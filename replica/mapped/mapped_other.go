//go:build !linux

package mapped

import (
	"math"
	"os"
)

// Install does nothing here.
func Install() {}

// Reserve does nothing here.
func Reserve(*os.File, int64) error { return nil }

// Spare is endless here: nothing is reserved.
func Spare(*os.File) (int64, error) { return math.MaxInt64, nil }

// Free is endless here: the system is not asked.
func Free(string) (free, total int64, err error) { return math.MaxInt64, math.MaxInt64, nil }

// Waiting is never so here.
func Waiting(string) bool { return false }

// Taken is whether a file that was empty has been used since: it has a length.
func Taken(f *os.File) bool {
	st, err := f.Stat()
	return err == nil && st.Size() > 0
}
