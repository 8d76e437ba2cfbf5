package load

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Arrivals is the kind of an open-loop schedule.
type Arrivals string

const (
	// Poisson arrivals are independent of each other, as those of many clients are: gaps are exponential.
	Poisson Arrivals = "poisson"
	// Evenly spaced arrivals flatter the server: no two are due at once.
	Evenly Arrivals = "evenly"
)

// schedule is a sequence of arrival times, fixed by its kind, rate and seed.
type schedule struct {
	kind Arrivals
	gap  float64 // mean nanoseconds between arrivals
	n    uint64  // arrivals so far (evenly)
	at   float64 // last arrival in nanoseconds since the start (poisson)
	rng  *rand.Rand
}

// newSchedule makes a schedule of `rate` arrivals a second, which must be positive.
func newSchedule(kind Arrivals, rate float64, seed uint64) (*schedule, error) {
	if kind != Poisson && kind != Evenly {
		return nil, fmt.Errorf("arrivals %q: must be %q or %q", kind, Poisson, Evenly)
	}
	if !(rate > 0) || rate > MaxRate {
		return nil, fmt.Errorf("rate %v: must be above 0 and at most %d a second", rate, MaxRate)
	}
	return &schedule{kind: kind, gap: 1e9 / rate, rng: newRand(seed, streamArrivals)}, nil
}

// next returns when the next request is due, counted from the start of the schedule. It never decreases.
func (s *schedule) next() time.Duration {
	if s.kind == Evenly {
		at := float64(s.n) * s.gap
		s.n++
		return time.Duration(at)
	}
	// 1-Float64 is in (0, 1]: its logarithm is finite.
	s.at -= math.Log(1-s.rng.Float64()) * s.gap
	return time.Duration(s.at)
}

// Streams keep the random sequences of one seed apart.
const (
	streamArrivals = iota + 1
	streamFiller
	streamOperations // and everything above: one for each closed-loop client
)

func newRand(seed, stream uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, stream)) }
