package resp

import (
	"cmp"
	"fmt"
	"sync/atomic"
)

const (
	// baseBuffer is the size of a fresh read buffer, which a Reader holds outside its Budget.
	baseBuffer = 4 << 10
	// baseArgs is how many arguments a Reader has room for outside its Budget: 40 bytes each.
	baseArgs = 64
	// keepBuffer is the largest read buffer an idle Reader keeps.
	keepBuffer = 64 << 10
	// keepArgs is how many argument slices an idle Reader keeps room for.
	keepArgs = 4 << 10
	// maxHeader bounds a line "*<count>\r\n" or "$<length>\r\n": a 64-bit number has at most 20 characters.
	maxHeader = 32
)

// Limits bounds one request. The zero value of a field means its default.
type Limits struct {
	// MaxBulkBytes is the longest argument, in bytes. Default 8 MiB.
	MaxBulkBytes int
	// MaxArgs is the greatest number of arguments, the command's name included. Default 1 Mi.
	MaxArgs int
	// MaxInlineBytes is the longest inline request, in bytes, its line end excluded. Default 64 KiB.
	MaxInlineBytes int
	// MaxRequestBytes is the longest request as it is on the wire, in bytes. Default 64 MiB.
	MaxRequestBytes int
	// Unauthenticated makes errors of MaxArgs and MaxBulkBytes say that authentication would raise them.
	Unauthenticated bool
}

// BeforeAuth is what Redis grants a client that still has to authenticate: 10 arguments of 16 KiB each.
func BeforeAuth() Limits {
	return Limits{MaxBulkBytes: 16 << 10, MaxArgs: 10, MaxInlineBytes: 64 << 10, MaxRequestBytes: 256 << 10, Unauthenticated: true}
}

// EnsureDefaults replaces zero fields by their defaults.
func (l *Limits) EnsureDefaults() {
	l.MaxBulkBytes = cmp.Or(l.MaxBulkBytes, 8<<20)
	l.MaxArgs = cmp.Or(l.MaxArgs, 1<<20)
	l.MaxInlineBytes = cmp.Or(l.MaxInlineBytes, 64<<10)
	l.MaxRequestBytes = cmp.Or(l.MaxRequestBytes, max(64<<20, 2*l.MaxBulkBytes))
}

// Validate reports the first limit that cannot work.
func (l Limits) Validate() error {
	switch {
	case l.MaxBulkBytes < 16 || l.MaxBulkBytes > 512<<20:
		return fmt.Errorf("max bulk bytes %d: must be between 16 and %d", l.MaxBulkBytes, 512<<20)
	case l.MaxArgs < 1 || l.MaxArgs > 1<<24:
		return fmt.Errorf("max arguments %d: must be between 1 and %d", l.MaxArgs, 1<<24)
	case l.MaxInlineBytes < 16 || l.MaxInlineBytes > 16<<20:
		return fmt.Errorf("max inline bytes %d: must be between 16 and %d", l.MaxInlineBytes, 16<<20)
	case l.MaxRequestBytes < l.MaxBulkBytes || l.MaxRequestBytes > 1<<30:
		return fmt.Errorf("max request bytes %d: must be between the longest argument (%d) and %d", l.MaxRequestBytes, l.MaxBulkBytes, 1<<30)
	}
	return nil
}

// Budget bounds the memory that many readers and replies hold together beyond their small base. A nil Budget has no bound.
type Budget struct {
	limit int64
	used  atomic.Int64
}

// NewBudget returns a budget of limit bytes.
func NewBudget(limit int64) *Budget { return &Budget{limit: limit} }

// Take asks for n bytes more (or gives back -n) and reports whether they were granted. Giving back always succeeds.
func (b *Budget) Take(n int) bool {
	if b == nil || n == 0 {
		return true
	}
	if b.used.Add(int64(n)) > b.limit && n > 0 {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// Used is the number of bytes granted and not given back.
func (b *Budget) Used() int64 {
	if b == nil {
		return 0
	}
	return b.used.Load()
}
