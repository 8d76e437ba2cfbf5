package tasks

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"time"

	"replicanode/threadpool"
)

// ErrorKind is a class of errors with one retry policy.
type ErrorKind uint8

// The kinds.
const (
	// Other is every error without a better kind.
	Other ErrorKind = iota
	// Busy says that the other side is overloaded.
	Busy
	// Timeout says that an attempt took too long.
	Timeout
	// Conflict says that something else interfered.
	Conflict
	// Permanent says that another attempt would end the same way.
	Permanent

	kinds = int(Permanent) + 1
)

var kindNames = [kinds]string{"other", "busy", "timeout", "conflict", "permanent"}

// String returns a stable name.
func (k ErrorKind) String() string {
	if int(k) < kinds {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseErrorKind reads what String wrote.
func ParseErrorKind(s string) (ErrorKind, error) {
	for i, n := range kindNames {
		if strings.EqualFold(s, n) {
			return ErrorKind(i), nil
		}
	}
	return Other, fmt.Errorf("error kind %q: must be one of %s", s, strings.Join(kindNames[:], ", "))
}

// markedError carries its kind.
type markedError struct {
	error
	kind ErrorKind
}

func (e *markedError) Unwrap() error            { return e.error }
func (e *markedError) TaskErrorKind() ErrorKind { return e.kind }

// Mark gives err a kind, which KindOf finds through any further wrapping. A nil err stays nil.
func Mark(kind ErrorKind, err error) error {
	if err == nil {
		return nil
	}
	return &markedError{error: err, kind: kind}
}

// KindOf finds an error's kind: what it says itself with a method TaskErrorKind() ErrorKind, as errors from Mark do;
// else Timeout for context.DeadlineExceeded, Permanent for context.Canceled and panics, Busy for a full queue,
// and Other for the rest.
func KindOf(err error) ErrorKind {
	var k interface{ TaskErrorKind() ErrorKind }
	switch {
	case errors.As(err, &k):
		return k.TaskErrorKind()
	case errors.Is(err, context.DeadlineExceeded):
		return Timeout
	case errors.Is(err, context.Canceled), errors.Is(err, threadpool.ErrPanic), errors.Is(err, threadpool.ErrClosed):
		return Permanent
	case errors.Is(err, threadpool.ErrQueueFull):
		return Busy
	default:
		return Other
	}
}

// bound is the longest wait after the given number of failures.
func (b *Backoff) bound(failures int) time.Duration {
	d := float64(b.Initial) * math.Pow(b.Factor, float64(min(failures, 64)-1))
	return time.Duration(min(d, float64(b.Max)))
}

// retries is one job's history of failures.
type retries struct {
	failures int
	first    time.Time
}

// next decides about the failure of an attempt: whether there is another one, and after what wait.
func (r *retries) next(p *RetryPolicy, kind ErrorKind, now time.Time, rnd func() float64) (time.Duration, bool) {
	b := p.For(kind)
	if b == nil || b.Initial == 0 {
		return 0, false
	}
	r.failures++
	if r.failures == 1 {
		r.first = now
	}
	wait := time.Duration(rnd() * float64(b.bound(r.failures)))
	switch {
	case b.MaxAttempts > 0 && r.failures >= b.MaxAttempts:
		return 0, false
	case b.MaxElapsed > 0 && now.Add(wait).Sub(r.first) > b.MaxElapsed:
		return 0, false
	}
	return wait, true
}

// newRandom returns a source of numbers from 0 to 1 that its caller must lock.
func newRandom(seed uint64) *rand.Rand {
	if seed == 0 {
		seed = rand.Uint64()
	}
	return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
}
